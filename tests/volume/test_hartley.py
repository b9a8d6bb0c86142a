from __future__ import annotations

import math

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc, low_pass, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels import reference
from cryospin.volume.hartley import HartleyVolume, pair, unpair

BOX, RADIUS = 24, 11


def volume_of(density, padding):
    """A Hartley volume that holds a given map, its exponents away from 0."""
    volume = HartleyVolume(RADIUS, padding, torch.Generator().manual_seed(0))
    with torch.no_grad():
        volume.exponent.fill_(0.5)
        volume.mantissa.copy_(unpair(map_to_grid(density, volume.grid), volume.grid) * math.exp(-0.5))
    return volume


@pytest.mark.parametrize("padding", [1, 2])
def test_pairs_of_real_values_are_a_hermitian_lattice(generator, padding):
    grid = FourierGrid(5, padding)
    values = torch.randn((2 * grid.half + 1,) * 3, generator=generator)
    lattice = pair(values, grid)
    assert lattice.shape == grid.shape
    torch.testing.assert_close(unpair(lattice, grid), values, rtol=0, atol=1e-6)
    plane = lattice[..., 0]
    torch.testing.assert_close(plane.flip(0, 1).conj().resolve_conj(), plane, rtol=0, atol=1e-6)


def test_the_hartley_transform_of_a_map_is_its_cosine_and_sine_transforms_added(blobs):
    density, grid = blobs.density(BOX), FourierGrid(RADIUS, padding=1)
    values = unpair(map_to_grid(density, grid), grid)
    x = (torch.arange(BOX) - BOX // 2).double()
    # The lattice holds what linear interpolation needs: the map over its envelope.
    flat = density.double() / (torch.sinc(x / BOX)[:, None, None] * torch.sinc(x / BOX)[:, None] * torch.sinc(x / BOX)) ** 2
    for k in ((0, 0, 0), (3, -2, 1), (-3, 2, -1), (-5, 0, 7)):
        phase = 2 * math.pi * (k[2] * x[:, None, None] + k[1] * x[:, None] + k[0] * x) / BOX
        expected = (flat * (phase.cos() + phase.sin())).sum() / BOX
        got = values[k[2] + grid.half, k[1] + grid.half, k[0] + grid.half]
        assert float(got) == pytest.approx(float(expected), rel=1e-3, abs=1e-4 * float(values.abs().max()))


@pytest.mark.parametrize("padding", [1, 2])
def test_a_map_comes_back(blobs, padding):
    density = blobs.density(BOX)
    got, expected = volume_of(density, padding).density(BOX), low_pass(density, RADIUS)
    assert float((got - expected).norm() / expected.norm()) < 0.01


def test_slices_are_those_of_the_complex_lattice(blobs, generator):
    volume, disc = volume_of(blobs.density(BOX), 2), HalfDisc.build(RADIUS)
    rotations = random_rotations(6, generator)
    expected = reference.slices(map_to_grid(blobs.density(BOX), volume.grid), volume.grid, rotations, disc)
    tolerance = 1e-3 * float(expected.abs().max())
    torch.testing.assert_close(volume.slicer()(rotations, disc), expected, rtol=1e-3, atol=tolerance)


def test_gradients_reach_both_numbers_and_the_rotations(generator):
    volume, disc = HartleyVolume(5, 1, generator), HalfDisc.build(5)
    rotations = random_rotations(2, generator).requires_grad_()
    weight = torch.randn(2, len(disc), generator=generator, dtype=torch.complex64)

    def value():
        return (volume.slicer()(rotations, disc) * weight).real.sum()

    value().backward()
    for parameter in (volume.mantissa, volume.exponent):
        at = tuple(int(i) for i in (parameter.grad.abs() == parameter.grad.abs().max()).nonzero()[0])
        step = 1e-2
        with torch.no_grad():
            parameter[at] += step
            above = float(value())
            parameter[at] -= 2 * step
            below = float(value())
            parameter[at] += step
        assert (above - below) / (2 * step) == pytest.approx(float(parameter.grad[at]), rel=0.02)
    assert float(rotations.grad.abs().max()) > 0
