"""Heads guess poses where a trial shows that they can, and a grid is searched where they cannot."""

from __future__ import annotations

import shutil

import pytest
import torch
from known_truth import BOX, COUNT, knowing

from cryospin.assignment import assign
from cryospin.engine.assign import Assigner, Trial
from cryospin.engine.candidates import GridProposer
from cryospin.errors import InputError
from cryospin.formats.star import read_poses
from cryospin.geometry.rotations import distance_deg
from cryospin.model import Model
from cryospin.particles import ParticleSet
from cryospin.selection import Selection


def test_heads_that_know_nothing_leave_doubt_and_say_so(run, data, tmp_path):
    found = assign(run, data / "particles.star", tmp_path / "out", proposals="heads")
    assert found.doubtful > 0.3 * COUNT
    true = read_poses(data / "truth.star").rotation
    wrong = (distance_deg(torch.from_numpy(found.poses.rotation), true) > 10).numpy()
    assert found.doubtful > 0.7 * wrong.sum()
    # The confidence is the chance that a pose is right, as far as 120 images tell.
    assert found.poses.confidence[wrong].mean() < 0.1
    assert abs(found.poses.confidence.mean() - (~wrong).mean()) < 0.15


def test_heads_that_know_need_no_grid(run, data, monkeypatch):
    """Views near the truth are completed in the plane, and their poses are right to a degree or two."""
    packed, true = ParticleSet.load(data / "particles.star").pack(BOX), read_poses(data / "truth.star")
    model = Model.of_run(run)
    assigner = Assigner(model, "heads", BOX)
    knowing(data, monkeypatch, model.heads)
    modes, short, _ = assigner.assign(packed.observations)
    best = modes.best().poses
    assert float(distance_deg(best.rotation.double(), true.rotation).median()) < 3
    assert float((short > 3).double().mean()) < 0.05


@pytest.mark.parametrize("know", [True, False])
def test_heads_serve_where_a_trial_shows_that_they_do(run, data, monkeypatch, know):
    packed, true = ParticleSet.load(data / "particles.star").pack(BOX), read_poses(data / "truth.star")
    model = Model.of_run(run)
    if know:
        knowing(data, monkeypatch, model.heads)
    monkeypatch.setattr("cryospin.engine.assign._TRIED", 40)
    searched, grid = [], GridProposer.propose
    monkeypatch.setattr(
        GridProposer, "propose", lambda self, v, g, some: searched.append(len(some.images)) or grid(self, v, g, some)
    )
    assigner = Assigner(model, "both", BOX)
    posed = assigner.assign(packed.observations)
    assert assigner.trial.images == 40
    assert assigner.trial.passed == know
    # The grid sees those on trial and, of the others, the doubtful or all.
    assert searched[0] == 40
    assert (sum(searched) < 60) if know else (sum(searched) == COUNT)
    right = distance_deg(posed.modes.best().poses.rotation.double(), true.rotation) < 10
    assert float(right.double().mean()) > 0.95


def test_heads_that_settle_much_but_wrongly_do_not_serve():
    assert Trial(500, settled=0.9, beaten=0.01).passed
    assert not Trial(500, settled=0.9, beaten=0.2).passed
    assert not Trial(500, settled=0.3, beaten=0.0).passed


def test_a_run_without_heads_searches_and_does_not_guess(run, data, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    (bare / "checkpoints" / "heads.safetensors").unlink()
    with pytest.raises(InputError, match=r"no trained heads.*--proposals grid"):
        assign(bare, data / "particles.star", tmp_path / "out", proposals="heads")
    assert assign(bare, data / "particles.star", tmp_path / "out", selection=Selection(first=10)).trial is None
