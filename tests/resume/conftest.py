"""Runs of a few seconds: whole ones and one that was stopped."""

from __future__ import annotations

import shutil

import pytest
from stopped_runs import BOX, COUNT, PIXEL, Killer, begun, settings

from cryospin import checkpoints, stages, start
from cryospin.engine import explore_grid, explore_heads, refine
from cryospin.pipeline import reconstruct
from cryospin.proposals import grid
from cryospin.simulation import ImagingConditions, density_from_source, simulate


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    """Runs of a few seconds that pass through everything: it does not matter here what they find."""
    monkeypatch.setattr(explore_grid, "_EPOCHS", 2)
    monkeypatch.setattr(explore_grid, "_BATCHES", 2)
    monkeypatch.setattr(explore_heads, "_EPOCHS", 2)
    monkeypatch.setattr(grid, "_FINEST_STEP_DEG", 30.0)
    monkeypatch.setattr(start, "_CONVINCING", 0.0)
    monkeypatch.setattr(start, "_CLEAR_IMAGES", 0.0)
    monkeypatch.setattr(start, "COMPETITORS", 60)
    monkeypatch.setattr(stages, "_ENLISTED", 40)
    monkeypatch.setattr(refine.Refinement, "epochs", 4)
    monkeypatch.setattr(checkpoints, "SHARE", float("inf"))
    # Figures take longer than everything else together.
    monkeypatch.setattr("cryospin.report.page.write_report", lambda run: None)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    density = density_from_source("phantom", BOX, PIXEL, seed=1)
    simulate(density, PIXEL, COUNT, out, ImagingConditions(snr=0.3, shift_sd=1.0), seed=3)
    return out


@pytest.fixture(scope="session")
def whole(data, tmp_path_factory):
    """Runs that nothing stopped, by what they explored with; made when first asked for."""
    made = {}

    def run(proposals):
        if proposals not in made:
            made[proposals] = tmp_path_factory.mktemp("runs") / proposals
            reconstruct(settings(data, made[proposals], proposals))
        return made[proposals]

    return run


@pytest.fixture
def stopped(data, tmp_path):
    """A run on its own copy of the data, stopped in its third epoch."""
    own = tmp_path / "data"
    shutil.copytree(data, own)
    return begun(own, tmp_path / "run", Killer(epoch=3))
