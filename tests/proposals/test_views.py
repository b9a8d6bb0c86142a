from __future__ import annotations

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import distance_deg, in_plane, random_rotations
from cryospin.kernels.types import Poses
from cryospin.proposals.views import own_views, shared_views

BOX, COUNT = 24, 6
GRID, DISC = FourierGrid(5), HalfDisc.build(5)
STEP = 12.0


@pytest.fixture(scope="module")
def setting(blobs, observe):
    """Images whose shifts are on a grid, and their views turned in the plane."""
    g = torch.Generator().manual_seed(4)
    volume = map_to_grid(blobs.density(BOX), GRID)
    shifts = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [-2.0, -2.0]])
    true = Poses(torch.arange(COUNT), random_rotations(COUNT, g), shifts[torch.randint(4, (COUNT,), generator=g)])
    views = in_plane(torch.rand(COUNT, generator=g) * 6.28) @ true.rotation
    return volume, observe(volume, GRID, true, DISC, BOX), true, views, shifts, torch.zeros(4)


def test_own_views_are_completed_with_the_turn_and_the_shift(setting):
    volume, observations, true, views, shifts, prior = setting
    own = torch.stack([views, views.roll(1, 0)], 1)
    poses = own_views(volume, GRID, observations, own, shifts, prior, STEP)
    assert torch.equal(poses.image, torch.arange(COUNT).repeat_interleave(2))
    right = poses.take(torch.arange(0, 2 * COUNT, 2))
    assert float(distance_deg(right.rotation, true.rotation).max()) < 0.7 * STEP
    assert torch.equal(right.shift, true.shift)
    # A view fixes the beam's direction in the particle, which is the third row.
    torch.testing.assert_close(poses.rotation[:, 2], own.flatten(0, 1)[:, 2], rtol=0, atol=1e-5)


def test_shared_views_are_own_views_that_all_images_have(setting):
    volume, observations, _, views, shifts, prior = setting
    shared = shared_views(volume, GRID, observations, views[:3], shifts, prior, STEP)
    own = own_views(volume, GRID, observations, views[:3].expand(COUNT, 3, 3, 3), shifts, prior, STEP)
    assert torch.equal(shared.image, own.image)
    torch.testing.assert_close(shared.rotation, own.rotation)
    assert torch.equal(shared.shift, own.shift)


def test_the_prior_decides_between_shifts(setting):
    volume, observations, _, views, shifts, prior = setting
    forced = prior.clone()
    forced[2] = 1e6
    poses = own_views(volume, GRID, observations, views[:, None], shifts, forced, STEP)
    assert (poses.shift == shifts[2]).all()
