"""Two half maps, what they agree on, and the filter that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryospin.maps.fsc import crossing_shell, fourier_shell_correlation, shell_of_voxels
from cryospin.volume.accumulated import AccumulatedVolume

_NOTHING = 0.02
"""An FSC below this says nothing."""

_RANDOMISED_BELOW = 0.8
"""Phases are randomised from the shell on where the unmasked curve falls below this."""


@dataclass(frozen=True)
class HalfMaps:
    """Sums of two independent halves of the images, on one lattice."""

    first: AccumulatedVolume
    second: AccumulatedVolume

    def unfiltered(self, box: int) -> tuple[Tensor, Tensor]:
        """The half maps without any filter: `(box, box, box)` each."""
        return self.first.average(box=box), self.second.average(box=box)

    def together(self, box: int) -> Tensor:
        """The map of all images without any filter: better than the mean of the half maps where one of them has few data."""
        both = AccumulatedVolume(self.first.grid, self.first.group)
        both.numerator = self.first.numerator + self.second.numerator
        both.denominator = self.first.denominator + self.second.denominator
        return both.average(box=box)


def wiener_filtered(density: Tensor, fsc: Tensor, *, whole: bool) -> Tensor:
    """A map `(d, d, d)` with each shell multiplied by its Wiener filter.

    A half map's signal-to-noise ratio is `FSC / (1 - FSC)`, so its filter is `FSC`; the map of both halves has twice that
    ratio, so its filter is `2 FSC / (1 + FSC)` (Rosenthal and Henderson, 2003, whose `C_ref` is the root of it). The
    curve is cut where it first nears zero: beyond that nothing is known.

    fsc: between the halves, `(d // 2,)`
    whole: whether the map is of both halves
    """
    curve = fsc.clamp(0, 1).float()
    below = (curve[1:] <= _NOTHING).nonzero()
    if len(below):
        curve[int(below[0]) + 1 :] = 0
    curve[0] = curve[1]
    weight = torch.cat([2 * curve / (1 + curve) if whole else curve, curve.new_zeros(1)])
    shell = shell_of_voxels(density.shape[-1], density.device).clamp(max=len(curve))
    return torch.fft.irfftn(torch.fft.rfftn(density) * weight[shell], s=density.shape)


def masked_fsc(maps: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """FSC of two maps within a mask, float64 `(d // 2,)`."""
    return fourier_shell_correlation(maps[0] * mask, maps[1] * mask)


@dataclass(frozen=True)
class FscCurves:
    """Correlation of two half maps, float64 `(d // 2,)` each.

    unmasked: of the whole boxes
    masked: within the mask
    randomised: within the mask, phases random beyond a shell: what the mask alone correlates
    corrected: `masked` with that taken off (Chen et al., Ultramicroscopy 2013)
    """

    unmasked: Tensor
    masked: Tensor
    randomised: Tensor
    corrected: Tensor

    def up_to(self, shell: int) -> FscCurves:
        """The same curves, 0 beyond a shell: there is nothing in the maps but what masks and interpolation smear there."""
        curves = [c.clone() for c in (self.unmasked, self.masked, self.randomised, self.corrected)]
        for curve in curves:
            curve[shell + 1 :] = 0
        return FscCurves(*curves)

    def cpu(self) -> FscCurves:
        """The same curves where files are written from."""
        return FscCurves(self.unmasked.cpu(), self.masked.cpu(), self.randomised.cpu(), self.corrected.cpu())


def fsc_curves(maps: tuple[Tensor, Tensor], mask: Tensor, seed: int = 0) -> FscCurves:
    """All curves of two unfiltered half maps `(d, d, d)`."""
    unmasked, masked = fourier_shell_correlation(*maps), masked_fsc(maps, mask)
    shell = int(crossing_shell(unmasked, _RANDOMISED_BELOW))
    generator = torch.Generator().manual_seed(seed)
    randomised = fourier_shell_correlation(*(_random_phases(m, shell, generator) * mask for m in maps))
    corrected = masked.clone()
    beyond = slice(shell + 2, None)
    corrected[beyond] = (masked[beyond] - randomised[beyond]) / (1 - randomised[beyond]).clamp_min(1e-6)
    return FscCurves(unmasked, masked, randomised, corrected)


def _random_phases(density: Tensor, shell: int, generator: torch.Generator) -> Tensor:
    """A map with the phases of white noise beyond a shell."""
    spectrum = torch.fft.rfftn(density)
    noise = torch.fft.rfftn(torch.randn(density.shape, generator=generator).to(density.device))
    random = spectrum.abs() * noise / noise.abs().clamp_min(1e-12)
    beyond = shell_of_voxels(density.shape[-1], density.device) > shell
    return torch.fft.irfftn(torch.where(beyond, random, spectrum), s=density.shape)
