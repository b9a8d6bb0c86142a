"""Small runs, and ways to stop them."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cryospin.cli import app
from cryospin.engine.record import Silence
from cryospin.pipeline import reconstruct
from cryospin.settings import Settings

COUNT, BOX, PIXEL = 130, 24, 8.0


class Killed(BaseException):
    """Ends a run at once: nothing that catches errors catches it."""


class Killer(Silence):
    """Ends a run at a given epoch or note since it listens."""

    def __init__(self, *, epoch=None, note=None, with_=Killed):
        self.left, self.words, self.death, self.stages = epoch, note, with_, []

    def epoch(self, record):
        self.stages.append(record.stage)
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise self.death

    def note(self, text):
        if self.words is not None and self.words in text:
            raise self.death


def settings(data, out, proposals="both", **more):
    return Settings(
        particles=data / "particles.star",
        out=out,
        proposals=proposals,
        threads=1,
        starts=2,
        truth_poses=data / "truth.star",
        **more,
    )


def begun(data, out, listener):
    """A run that a listener stopped."""
    with pytest.raises(listener.death):
        reconstruct(settings(data, out), listener)
    return out


def arguments(data, out):
    """The same on the command line."""
    return data / "particles.star", "--out", out, "--threads", 1, "--starts", 2, "--truth-poses", data / "truth.star"


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])
