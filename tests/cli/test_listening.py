"""A run as lines of text."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cryospin.cli.listening import RunListener, epoch_line
from cryospin.cli.progress import Progress
from cryospin.engine.autodecode import AutoDecoding
from cryospin.engine.autoencode import AutoEncoding
from cryospin.engine.compete import Competition
from cryospin.engine.explore_grid import GridExploration
from cryospin.engine.explore_heads import HeadExploration
from cryospin.engine.record import EpochRecord
from cryospin.engine.refine import Refinement


def test_an_epoch_line_says_what_is_known_and_nothing_else():
    record = EpochRecord("explore", 80.0, -3.25, epoch=1, seconds=2.5)
    assert epoch_line(record) == "   2.5 s  explore 1, limit 80.0 Å, loss -3.2"
    record = EpochRecord(
        "refine", 12.0, -200.0, pose_change_deg=0.12, resolution_A=14.7, pose_error_deg=1.0, epoch=9, seconds=40
    )
    assert epoch_line(record).endswith("poses turn 0.12°, half maps 14.70 Å, pose error 1.00°")


@pytest.mark.parametrize("stage", [GridExploration, HeadExploration, Competition, Refinement, AutoEncoding, AutoDecoding])
def test_every_stage_has_a_bar_on_a_terminal(stage):
    out = io.StringIO()
    with RunListener(Progress(Console(file=out, width=200, force_terminal=True))) as listener:
        listener.expect(stage.stage, 3)
        listener.epoch(EpochRecord(stage.stage, 80.0, -3.0, epoch=1))
    assert f"{stage.stage} 1" in out.getvalue()
    assert "3/3" in out.getvalue()


def test_away_from_a_terminal_there_are_plain_lines():
    out = io.StringIO()
    with RunListener(Progress(Console(file=out, width=200))) as listener:
        listener.reading(10)(10)
        listener.expect("explore", 3)
        listener.note("hello [1] world")
        listener.epoch(EpochRecord("explore", 80.0, -3.0, epoch=1))
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("Reading images: 10 done")
    assert lines[1] == "hello [1] world"
    assert "explore 1" in lines[2]
    assert len(lines) == 3
    assert "\x1b" not in out.getvalue()
