from __future__ import annotations

import pytest
import torch

from cryospin.fourier import low_pass
from cryospin.maps.fsc import fourier_shell_correlation, resolution
from cryospin.volume.local_resolution import local_resolution
from cryospin.volume.mask import spherical_mask

BOX, PIXEL = 48, 2.0
MASK = spherical_mask(BOX, 0.8)


@pytest.fixture(scope="module")
def signal():
    return torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(1))


def noise(seed):
    return torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(seed))


def band_noise(seed, shell):
    """White noise from a shell on."""
    white = noise(seed)
    return white - low_pass(white, shell - 1)


def test_where_quality_is_even_it_is_that_of_the_whole_map(signal):
    halves = tuple(signal + 4 * band_noise(s, 14) for s in (2, 3))
    whole = resolution(fourier_shell_correlation(*(h * MASK for h in halves)), 0.143, BOX * PIXEL)
    found = local_resolution(halves, MASK, PIXEL, BOX // 2 - 1)[MASK > 0.5]
    assert float(found.median()) == pytest.approx(whole, rel=0.1)
    assert float(((found / whole - 1).abs() < 0.2).float().mean()) > 0.9


def test_a_blurred_side_is_told_from_a_sharp_one(signal):
    side = (torch.arange(BOX) - BOX // 2) / BOX
    bad = torch.sigmoid(side * 60)[:, None, None]
    halves = tuple(signal + 4 * (bad * band_noise(s, 6) + (1 - bad) * band_noise(s + 10, 16)) for s in (2, 3))
    found = local_resolution(halves, MASK, PIXEL, BOX // 2 - 1)
    inside = MASK > 0.5
    sharp, blurred = found[:16][inside[:16]], found[-16:][inside[-16:]]
    assert float(sharp.median()) == pytest.approx(BOX * PIXEL / 15.5, rel=0.12)
    assert float(blurred.median()) == pytest.approx(BOX * PIXEL / 5.5, rel=0.25)


def test_noise_has_the_lowest_resolution_there_is(generator):
    found = local_resolution((noise(2), noise(3)), MASK, PIXEL, 20)
    assert float(found[MASK > 0.5].median()) > BOX * PIXEL / 5
    assert float(found.max()) <= BOX * PIXEL / 3 + 1e-3


def test_equal_halves_reach_the_last_shell(signal):
    found = local_resolution((signal, signal), MASK, PIXEL, 20)
    torch.testing.assert_close(found[MASK > 0.5], torch.full_like(found[MASK > 0.5], BOX * PIXEL / 20), rtol=1e-4, atol=0)
