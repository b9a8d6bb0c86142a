"""Fourier shell correlation."""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.fourier import CPU

GOLD_STANDARD = 0.143
"""FSC of half maps where the map of all images agrees with the truth by 0.5 (Rosenthal and Henderson, 2003)."""


def shell_of_voxels(box: int, device: torch.device = CPU) -> Tensor:
    """Shell (`round(|k|)`) of each point of a half spectrum from `rfftn`, int64 `(box, box, box // 2 + 1)`."""
    k = torch.fft.fftfreq(box, device=device) * box
    kx = torch.arange(box // 2 + 1, device=device)
    return (k[:, None, None] ** 2 + k[None, :, None] ** 2 + kx**2).sqrt().round().long()


def fourier_shell_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of two maps `(d, d, d)` in each shell: float64 `(d // 2,)`, 1 for shell 0 of equal maps.

    A shell without any power in one of the maps has correlation 0.
    """
    fa, fb = torch.fft.rfftn(a.double()), torch.fft.rfftn(b.double())
    box = a.shape[-1]
    shell = shell_of_voxels(box, a.device).flatten()

    def total(x: Tensor) -> Tensor:
        return torch.bincount(shell, x.flatten())[: box // 2]

    cross = total((fa * fb.conj()).real)
    return cross / (total(fa.abs() ** 2) * total(fb.abs() ** 2)).sqrt().clamp_min(1e-300)


def crossing_shell(fsc: Tensor, threshold: float) -> float:
    """Shell, interpolated, at which a curve first falls below a threshold; its last shell if it never does.

    A curve that drops to exactly 0 was cut off there, and ends at the shell before.
    """
    below = (fsc[1:] < threshold).nonzero()
    if len(below) == 0:
        return float(len(fsc) - 1)
    i = int(below[0]) + 1
    before, after = float(fsc[i - 1]), float(fsc[i])
    if after == 0 and i > 1:
        return float(i - 1)
    return i - 1 + (before - threshold) / max(before - after, 1e-12) if i > 1 else 1.0


def never_falls(fsc: Tensor, threshold: float) -> bool:
    """Whether a curve stays above a threshold as far as it goes, so that its last shell is only the finest there is.

    Shells that are exactly 0 were cut off.
    """
    present = fsc[1:][fsc[1:] != 0]
    return len(present) > 0 and bool((present >= threshold).all())


def resolution(fsc: Tensor, threshold: float, size_angstrom: float) -> float:
    """Resolution in Å at which a curve first falls below a threshold; `size_angstrom` is the side of the box."""
    return size_angstrom / crossing_shell(fsc, threshold)
