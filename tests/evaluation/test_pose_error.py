from __future__ import annotations

import pytest
import torch

from cryospin.evaluation.pose_error import PoseErrors, pose_errors
from cryospin.geometry.rotations import distance_deg, exponential, flip_hand, from_relion_angles, random_rotations
from cryospin.geometry.symmetry import point_group

COUNT = 150
Q = from_relion_angles(torch.tensor([33.0, 110.0, 71.0])).float()


@pytest.fixture
def truth(generator):
    return random_rotations(COUNT, generator), torch.randn(COUNT, 2, generator=generator) * 3


def off_by(rotation, degrees, generator):
    axis = torch.nn.functional.normalize(torch.randn(len(rotation), 3, generator=generator), dim=1)
    return exponential(axis * torch.deg2rad(torch.tensor(degrees))) @ rotation


def test_perfect_poses_have_no_error(truth):
    errors = pose_errors(*truth, *truth)
    assert float(errors.rotation_deg.max()) < 0.1
    assert float(errors.shift.max()) < 1e-4
    assert not errors.flipped


@pytest.mark.parametrize("flipped", [False, True])
def test_a_global_turn_and_the_hand_do_not_count(truth, generator, flipped):
    true, shift = truth
    own = off_by(true, 3.0, generator) @ Q.T
    errors = pose_errors(flip_hand(own) if flipped else own, shift, true, shift)
    assert errors.flipped == flipped
    assert float(distance_deg(errors.turn, Q)) < 0.5
    torch.testing.assert_close(errors.rotation_deg, torch.full((COUNT,), 3.0).double(), rtol=0, atol=0.5)


def test_outliers_do_not_move_the_global_turn(truth, generator):
    true, shift = truth
    own = true @ Q.T
    own[: COUNT // 2] = random_rotations(COUNT // 2, generator)
    errors = pose_errors(own, shift, true, shift)
    assert float(errors.rotation_deg[COUNT // 2 :].max()) < 0.3
    assert float(errors.rotation_deg[: COUNT // 2].median()) > 60


def test_the_hand_is_known_though_most_images_are_nearly_upside_down(truth, generator):
    true, shift = truth
    own, wrong = true @ Q.T, COUNT * 55 // 100
    own[:wrong] = off_by(true[:wrong], 165.0, generator) @ Q.T
    errors = pose_errors(own, shift, true, shift)
    assert not errors.flipped
    assert float(errors.rotation_deg[wrong:].max()) < 0.3


def test_symmetry_mates_count_as_equal(truth, generator):
    true, shift = truth
    group = point_group("D3")
    mates = true @ group[torch.randint(6, (COUNT,), generator=generator)]
    errors = pose_errors(mates @ Q.T, shift, true, shift, group)
    assert float(errors.rotation_deg.max()) < 0.3
    ignorant = pose_errors(mates @ Q.T, shift, true, shift)
    assert float((ignorant.rotation_deg < 5).double().mean()) < 0.5


def test_the_origin_of_the_map_does_not_count(truth):
    true, shift = truth
    origin = torch.tensor([4.0, -2.0, 3.0])
    own = true @ Q.T
    moved = shift + (own @ origin)[:, :2]
    errors = pose_errors(own, moved, true, shift)
    assert float(errors.shift.max()) < 1e-2
    flipped = pose_errors(flip_hand(own), moved, true, shift)
    assert flipped.flipped
    assert float(flipped.shift.max()) < 1e-2


def test_shift_errors_are_distances(truth):
    true, shift = truth
    # Errors that no common origin explains: along x or against it, at random.
    sign = torch.where(torch.arange(COUNT) % 2 == 0, 1.0, -1.0)
    errors = pose_errors(true, shift + torch.stack([2 * sign, 0 * sign], 1), true, shift)
    torch.testing.assert_close(errors.shift, torch.full((COUNT,), 2.0).double(), rtol=0, atol=0.6)
    assert float(errors.shift.mean()) == pytest.approx(2.0, abs=0.1)


def test_random_poses_are_as_bad_as_chance(truth, generator):
    true, shift = truth
    errors = pose_errors(random_rotations(COUNT, generator), shift, true, shift)
    assert float(errors.rotation_deg.median()) > 90


def test_summary_in_degrees_and_percent():
    e = PoseErrors(torch.tensor([1.0, 4.0, 7.0, 100.0]).double(), torch.zeros(4), False, torch.eye(3))
    assert e.summary() == {"mean": 28.0, "median": 4.0, "within_5": 50.0, "within_10": 75.0}
