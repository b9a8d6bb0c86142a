"""Rounds of competition from a map that is right, and from one that is not."""

from __future__ import annotations

import pytest
import torch

from blob_images import NOISE, SHELL, blob_images, competition_in, half_mirrored, posed
from cryospin.geometry.rotations import distance_deg

COUNT = 400


@pytest.fixture(scope="module")
def setting(blobs, observe):
    """Noisy images of the blobs, and their map."""
    images = blob_images(blobs, observe, COUNT)
    return posed(images.observations), images.density, images.true


def compete(problem, density, rounds=2):
    competition = competition_in(problem, density)
    return competition, [competition.round(SHELL) for _ in range(rounds)]


def test_from_the_right_map_every_pose_is_found_and_stays(setting):
    problem, density, true = setting
    competition, records = compete(problem, density)
    best = competition.standing.modes.best().poses
    assert torch.equal(best.image, torch.arange(COUNT))
    assert float(distance_deg(best.rotation, true.rotation).median()) < 4
    assert competition.moved < 0.05
    assert competition.margin > 0.8
    assert competition.spread < 1.2
    assert records[1].winners[-1] > 0.2 * COUNT, "poses that were found should often win again"
    assert records[1].pose_change_deg < 2
    assert records[0].pose_change_deg is None
    assert competition.rounds == 2
    assert competition.fell == records[0].loss - records[1].loss


def test_noise_is_told_from_what_the_poses_explain(setting):
    problem, density, _ = setting
    competition, _ = compete(problem, density, rounds=1)
    noise = competition.standing.noise[0, 2 : SHELL + 1]
    assert float((noise / NOISE**2 - 1).abs().max()) < 0.25
    assert float(problem.total[0, 2] / NOISE**2) > 1.5


def test_a_wrong_map_fits_worse_and_less_evenly(setting):
    problem, density, _ = setting
    right, (first,) = compete(problem, density, rounds=1)
    bad, (other,) = compete(problem, half_mirrored(density), rounds=1)
    assert other.loss > first.loss
    assert bad.spread > right.spread
