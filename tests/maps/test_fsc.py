from __future__ import annotations

import pytest
import torch

from cryospin.maps.fsc import crossing_shell, fourier_shell_correlation, never_falls, resolution, shell_of_voxels


@pytest.mark.parametrize("box", [16, 17])
def test_a_map_correlates_with_itself_whatever_its_scale(box, generator):
    a = torch.randn(box, box, box, generator=generator)
    fsc = fourier_shell_correlation(a, a)
    assert fsc.shape == (box // 2,)
    torch.testing.assert_close(fsc, torch.ones(box // 2, dtype=torch.float64))
    torch.testing.assert_close(fourier_shell_correlation(a, 3 * a), fsc)
    torch.testing.assert_close(fourier_shell_correlation(a, -a), -fsc)


def test_independent_noise_does_not_correlate(generator):
    a, b = torch.randn(2, 32, 32, 32, generator=generator)
    assert float(fourier_shell_correlation(a, b)[5:].abs().max()) < 0.15


def test_equal_signal_and_noise_correlate_by_a_half(generator):
    signal, a, b = torch.randn(3, 40, 40, 40, generator=generator)
    fsc = fourier_shell_correlation(signal + a, signal + b)
    torch.testing.assert_close(fsc[8:], torch.full((12,), 0.5, dtype=torch.float64), rtol=0, atol=0.06)


def test_each_shell_is_judged_alone(generator):
    a, b = torch.randn(2, 24, 24, 24, generator=generator)
    shell = shell_of_voxels(24)
    low, high = torch.fft.rfftn(a), torch.fft.rfftn(b)
    mixed = torch.fft.irfftn(torch.where(shell <= 5, low, high), s=(24, 24, 24))
    fsc = fourier_shell_correlation(a, mixed)
    torch.testing.assert_close(fsc[:6], torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-4)
    assert float(fsc[6:].abs().max()) < 0.2


def test_a_shift_dephases_high_shells_first(blobs):
    a = blobs.density(24)
    fsc = fourier_shell_correlation(a, a.roll(2, 2))
    assert fsc[1] > 0.9
    assert fsc[1] > fsc[3] > fsc[5]


def test_empty_maps_correlate_by_nothing(generator):
    a = torch.randn(16, 16, 16, generator=generator)
    assert (fourier_shell_correlation(a, torch.zeros(16, 16, 16)) == 0).all()


def test_crossings_are_interpolated():
    fsc = torch.tensor([1.0, 1.0, 0.9, 0.7, 0.3, 0.1, 0.0])
    assert crossing_shell(fsc, 0.5) == pytest.approx(3.5)
    assert crossing_shell(fsc, 0.143) == pytest.approx(4 + 0.157 / 0.2, abs=1e-6)
    assert resolution(fsc, 0.5, 140.0) == pytest.approx(40.0)


def test_the_first_crossing_counts():
    assert crossing_shell(torch.tensor([1.0, 0.9, 0.1, 0.9, 0.1]), 0.5) == pytest.approx(1.5)


def test_curves_that_never_fall_or_never_rise():
    assert crossing_shell(torch.ones(9), 0.5) == 8.0
    assert crossing_shell(torch.zeros(9), 0.5) == 1.0


def test_a_curve_that_was_cut_off_ends_at_the_shell_before():
    curve = torch.tensor([1.0, 0.95, 0.9, 0.8, 0.0, 0.0], dtype=torch.float64)
    assert crossing_shell(curve, 0.143) == 3
    assert resolution(curve, 0.143, 120.0) == 40.0


def test_curves_that_never_fall_are_told_even_where_they_were_cut_off():
    assert never_falls(torch.ones(9), 0.5)
    assert never_falls(torch.tensor([1.0, 0.9, 0.8, 0.0, 0.0]), 0.5)
    assert not never_falls(torch.tensor([1.0, 0.9, 0.4, 0.0, 0.0]), 0.5)
    assert not never_falls(torch.zeros(9), 0.5)
