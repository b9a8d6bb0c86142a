"""What half-sets say of each image's contrast."""

from __future__ import annotations

import pytest
import torch

from cryospin.engine.half_sets import HalfSets, random_halves
from cryospin.engine.problem import Problem
from cryospin.formats.star import read_poses
from cryospin.geometry.symmetry import point_group
from cryospin.kernels.types import Poses
from cryospin.particles import ParticleSet
from cryospin.poses.modes import Modes
from cryospin.simulation import ImagingConditions, simulate

BOX, COUNT, JUNK = 32, 400, 20


def with_contrasts(folder, density, spread):
    """Half-sets at true poses of images whose contrasts vary by a factor, with some that show nothing."""
    simulate(density, 6.0, COUNT, folder, ImagingConditions(snr=1.0, shift_sd=0.0), seed=3)
    packed, true = ParticleSet.load(folder / "particles.star").pack(BOX), read_poses(folder / "truth.star")
    generator = torch.Generator().manual_seed(5)
    o, factor = packed.observations, torch.exp(spread * torch.randn(COUNT, 1, generator=generator))
    noise = torch.randn(JUNK, *o.images.shape[1:], dtype=torch.complex64, generator=generator)
    images = torch.cat([noise * o.images.abs().square().mean().sqrt(), (factor * o.images)[JUNK:]])
    problem = Problem.pose(
        o._replace(images=images), packed.pixel_size, mask_diameter=0.84, group=point_group("C1"), last_shell=14
    )
    poses = Poses(torch.arange(COUNT), true.rotation.float(), torch.zeros(COUNT, 2))
    modes = Modes(poses, torch.zeros(COUNT, dtype=torch.float64), torch.zeros(COUNT, dtype=torch.long))
    return HalfSets.settled(problem, random_halves(COUNT, 0), modes)


@pytest.mark.parametrize("spread", [0.0, 0.15])
def test_images_in_thin_and_thick_ice_are_no_junk_and_junk_is(blobs, tmp_path, spread):
    shortfall = with_contrasts(tmp_path, blobs.density(BOX), spread).shortfall
    assert float((shortfall[JUNK:] >= 4).double().mean()) < 0.01
    assert float((shortfall[:JUNK] >= 4).double().mean()) > 0.9


def test_halves_are_halves_and_follow_their_seed():
    half = random_halves(101, 7)
    assert half.unique(return_counts=True)[1].tolist() == [51, 50]
    assert torch.equal(half, random_halves(101, 7))
    assert not torch.equal(half, random_halves(101, 8))
