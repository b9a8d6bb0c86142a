"""Images of nothing: the run says so, and its half maps agree no further than what they started from."""

from __future__ import annotations

import json

import pytest

from cryospin.engine import explore_grid
from cryospin.engine.record import Silence
from cryospin.pipeline import reconstruct
from cryospin.run import load_run
from cryospin.settings import Settings
from cryospin.simulation import ImagingConditions, density_from_source, simulate
from cryospin.stages import LAST_SHELL

pytestmark = pytest.mark.slow

COUNT, BOX, PIXEL = 800, 40, 8.0


class Listening(Silence):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run on noise, and what it told."""
    data, out, listener = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs") / "run", Listening()
    density = density_from_source("phantom", BOX, PIXEL, seed=1)
    simulate(density, PIXEL, COUNT, data, ImagingConditions(snr=1e-5, shift_sd=1.0, coloured=True), seed=3)
    with pytest.MonkeyPatch.context() as patch:
        # Noise stays noise however long it is explored.
        patch.setattr(explore_grid, "_PATIENCE", 1)
        reconstruct(Settings(data / "particles.star", out, threads=1, starts=1), listener)
    return out, listener.notes


def test_noise_is_called_noise_in_the_log_the_report_and_the_results(made):
    out, notes = made
    assert any(note.startswith("start 1 looks wrong: collapse: ") for note in notes)
    (said,) = [note for note in notes if note.startswith("warning: no structure was found: ")]
    assert said in (out / "log.txt").read_text()
    assert "no structure was found: images gain" in (out / "report.html").read_text()
    assert notes[-1].endswith("but no structure was found")
    assert json.loads((out / "checkpoints" / "finished.json").read_text())["found_structure"] is False
    assert load_run(out).found_structure is False


def test_half_maps_of_noise_agree_no_further_than_their_start(made):
    """Reading between lattice points and a mask carry a start's last shell over: two shells at most, one when corrected."""
    fsc = load_run(made[0]).fsc
    beyond = fsc[fsc.index + 1 > LAST_SHELL]
    assert (beyond["fsc_unmasked"] < 0.143).all()
    assert (beyond["fsc_masked"].iloc[2:] < 0.143).all()
    assert (beyond["fsc_corrected"].iloc[1:] < 0.143).all()
