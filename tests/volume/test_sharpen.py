from __future__ import annotations

import pytest
import torch

from cryospin.maps.fsc import shell_of_voxels
from cryospin.volume.sharpen import guinier_fit, reference_correlation, sharpened

BOX, PIXEL = 48, 1.5
SIZE = BOX * PIXEL
SHELLS = torch.arange(BOX // 2, dtype=torch.float64)
FSC = (1 / (1 + torch.exp((SHELLS - 18) / 1.5))).clamp(max=0.999)


def falling(b_factor, generator):
    """White noise whose amplitudes fall off by a B-factor."""
    white = torch.fft.rfftn(torch.randn(BOX, BOX, BOX, generator=generator, dtype=torch.float64))
    fall = torch.exp(-b_factor / 4 * (shell_of_voxels(BOX).double() / SIZE) ** 2)
    return torch.fft.irfftn(white * fall, s=(BOX,) * 3)


def shell_rms(density):
    power = torch.fft.rfftn(density.double()).abs().square().flatten()
    shell = shell_of_voxels(BOX).flatten()
    return (torch.bincount(shell, power) / torch.bincount(shell)).sqrt()[: BOX // 2]


@pytest.mark.parametrize("b_factor", [40.0, 150.0])
def test_a_known_fall_off_is_found(b_factor, generator):
    fit = guinier_fit(falling(b_factor, generator), torch.ones(BOX // 2, dtype=torch.float64), PIXEL)
    assert fit.b_factor == pytest.approx(b_factor, abs=5)
    assert fit.from_A <= 10
    assert fit.to_A == pytest.approx(SIZE / (BOX // 2 - 1), rel=0.01)


def test_noise_does_not_flatten_the_line(generator):
    signal, noise = falling(100.0, generator), falling(0.0, generator)
    ratio = FSC / (1 - FSC) * 2
    # Noise of the power that this FSC stands for.
    strength = (shell_rms(signal) / shell_rms(noise) / ratio.sqrt())[shell_of_voxels(BOX).clamp(max=BOX // 2 - 1)]
    noisy = signal + torch.fft.irfftn(torch.fft.rfftn(noise) * strength, s=(BOX,) * 3)
    fit = guinier_fit(noisy, FSC, PIXEL)
    naive = guinier_fit(noisy, torch.where(FSC > 0.143, 1.0, 0.0).double(), PIXEL)
    assert fit.b_factor == pytest.approx(100, abs=12)
    assert naive.b_factor < fit.b_factor - 5


def test_a_low_resolution_has_no_b_factor(generator):
    fsc = torch.where(SHELLS < SIZE / 11, 1.0, 0.0).double()
    assert guinier_fit(falling(100.0, generator), fsc, PIXEL) is None


def test_sharpening_levels_the_amplitudes_up_to_the_resolution(generator):
    found = sharpened(falling(120.0, generator), FSC, PIXEL, 120.0)
    level = shell_rms(found)
    want = reference_correlation(FSC)
    torch.testing.assert_close((level / level[8])[3:17], (want / want[8])[3:17], rtol=0.15, atol=0)
    assert float(level[-2:].max()) < 1e-3 * float(level[8])


def test_the_reference_correlation_is_a_half_at_the_threshold():
    assert float(reference_correlation(torch.tensor(0.143))) == pytest.approx(0.5, abs=1e-3)
