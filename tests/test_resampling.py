from __future__ import annotations

import math

import pytest
import torch

from cryospin.fourier import HalfDisc, pack
from cryospin.resampling import Resampler

BOXES = [16, 17, 24, 33]


def direct_sum(images, frequencies):
    """The orthonormal transform about the box centre, pixel by pixel."""
    box = images.shape[-1]
    k = torch.arange(box, dtype=torch.float64) - box // 2
    wave = [torch.exp(-2j * math.pi * frequencies[:, axis, None].double() * k / box) for axis in (0, 1)]
    return torch.einsum("nyx,px,py->np", images.to(torch.complex128), *wave) / box


def random_images(box, generator, count=3):
    return torch.randn(count, box, box, generator=generator)


@pytest.mark.parametrize("box", BOXES)
def test_anywhere_it_is_the_direct_sum(box, generator):
    images = random_images(box, generator)
    frequencies = (torch.rand(200, 2, generator=generator) - 0.5) * box
    got = Resampler(box, frequencies)(images)
    assert got.dtype == torch.complex64
    error = (got - direct_sum(images, frequencies)).abs().amax(1)
    assert (error < 1e-4 * images.flatten(1).norm(dim=1)).all()
    assert (error < 5e-3).all()


@pytest.mark.parametrize("box", BOXES)
def test_so_it_is_up_to_the_last_frequency(box, generator):
    images, last = random_images(box, generator), box / 2
    along = torch.linspace(-last, last, 9)
    edges = [torch.stack([along, torch.full_like(along, side)], 1) for side in (-last, last)]
    frequencies = torch.cat([*edges, *(e.flip(1) for e in edges)])
    got = Resampler(box, frequencies)(images)
    torch.testing.assert_close(got, direct_sum(images, frequencies).to(torch.complex64), rtol=0, atol=5e-3)


@pytest.mark.parametrize("box", BOXES)
def test_on_the_images_own_lattice_it_is_pack(box, generator):
    images, disc = random_images(box, generator), HalfDisc.build((box - 1) // 2)
    got = Resampler(box, torch.stack([disc.kx, disc.ky], dim=1))(images)
    torch.testing.assert_close(got, pack(images, disc), rtol=0, atol=5e-3)


def test_bright_pixels_at_the_edge_do_not_leak(generator):
    images = torch.zeros(4, 20, 20)
    images[0, 0, 0] = images[1, 19, 19] = images[2, 0, 19] = images[3, 10, 10] = 1e4
    frequencies = (torch.rand(50, 2, generator=generator) - 0.5) * 20
    got, want = Resampler(20, frequencies)(images), direct_sum(images, frequencies)
    assert float((got - want).abs().max()) < 1e-4 * 1e4
    torch.testing.assert_close(got.abs(), torch.full((4, 50), 1e4 / 20), rtol=0, atol=1.0)


def test_white_noise_keeps_its_variance(generator):
    images = random_images(24, generator, count=300)
    frequencies = (torch.rand(60, 2, generator=generator) - 0.5) * 22
    assert float(Resampler(24, frequencies)(images).abs().square().mean()) == pytest.approx(1, abs=0.03)
