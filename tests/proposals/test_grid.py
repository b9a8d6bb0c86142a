from __future__ import annotations

import math

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import distance_deg, random_rotations
from cryospin.kernels.types import Poses
from cryospin.proposals.grid import GridSearch, shift_grid

BOX, COUNT, RADIUS = 24, 12, 5
GRID, DISC = FourierGrid(RADIUS), HalfDisc.build(RADIUS)


@pytest.fixture(scope="module")
def setting(blobs, observe):
    """Noiseless images of a map at known poses."""
    g = torch.Generator().manual_seed(9)
    volume = map_to_grid(blobs.density(BOX), GRID)
    true = Poses(torch.arange(COUNT), random_rotations(COUNT, g), torch.randn(COUNT, 2, generator=g))
    return volume, observe(volume, GRID, true, DISC, BOX), true


def search(seed=0, shift_sd=2.0, shift_limit=4.0):
    return GridSearch(shift_sd, shift_limit, torch.Generator().manual_seed(seed))


def test_known_poses_are_proposed_within_a_step(setting):
    volume, observations, true = setting
    count = 8
    poses = search().propose(volume, GRID, observations, count)
    assert torch.equal(poses.image, torch.arange(COUNT).repeat_interleave(count))
    error = distance_deg(poses.rotation, true.rotation[poses.image]).view(COUNT, count)
    assert float(error.amin(1).max()) < 14.5
    assert float(error[:, 0].max()) < 25
    near = (poses.shift - true.shift[poses.image]).norm(dim=1).view(COUNT, count).amin(1)
    assert float(near.max()) < BOX / (4 * RADIUS)


def test_the_most_likely_pose_is_among_the_proposed(setting):
    volume, observations, _ = setting
    proposed = search(seed=3).propose(volume, GRID, observations, 1)
    soft = search(seed=3).expectation(volume, GRID, observations, perplexity=10.0)
    torch.testing.assert_close(soft.best.rotation, proposed.rotation)
    torch.testing.assert_close(soft.best.shift, proposed.shift)
    assert torch.equal(soft.best.image, torch.arange(COUNT))


def test_expectation_shares_each_image_out_and_meets_the_perplexity(setting):
    volume, observations, _ = setting
    observations = observations._replace(weight=observations.weight * 0.01)
    for perplexity in (30.0, 300.0):
        soft = search().expectation(volume, GRID, observations, perplexity)
        total = (observations.ctf**2 * observations.weight).sum(0)
        torch.testing.assert_close(soft.sums.denominator.sum(0), total, rtol=1e-3, atol=1e-2)
        assert soft.sums.numerator.shape == (len(soft.rotations), len(DISC))
        assert 2**-9 < soft.sharpness < 1
    sharp = search().expectation(volume, GRID, observations, 30.0).sharpness
    assert sharp > soft.sharpness, "more poses need a softer posterior"


def test_how_far_posteriors_are_softened_is_told_by_images_from_the_whole_table(setting):
    """The first rows hold three times the contrast: taken for the others they would soften those too far."""
    volume, observations, _ = setting
    many = observations.take(torch.arange(COUNT).repeat(40))
    many = many._replace(weight=many.weight * 0.01)
    clear = torch.arange(len(many.images)) < 48
    mixed = many._replace(images=torch.where(clear[:, None], 3, 1) * many.images)
    usual, told = (search().expectation(volume, GRID, o, 100.0).sharpness for o in (many, mixed))
    assert told > 0.7 * usual


def test_no_posterior_is_made_sharper(setting):
    volume, observations, _ = setting
    faint = observations._replace(weight=observations.weight * 1e-4)
    assert search().expectation(volume, GRID, faint, 1.01).sharpness == 1


def test_the_grid_is_turned_at_each_use_and_follows_its_seed(setting):
    volume, observations, _ = setting
    one, other = search(seed=1), search(seed=1)
    first = one.propose(volume, GRID, observations, 2)
    again = other.propose(volume, GRID, observations, 2)
    assert torch.equal(first.rotation, again.rotation)
    assert torch.equal(first.shift, again.shift)
    assert not torch.equal(one.propose(volume, GRID, observations, 2).rotation, first.rotation)


@pytest.mark.parametrize(("limit", "step", "count"), [(0.0, 1.0, 1), (1.0, 1.0, 5), (2.0, 1.0, 13), (2.9, 2.0, 9)])
def test_shift_grids_fill_a_disc(limit, step, count, generator):
    grid = shift_grid(limit, step, generator)
    assert grid.shape == (count, 2)
    assert float(grid.norm(dim=1).max()) <= limit + step
    distance = torch.cdist(grid, grid) + 100 * torch.eye(count)
    assert float(distance.min()) >= step - 1e-4 or count == 1


def test_shift_grids_are_moved_by_part_of_a_step(generator):
    centres = torch.stack([shift_grid(2.0, 1.0, generator).mean(0) for _ in range(200)])
    assert float(centres.abs().max()) <= 0.5
    assert float(centres.std()) == pytest.approx(1 / math.sqrt(12), rel=0.15)
