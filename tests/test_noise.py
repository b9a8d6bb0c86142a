from __future__ import annotations

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels.types import Observations, Poses
from cryospin.noise import (
    at_the_level_of,
    estimate_spectra,
    in_the_mean,
    information,
    noise_groups,
    residual_power,
    shell_mean,
    weighted,
)

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
    torch.testing.assert_close(spectra.noise[0, told], NOISE[told], rtol=0.12, atol=0)
    torch.testing.assert_close(spectra.signal[told], SIGNAL[told], rtol=0.2, atol=0)
    power = shell_mean((observations.images.abs() ** 2).mean(0), DISC)
    torch.testing.assert_close(spectra.total[0], power, rtol=1e-4, atol=0)
    assert (spectra.noise > 0).all()
    assert (spectra.signal > 0).all()
    assert (spectra.noise <= spectra.total * (1 + 1e-9)).all()


def test_pure_noise_leaves_no_signal(observations):
    g = torch.Generator().manual_seed(6)
    empty = observations._replace(images=torch.randn(observations.images.shape, generator=g, dtype=torch.complex64))
    spectra = estimate_spectra(empty)
    torch.testing.assert_close(spectra.noise[0, 3:], torch.ones(RADIUS - 2).double(), rtol=0.1, atol=0)
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
    halved = residual_power(volume * 2, grid, o, poses)[0]
    torch.testing.assert_close(halved, torch.full_like(halved, 1.5**2), rtol=0.15, atol=0)
    wrong = residual_power(volume * 2, grid, o, poses._replace(rotation=poses.rotation.flip(0)))[0]
    assert wrong[1:4].min() > 1.2 * halved[1:4].max()
    order = torch.randperm(400, generator=g)
    torch.testing.assert_close(residual_power(volume * 2, grid, o, poses.take(order))[0], halved, rtol=1e-4, atol=0)


def with_louder(observations: Observations, group: torch.Tensor, times: torch.Tensor) -> Observations:
    """The same with so many times the noise power, shell by shell, in group 1."""
    g = torch.Generator().manual_seed(8)
    added = ((times - 1) * NOISE).sqrt().float()[DISC.shell] * torch.randn(
        COUNT, len(DISC), generator=g, dtype=torch.complex64
    )
    images = observations.images + added * (group == 1)[:, None]
    return observations._replace(images=images, group=group, weight=torch.ones(2, len(DISC)))


def test_each_group_has_a_noise_spectrum_of_its_own(observations):
    group = (torch.arange(COUNT) % 3 == 0).long()
    times = torch.linspace(1.5, 4.0, RADIUS + 1, dtype=torch.float64)
    spectra = estimate_spectra(with_louder(observations, group, times))
    torch.testing.assert_close(spectra.noise[0, 3:], NOISE[3:], rtol=0.12, atol=0)
    torch.testing.assert_close(spectra.noise[1, 3:], (times * NOISE)[3:], rtol=0.12, atol=0)
    torch.testing.assert_close(spectra.signal[3:], SIGNAL[3:], rtol=0.2, atol=0)


def test_groups_that_are_alike_give_what_one_group_gives(observations):
    group = torch.arange(COUNT) % 2
    one, two = (
        estimate_spectra(observations),
        estimate_spectra(observations._replace(group=group, weight=torch.ones(2, len(DISC)))),
    )
    torch.testing.assert_close(two.noise.mean(0), one.noise[0], rtol=0.02, atol=0)
    torch.testing.assert_close(two.signal, one.signal, rtol=0.05, atol=0)
    assert float((two.noise[0] / two.noise[1] - 1)[3:].abs().max()) < 0.1


def test_weights_are_of_each_group_or_the_same_for_all(observations):
    o = observations._replace(group=torch.arange(COUNT) % 2, weight=torch.ones(2, len(DISC)))
    each = weighted(o, torch.stack([NOISE, 2 * NOISE])).weight
    torch.testing.assert_close(each[0], 2 * each[1])
    torch.testing.assert_close(weighted(o, NOISE).weight, each[:1].expand(2, -1))


def test_residuals_are_told_apart_by_group_and_those_of_few_images_are_held(observations):
    times = torch.full((RADIUS + 1,), 3.0, dtype=torch.float64)
    group = (torch.arange(COUNT) % 2).long()
    o = with_louder(observations, group, times)
    grid = FourierGrid(RADIUS)
    nothing = torch.zeros_like(map_to_grid(torch.zeros(BOX, BOX, BOX), grid))
    poses = Poses(torch.arange(COUNT), torch.eye(3).expand(COUNT, 3, 3), torch.zeros(COUNT, 2))
    power = torch.stack([shell_mean((o.images[group == n].abs() ** 2).mean(0), DISC) for n in (0, 1)])
    seen = weighted(o, power)
    torch.testing.assert_close(residual_power(nothing, grid, seen, poses)[:, 1:], power[:, 1:], rtol=1e-3, atol=0)

    quiet = poses.take((group == 0).nonzero()[:, 0])
    torch.testing.assert_close(residual_power(nothing, grid, seen, quiet)[:, 1:], power[:, 1:], rtol=1e-3, atol=0)
    few = poses.take(torch.cat([(group == 0).nonzero()[:, 0], torch.tensor([1])]))
    torch.testing.assert_close(residual_power(nothing, grid, seen, few)[:, 1:], power[:, 1:], rtol=0.05, atol=0)


def test_groups_of_few_images_share_a_spectrum():
    optics = torch.tensor([7] * 300 + [2] * 5 + [9] * 300 + [4] * 3)
    own = noise_groups(optics)
    assert own.unique().tolist() == [0, 1, 2]
    assert [len(own[optics == number].unique()) for number in (2, 4, 7, 9)] == [1, 1, 1, 1]
    assert own[optics == 2][0] == own[optics == 4][0]
    assert len({int(own[optics == number][0]) for number in (2, 7, 9)}) == 3
    assert noise_groups(torch.full((5,), 3)).tolist() == [0] * 5


def test_of_very_many_groups_the_largest_have_spectra_of_their_own():
    optics = torch.arange(150).repeat_interleave(torch.arange(150) + 200)
    own = noise_groups(optics)
    assert len(own.unique()) == 101
    assert len(own[optics < 50].unique()) == 1
    assert len(own[optics >= 50].unique()) == 100


def test_the_mean_over_images_counts_each_group_by_its_images(observations):
    o = observations._replace(group=(torch.arange(COUNT) % 3 == 0).long(), weight=torch.ones(2, len(DISC)))
    assert float(in_the_mean(torch.tensor([1.0, 4.0]), o)) == pytest.approx(2.0)


def test_a_spectrum_is_brought_to_the_level_of_other_images_group_by_group(observations):
    group = (torch.arange(COUNT) % 3 == 0).long()
    factor = torch.tensor([0.7, 2.0])
    g = torch.Generator().manual_seed(9)
    noise = NOISE.sqrt().float()[DISC.shell] * torch.randn(COUNT, len(DISC), generator=g, dtype=torch.complex64)
    o = observations._replace(images=factor.sqrt()[group, None] * noise, group=group, weight=torch.ones(2, len(DISC)))
    found = at_the_level_of(o, NOISE, slice(7, 11))
    usual = float(in_the_mean(factor, o))
    count = torch.bincount(group)
    expected = usual + count / (count + 100) * (factor - usual)
    torch.testing.assert_close(found, expected[:, None].double() * NOISE, rtol=0.02, atol=0)
