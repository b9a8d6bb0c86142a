from __future__ import annotations

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels.types import Observations, Poses
from cryospin.noise import estimate_spectra, information, residual_power, shell_mean, weighted

RADIUS, BOX, COUNT = 10, 24, 1500
DISC = HalfDisc.build(RADIUS)
NOISE = torch.linspace(3.0, 1.0, RADIUS + 1, dtype=torch.float64)
SIGNAL = 6.0 * torch.exp(-torch.arange(RADIUS + 1) / 6.0).double()


@pytest.fixture(scope="module")
def observations() -> Observations:
    """Signal and noise of known power in each shell, seen through CTFs of many defoci."""
    g = torch.Generator().manual_seed(4)
    shape = COUNT, len(DISC)
    square = DISC.kx**2 + DISC.ky**2
    ctf = torch.sin(0.1 + (0.02 + 0.06 * torch.rand(COUNT, 1, generator=g)) * square)

    def white():
        return torch.randn(shape, generator=g, dtype=torch.complex64)

    images = SIGNAL.sqrt().float()[DISC.shell] * white() * ctf + NOISE.sqrt().float()[DISC.shell] * white()
    return Observations(
        images=images,
        ctf=ctf,
        weight=torch.ones(1, len(DISC)),
        group=torch.zeros(COUNT, dtype=torch.long),
        scale=torch.ones(COUNT),
        disc=DISC,
        box=BOX,
    )


def test_shell_mean_averages_within_shells():
    torch.testing.assert_close(shell_mean(DISC.shell.float(), DISC), torch.arange(RADIUS + 1).double())
    radial = shell_mean(torch.hypot(DISC.kx, DISC.ky), DISC)
    assert ((radial - torch.arange(RADIUS + 1)).abs() < 0.25).all()


def test_spectra_of_known_noise_and_signal_are_found(observations):
    spectra = estimate_spectra(observations)
    told = slice(3, None)
    torch.testing.assert_close(spectra.noise[told], NOISE[told], rtol=0.12, atol=0)
    torch.testing.assert_close(spectra.signal[told], SIGNAL[told], rtol=0.2, atol=0)
    power = shell_mean((observations.images.abs() ** 2).mean(0), DISC)
    torch.testing.assert_close(spectra.total, power, rtol=1e-4, atol=0)
    assert (spectra.noise > 0).all()
    assert (spectra.signal > 0).all()
    assert (spectra.noise <= spectra.total * (1 + 1e-9)).all()


def test_pure_noise_leaves_no_signal(observations):
    g = torch.Generator().manual_seed(6)
    empty = observations._replace(images=torch.randn(observations.images.shape, generator=g, dtype=torch.complex64))
    spectra = estimate_spectra(empty)
    torch.testing.assert_close(spectra.noise[3:], torch.ones(RADIUS - 2).double(), rtol=0.1, atol=0)
    assert float(spectra.signal[3:].max()) < 0.1


def test_information_grows_with_frequency_and_is_the_expected_gain(observations):
    spectra = estimate_spectra(observations)
    nats = information(observations, spectra)
    assert nats[0] == 0
    assert (nats.diff() > 0).all()
    seen = SIGNAL * shell_mean((observations.ctf**2).mean(0), DISC) / NOISE * DISC.shell_counts()
    assert float(nats[-1] - nats[3]) == pytest.approx(float(seen[4:].sum()), rel=0.15)


def test_weights_are_the_inverse_noise_and_spare_the_mean(observations):
    o = weighted(observations, NOISE)
    assert o.weight.shape == (1, len(DISC))
    assert o.weight.dtype == torch.float32
    assert o.weight[0, 0] == 0
    torch.testing.assert_close(o.weight[0, 1:], (1 / NOISE)[DISC.shell[1:]].float())


def test_residual_power_at_the_right_pose_is_the_noise(blobs, observe):
    g = torch.Generator().manual_seed(7)
    grid = FourierGrid(8)
    volume, disc = map_to_grid(blobs.density(BOX), grid), HalfDisc.build(8)
    poses = Poses(torch.arange(400), random_rotations(400, g), torch.randn(400, 2, generator=g))
    o = observe(volume, grid, poses, disc, BOX, noise=1.5)
    o = o._replace(scale=torch.full((400,), 0.5), images=o.images)
    halved = residual_power(volume * 2, grid, o, poses)
    torch.testing.assert_close(halved, torch.full_like(halved, 1.5**2), rtol=0.15, atol=0)
    wrong = residual_power(volume * 2, grid, o, poses._replace(rotation=poses.rotation.flip(0)))
    assert wrong[1:4].min() > 1.2 * halved[1:4].max()
    order = torch.randperm(400, generator=g)
    torch.testing.assert_close(residual_power(volume * 2, grid, o, poses.take(order)), halved, rtol=1e-4, atol=0)
