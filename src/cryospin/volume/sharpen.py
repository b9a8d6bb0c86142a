"""How fast a map's amplitudes fall off, and the map with that undone (Rosenthal and Henderson, J. Mol. Biol. 2003)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryospin.maps.fsc import GOLD_STANDARD, crossing_shell, shell_of_voxels

_GUINIER_FROM_A = 10.0
"""Beyond this resolution the amplitudes of a protein's atoms fall off evenly; at lower ones its shape decides them."""

_FEWEST_SHELLS = 4
_SOFT_SHELLS = 2.0


@dataclass(frozen=True)
class Guinier:
    """The straight line `ln F = intercept - B / (4 d^2)` through a map's amplitudes.

    b_factor: Å^2, positive where amplitudes fall
    intercept: natural logarithm of the amplitude
    from_A, to_A: resolutions in Å between which it was fitted
    """

    b_factor: float
    intercept: float
    from_A: float
    to_A: float


def reference_correlation(fsc: Tensor) -> Tensor:
    """Correlation of the map of both halves with the truth, `C_ref = sqrt(2 FSC / (1 + FSC))`: `(n,)`."""
    curve = fsc.clamp(0, 1)
    return (2 * curve / (1 + curve)).sqrt()


def guinier_fit(density: Tensor, fsc: Tensor, pixel_size: float) -> Guinier | None:
    """Fit a B-factor from 10 Å to where the half maps' FSC falls below 0.143.

    The amplitude of a shell is the root of its mean power, with the share of the noise taken off (times `C_ref`).

    density: of both halves, masked, unfiltered, `(d, d, d)`; fsc: `(d // 2,)`; pixel_size: Å
    returns: None where fewer than four shells lie between the two
    """
    size = density.shape[-1] * pixel_size
    last = int(crossing_shell(fsc, GOLD_STANDARD))
    shells = torch.arange(len(fsc))
    used = (shells >= size / _GUINIER_FROM_A) & (shells <= last) & (fsc > 0)
    if int(used.sum()) < _FEWEST_SHELLS:
        return None
    logarithm = (_shell_power(density).sqrt() * reference_correlation(fsc)).clamp_min(1e-30).log()[used]
    square = (shells[used].double() / size) ** 2
    design = torch.stack([torch.ones_like(square), -square / 4], dim=1)
    intercept, b_factor = torch.linalg.lstsq(design, logarithm[:, None]).solution[:, 0].tolist()
    first, end = (size / int(shells[used][i]) for i in (0, -1))
    return Guinier(b_factor, intercept, first, end)


def sharpened(density: Tensor, fsc: Tensor, pixel_size: float, b_factor: float) -> Tensor:
    """A map with its fall-off undone: each shell times `C_ref exp(B / (4 d^2))`, up to FSC 0.143.

    density: of both halves, masked, unfiltered, `(d, d, d)`; b_factor: Å^2; 0 only weights by `C_ref`
    """
    box = density.shape[-1]
    shells = torch.arange(len(fsc), dtype=torch.float64)
    last = crossing_shell(fsc, GOLD_STANDARD)
    edge = (0.5 + (last - shells) / _SOFT_SHELLS).clamp(0, 1)
    weight = reference_correlation(fsc) * torch.exp(b_factor / 4 * (shells / (box * pixel_size)) ** 2) * edge
    weight[0] = weight[1]
    weight = torch.cat([weight, torch.zeros(1)]).float()
    shell = shell_of_voxels(box).clamp(max=len(fsc))
    return torch.fft.irfftn(torch.fft.rfftn(density) * weight[shell], s=density.shape)


def _shell_power(density: Tensor) -> Tensor:
    """Mean squared amplitude of each shell, float64 `(d // 2,)`."""
    shell = shell_of_voxels(density.shape[-1]).flatten()
    power = torch.fft.rfftn(density.double()).abs().square().flatten()
    return (torch.bincount(shell, power) / torch.bincount(shell).clamp_min(1))[: density.shape[-1] // 2]
