from __future__ import annotations

import torch

from cryospin.fourier import HalfDisc, pack
from cryospin.geometry.rotations import random_rotations
from cryospin.volume.implicit import ImplicitVolume

RADIUS, BOX = 7, 16


def volume(seed=0):
    return ImplicitVolume(RADIUS, 16, torch.Generator().manual_seed(seed))


def test_opposite_frequencies_are_conjugate(generator):
    k = torch.randn(50, 3, generator=generator) * 4
    v = volume()
    k = torch.cat([k, k * torch.tensor([0.0, 1, 1]), torch.zeros(1, 3)])
    torch.testing.assert_close(v(-k), v(k).conj().resolve_conj())


def test_the_seed_decides(generator):
    k = torch.randn(5, 3, generator=generator)
    assert torch.equal(volume(1)(k), volume(1)(k))
    assert not torch.allclose(volume(1)(k), volume(2)(k))


def test_the_slice_along_z_is_the_projection_of_the_map():
    v, disc = volume(), HalfDisc.build(RADIUS)
    with torch.no_grad():
        slices = v.slicer()(torch.eye(3)[None], disc)[0]
    projection = pack(v.density(BOX).sum(0), disc)
    torch.testing.assert_close(projection, slices, rtol=1e-3, atol=1e-3 * float(slices.abs().max()))


def test_gradients_reach_networks_and_rotations(generator):
    v, rotations = volume(), random_rotations(3, generator).requires_grad_()
    v.slicer()(rotations, HalfDisc.build(RADIUS)).abs().sum().backward()
    assert float(rotations.grad.abs().max()) > 0
    assert all(float(p.grad.abs().max()) > 0 for p in v.parameters())
