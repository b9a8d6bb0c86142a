"""What a refinement does from pass to pass: carry poses on, search doubtful images again, come to rest."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from cryospin.engine.refine import Refinement
from cryospin.geometry.rotations import distance_deg, random_rotations, turn
from cryospin.kernels.types import Poses
from cryospin.poses.modes import Modes

LIMIT = 8


def refinement(modes=None, *, resolved=LIMIT - 2.0):
    """One whose half maps support so many shells, without images."""
    sets = SimpleNamespace(resolved_shell=resolved, problem=SimpleNamespace(last_shell=20))
    return Refinement(sets, modes or SimpleNamespace(), LIMIT, [])


def test_best_poses_go_on_the_way_they_went_and_no_others_do(generator):
    before = random_rotations(3, generator)
    # The first drifts, the second jumps, the third stays; the first has a second mode, which is worse.
    moved = turn(before, torch.tensor([[0.02, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]))
    shift = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    best = Modes(Poses(torch.arange(3), moved, shift), torch.full((3,), -9.0).double(), torch.zeros(3, dtype=torch.long))
    other = Modes(
        Poses(torch.tensor([0]), random_rotations(1, generator), torch.ones(1, 2)),
        torch.zeros(1).double(),
        torch.zeros(1).long(),
    )
    stage = refinement(Modes.join(other, best))
    carried = stage._carried(best.with_poses(Poses(torch.arange(3), before, torch.zeros(3, 2)), best.misfit))
    onward = carried.best().poses
    assert distance_deg(onward.rotation, before).tolist() == pytest.approx(
        [math.degrees(0.036), math.degrees(0.5), 0.0], abs=0.02
    )
    assert onward.shift.tolist() == [pytest.approx([1.8, 0.0]), [0.0, 1.0], [0.0, 0.0]]
    worse = carried.poses.take((carried.misfit == 0).nonzero()[:, 0])
    assert torch.equal(worse.rotation, other.poses.rotation)
    assert torch.equal(worse.shift, other.poses.shift)


def test_misfits_of_another_limit_say_nothing():
    stage = refinement()
    assert math.isnan(stage._fell(-100.0)), "nothing came before"
    stage._advance(change=5.0, fell=math.nan)
    assert stage._fell(-101.0) == pytest.approx(1 / 101)
    stage.sets.resolved_shell = 10.0
    stage._advance(change=5.0, fell=0.01)
    assert stage.limit == 12
    assert math.isnan(stage._fell(-150.0))


def passes(stage, misfits, change=0.0):
    """Goes on with such misfits; returns which passes search images anew, the next one last."""
    searched = []
    for misfit in misfits:
        assert not stage.finished
        stage._advance(change, stage._fell(misfit))
        searched.append(stage.searches)
    return searched


def test_at_rest_doubtful_images_are_searched_until_that_gains_nothing():
    stage = refinement()
    assert passes(stage, [-90.0, -95.0, -99.0]) == [True, False, True]
    assert passes(stage, [-100.0, -102.0, -102.2]) == [True, True, False]
    assert "half maps support no higher frequency" in stage.finished


def test_a_refinement_goes_on_as_long_as_images_fit_better():
    stage = refinement()
    assert passes(stage, [-50.0 - i for i in range(30)], change=1.0) == [True, False, True] + [False] * 27
    passes(stage, [-79.0, -79.01], change=1.0)
    assert "32 passes, and the misfit hardly falls" in stage.finished


def test_a_refinement_ends_at_last():
    stage = refinement()
    passes(stage, [-50.0 - i for i in range(stage.epochs)], change=1.0)
    assert stage.finished == "the bound of 60 passes"
    assert stage.epochs_left == 0
