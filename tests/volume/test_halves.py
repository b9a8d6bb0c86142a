from __future__ import annotations

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels.types import Poses
from cryospin.maps.fsc import fourier_shell_correlation, shell_of_voxels
from cryospin.volume.accumulated import AccumulatedVolume
from cryospin.volume.halves import HalfMaps, fsc_curves, masked_fsc, wiener_filtered
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


def test_the_map_of_all_images_is_at_least_as_good_as_the_mean_of_the_halves(halves, truth):
    first, second = halves.unfiltered(BOX)
    before = halves.first.numerator.clone()
    together = fourier_shell_correlation(halves.together(BOX), truth)
    mean = fourier_shell_correlation((first + second) / 2, truth)
    assert float((together - mean)[1:10].min()) > -0.02
    assert torch.equal(halves.first.numerator, before), "the halves were changed"


def test_the_filter_from_the_halves_beats_no_filter(halves, truth):
    maps = halves.unfiltered(BOX)
    fsc = fourier_shell_correlation(*maps)
    average = (maps[0] + maps[1]) / 2

    def error(density):
        return float((density - truth).square().sum())

    assert error(wiener_filtered(average, fsc, whole=True)) < 0.7 * error(average)
    assert error(wiener_filtered(maps[0], fsc, whole=False)) < 0.7 * error(maps[0])


@pytest.mark.parametrize("whole", [True, False])
def test_each_shell_is_multiplied_by_its_filter(truth, whole):
    fsc = torch.tensor([1.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.5, 0.3, 0.143, 0.05, 0.01, 0.9], dtype=torch.float64)
    filtered = wiener_filtered(truth, fsc, whole=whole)
    before, after, shell = torch.fft.rfftn(truth), torch.fft.rfftn(filtered), shell_of_voxels(BOX)
    for k in range(1, 10):
        want = 2 * fsc[k] / (1 + fsc[k]) if whole else fsc[k]
        torch.testing.assert_close(after[shell == k], before[shell == k] * float(want), rtol=1e-3, atol=1e-3)
    assert float(after[shell >= 10].abs().max()) < 1e-4 * float(before.abs().max())


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


def test_curves_end_where_the_maps_do(halves):
    whole = fsc_curves(halves.unfiltered(BOX), spherical_mask(BOX, 0.8))
    cut = whole.up_to(5)
    for name in ("unmasked", "masked", "randomised", "corrected"):
        assert torch.equal(getattr(cut, name)[:6], getattr(whole, name)[:6])
        assert not getattr(cut, name)[6:].any()
