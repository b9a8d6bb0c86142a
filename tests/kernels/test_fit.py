from __future__ import annotations

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels import cpu, reference
from cryospin.kernels.types import Fit, Observations, Poses


def test_cpu_equals_reference(problem):
    arguments = (problem.volume, problem.grid, problem.observations, problem.poses)
    want, got = reference.fits(*arguments), cpu.fits(*arguments)
    for a, b in zip(want, got, strict=True):
        torch.testing.assert_close(b, a.double(), rtol=1e-3, atol=1e-4 * float(a.abs().max()))


def test_it_is_what_the_normal_equations_say(problem):
    arguments = (problem.volume, problem.grid, problem.observations, problem.poses)
    alone, along = cpu.fits(*arguments), cpu.normal_equations(*arguments).fit
    torch.testing.assert_close(alone.cross.double(), along.cross.double(), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(alone.power.double(), along.power.double(), rtol=1e-4, atol=1e-2)


def test_contrast_deviates_in_units_of_its_standard_error():
    power = torch.full((5,), 50.0, dtype=torch.float64)
    contrast = torch.tensor([1.0, 1.0, 1.0, 1.3, 0.8], dtype=torch.float64)
    got = Fit(contrast * power, power).contrast_deviation()
    assert got.tolist() == pytest.approx([0, 0, 0, 3, -2])


def test_images_cut_to_a_lower_limit_give_the_bits_of_their_copies():
    """A frequency limit is a view of longer rows; kernels must see the same memory layout as without one."""
    g = torch.Generator().manual_seed(0)
    disc, grid = HalfDisc.build(24), FourierGrid(15)
    observations = Observations(
        images=torch.randn(20, len(disc), dtype=torch.complex64, generator=g),
        ctf=torch.rand(20, len(disc), generator=g),
        weight=torch.ones(1, len(disc)),
        group=torch.zeros(20, dtype=torch.long),
        scale=torch.ones(20),
        disc=disc,
        box=50,
    )
    volume = torch.randn(grid.shape, dtype=torch.complex64, generator=g)
    poses = Poses(torch.arange(20), random_rotations(20, g), torch.randn(20, 2, generator=g))
    cut = observations.up_to(15)
    copies = cut._replace(images=cut.images.contiguous(), ctf=cut.ctf.contiguous())
    assert not cut.images.is_contiguous()
    for kernel in (cpu.fits, cpu.normal_equations):
        for a, b in zip(kernel(volume, grid, cut, poses), kernel(volume, grid, copies, poses), strict=True):
            assert torch.equal(a, b)
