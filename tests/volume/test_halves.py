from __future__ import annotations

import pytest
import torch

from cryospin.evaluation.fsc import fourier_shell_correlation
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels.types import Poses
from cryospin.volume.accumulated import AccumulatedVolume
from cryospin.volume.halves import HalfMaps, fsc_curves, masked_fsc
from cryospin.volume.mask import spherical_mask

BOX = 24
GRID, DISC = FourierGrid(10), HalfDisc.build(10)


@pytest.fixture(scope="module")
def truth(blobs):
    return blobs.density(BOX)


@pytest.fixture(scope="module")
def halves(truth, observe) -> HalfMaps:
    """Noisy images of known pose, in two halves."""
    g = torch.Generator().manual_seed(3)
    fine = FourierGrid(11)
    volumes = []
    for seed in (0, 1):
        poses = Poses(torch.arange(300), random_rotations(300, g), torch.zeros(300, 2))
        volume = AccumulatedVolume(GRID)
        volume.add(observe(map_to_grid(truth, fine), fine, poses, DISC, BOX, 4.0, seed), poses, torch.ones(300))
        volumes.append(volume)
    return HalfMaps(*volumes)


def test_half_maps_agree_at_low_frequency_only(halves):
    fsc = fourier_shell_correlation(*halves.unfiltered(BOX))
    assert float(fsc[1:4].min()) > 0.9
    assert float(fsc[9:11].mean()) < 0.3


def test_both_is_the_sum_and_leaves_the_halves_alone(halves):
    before = halves.first.numerator.clone()
    both = halves.both
    torch.testing.assert_close(both.numerator, halves.first.numerator + halves.second.numerator)
    torch.testing.assert_close(both.denominator, halves.first.denominator + halves.second.denominator)
    both.fade(0.0)
    assert torch.equal(halves.first.numerator, before)


def test_the_filter_from_the_halves_beats_no_filter(halves, truth):
    first, second = halves.unfiltered(BOX)
    prior = halves.prior_power(fourier_shell_correlation(first, second)).float()
    assert (prior > 0).all()
    filtered = halves.both.solve(prior, box=BOX)
    unfiltered = (first + second) / 2
    assert float((filtered - truth).square().sum()) < 0.7 * float((unfiltered - truth).square().sum())


def test_the_prior_makes_the_filter_of_the_whole_from_the_fsc_of_the_halves(halves):
    # Equal weights everywhere: the Wiener filter of both halves is 2 FSC / (1 + FSC), as in Rosenthal and Henderson.
    flat = [AccumulatedVolume(GRID) for _ in range(2)]
    for volume in flat:
        volume.denominator += 3.0
    even = HalfMaps(*flat)
    fsc = torch.tensor([1.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.5, 0.3, 0.143, 0.05], dtype=torch.float64)
    prior = even.prior_power(fsc)[1:10]
    weight = 6.0
    torch.testing.assert_close(weight / (weight + 1 / prior), 2 * fsc[1:] / (1 + fsc[1:]), rtol=1e-3, atol=1e-3)


def test_shells_beyond_the_first_zero_have_no_signal(halves):
    power = halves.prior_power(torch.tensor([1.0, 1.0, 0.9, 0.01, 0.8], dtype=torch.float64))
    assert power.shape == (GRID.radius + 1,)
    assert float(power[3:].max()) < 1e-2 * float(power[2])


def test_masking_raises_the_correlation(halves):
    maps = halves.unfiltered(BOX)
    fsc = fourier_shell_correlation(*maps)
    masked = masked_fsc(maps, spherical_mask(BOX, 0.6))
    assert masked[4:8].mean() > fsc[4:8].mean()
    torch.testing.assert_close(masked_fsc(maps, torch.ones(BOX, BOX, BOX)), fsc)


def test_a_tight_mask_correlates_by_itself_and_is_corrected_for(halves):
    maps, mask = halves.unfiltered(BOX), spherical_mask(BOX, 0.25)
    curves = fsc_curves(maps, mask, seed=2)
    torch.testing.assert_close(curves.unmasked, fourier_shell_correlation(*maps))
    torch.testing.assert_close(curves.masked, masked_fsc(maps, mask))
    same = curves.corrected == curves.masked
    assert same[:5].all(), "low shells keep their phases and need no correction"
    assert not same[-1]
    changed = ~same
    want = (curves.masked - curves.randomised)[changed] / (1 - curves.randomised[changed])
    torch.testing.assert_close(curves.corrected[changed], want)
    assert torch.equal(fsc_curves(maps, mask, seed=2).randomised, curves.randomised)


def test_random_phases_leave_nothing_without_a_mask(halves):
    curves = fsc_curves(halves.unfiltered(BOX), torch.ones(BOX, BOX, BOX))
    kept = curves.unmasked > 0.8
    torch.testing.assert_close(curves.randomised[:3], curves.unmasked[:3], rtol=1e-3, atol=1e-3)
    assert kept[:3].all()
    assert float(curves.randomised[-3:].abs().max()) < 0.2
