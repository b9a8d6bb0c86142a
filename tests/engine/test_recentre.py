"""Recentring moves the map and the particles together."""

from __future__ import annotations

import torch

from cryospin.engine.recentre import recentre
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.geometry.symmetry import point_group
from cryospin.kernels import reference
from cryospin.kernels.types import Poses


class Stub:
    mask_diameter = 0.9

    def __init__(self, box, group):
        self.box, self.early_group = box, point_group(group)


def ball(box, x, y, z):
    k = (torch.arange(box) - box // 2).float()
    squared = (k[:, None, None] - z) ** 2 + (k[None, :, None] - y) ** 2 + (k - x) ** 2
    return torch.exp(-squared / 18)


def some_poses(count):
    rotation = random_rotations(count, torch.Generator().manual_seed(0))
    return Poses(torch.arange(count), rotation, torch.randn(count, 2, generator=torch.Generator().manual_seed(1)))


def test_the_particle_comes_to_the_middle_and_images_stay_what_they_were():
    density, poses = ball(32, 2.0, -3.0, 1.0), some_poses(5)
    moved, new = recentre(density, poses, Stub(64, "C1"))
    k = (torch.arange(32) - 16).float()
    centre = [float((moved.sum(axes) * k).sum() / moved.sum()) for axes in ((0, 1), (0, 2), (1, 2))]
    assert max(map(abs, centre)) < 0.15
    grid, disc = FourierGrid(8), HalfDisc.build(8)
    before, after = (
        reference.slices(map_to_grid(d, grid), grid, p.rotation, disc) * disc.shift_phase(p.shift, 64)
        for d, p in ((density, poses), (moved, new))
    )
    assert float((before - after).abs().max()) < 0.02 * float(before.abs().max())


def test_a_point_group_keeps_its_axis_where_it_is():
    _, new = recentre(ball(32, 2.0, -3.0, 1.0), some_poses(3), Stub(32, "C3"))
    _, free = recentre(ball(32, 0.0, 0.0, 1.0), some_poses(3), Stub(32, "C3"))
    assert torch.allclose(new.shift, free.shift, atol=0.05)
