from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cryospin.engine.impose import axes_in, put_on_axes
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import from_relion_angles, random_rotations
from cryospin.geometry.symmetry import point_group
from cryospin.kernels import cpu
from cryospin.kernels.types import Poses
from cryospin.maps.alignment import move_map
from cryospin.maps.point_groups import self_correlation

BOX = 36
TURN = from_relion_angles(torch.tensor([70.0, 50.0, 20.0]))
SHIFT = torch.tensor([0.8, -0.6, 0.4])
PROBLEM = SimpleNamespace(box=72, mask_diameter=0.95, last_shell=12)


@pytest.mark.parametrize("name", ["C3", "D2"])
def test_map_and_particles_are_turned_together(blobs, name, generator):
    """The map stands on its axes, and the images are what they were."""
    mates = replace(blobs, position=0.9 * blobs.position + 0.06).with_mates(point_group(name))
    tilted = move_map(mates.density(BOX), TURN, SHIFT)
    poses = Poses(torch.arange(20), random_rotations(20, generator), torch.randn(20, 2, generator=generator))
    density, placed = put_on_axes(tilted, poses, PROBLEM, axes_in(tilted, PROBLEM, name))
    standing = self_correlation(density, point_group(name)[1:], torch.zeros(3), 9)
    assert float(standing.min()) > 0.95
    grid, disc = FourierGrid(8), HalfDisc.build(8)

    def images(density, at):
        return cpu.slices(map_to_grid(density, grid), grid, at.rotation, disc) * disc.shift_phase(at.shift, PROBLEM.box)

    before, after = images(tilted, poses), images(density, placed)
    cross = (before.conj() * after).real.sum(1) / (before.abs().square().sum(1) * after.abs().square().sum(1)).sqrt()
    assert float(cross.min()) > 0.99
