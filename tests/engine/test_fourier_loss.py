from __future__ import annotations

import math

import pytest
import torch

from cryospin.engine.fourier_loss import FourierLoss, best_shifts
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels import cpu as kernels
from cryospin.kernels.types import Poses

BOX, RADIUS = 24, 10
GRID, DISC = FourierGrid(RADIUS), HalfDisc.build(RADIUS)


@pytest.mark.parametrize(("kind", "power"), [("l1", 1), ("l2", 2)])
def test_the_half_disc_has_the_mean_of_the_whole_disc(generator, observe, kind, power):
    volume = torch.randn(GRID.shape, generator=generator, dtype=torch.complex64)
    poses = Poses(torch.arange(3), random_rotations(3, generator), torch.zeros(3, 2))
    observations = observe(volume, GRID, poses, DISC, BOX)
    # Images and models with real means, as images have them.
    observations.images[:, 0] = observations.images[:, 0].real + 2
    model = torch.randn(3, len(DISC), generator=generator, dtype=torch.complex64)
    model[:, 0] = model[:, 0].real
    got = FourierLoss(kind, DISC).of_images(model, observations, poses)
    residual = (model * observations.ctf - observations.images).abs() ** power
    opposite = residual[:, 1:]
    whole = torch.cat([residual, opposite], 1).mean(1)
    torch.testing.assert_close(got, whole)
    k = torch.arange(-RADIUS, RADIUS + 1)
    assert 2 * len(DISC) - 1 == int((torch.hypot(k[:, None].double(), k.double()).round() <= RADIUS).sum())


def test_the_known_shift_is_found(blobs, generator, observe):
    volume = map_to_grid(blobs.density(BOX), GRID)
    axis = torch.arange(-2.0, 3.0)
    shifts = torch.cartesian_prod(axis, axis)
    which = torch.tensor([0, 7, 12, 24, 18])
    poses = Poses(torch.arange(5), random_rotations(5, generator), shifts[which])
    observations = observe(volume, GRID, poses, DISC, BOX, noise=0.5)
    slices = kernels.slices(volume, GRID, poses.rotation, DISC)
    assert torch.equal(best_shifts(slices, observations, poses.image, shifts), shifts[which])


def test_the_right_pose_has_the_least_loss(blobs, generator, observe):
    volume = map_to_grid(blobs.density(BOX), GRID)
    poses = Poses(torch.arange(5), random_rotations(5, generator), torch.randn(5, 2, generator=generator))
    observations, loss = observe(volume, GRID, poses, DISC, BOX), FourierLoss("l1", DISC)

    def slicer(rotations, disc):
        return kernels.slices(volume, GRID, rotations, disc)

    assert float(loss(slicer, observations, poses).max()) < 1e-4
    turned = poses._replace(rotation=random_rotations(5, generator))
    moved = poses._replace(shift=poses.shift + math.sqrt(2))
    for wrong in (turned, moved):
        assert float(loss(slicer, observations, wrong).min()) > 0.01
