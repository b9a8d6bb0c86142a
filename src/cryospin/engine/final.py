"""The maps a run ends with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from cryospin.engine.half_sets import HalfSets
from cryospin.maps.fsc import GOLD_STANDARD, crossing_shell, never_falls
from cryospin.poses.modes import Modes
from cryospin.volume.halves import FscCurves, fsc_curves, wiener_filtered
from cryospin.volume.local_resolution import local_resolution
from cryospin.volume.mask import outline_mask
from cryospin.volume.sharpen import Guinier, guinier_fit, sharpened

_LOOK_AHEAD = 10
"""Shells beyond the map's resolution up to which parts of it may be resolved."""


@dataclass(frozen=True)
class FinalMaps:
    """Maps of all images and of each half.

    pixel_size: Å per voxel
    map: masked, and filtered by the half maps' agreement, `(d, d, d)`
    unfiltered: the same, not filtered
    halves: the half maps, neither filtered nor masked
    mask: soft, 0 to 1
    fsc: curves over shells 0 to `d // 2 - 1`
    """

    pixel_size: float
    map: Tensor
    unfiltered: Tensor
    halves: tuple[Tensor, Tensor]
    mask: Tensor
    fsc: FscCurves

    def cpu(self) -> FinalMaps:
        """The same maps where files are written from."""
        halves = self.halves[0].cpu(), self.halves[1].cpu()
        return FinalMaps(self.pixel_size, self.map.cpu(), self.unfiltered.cpu(), halves, self.mask.cpu(), self.fsc.cpu())

    @property
    def size_angstrom(self) -> float:
        """Side of the box."""
        return self.pixel_size * self.map.shape[0]

    @property
    def resolution(self) -> float:
        """Å, where the corrected FSC of the half maps falls below 0.143."""
        return self.size_angstrom / crossing_shell(self.fsc.corrected, GOLD_STANDARD)

    @property
    def at_limit(self) -> bool:
        """Whether half maps agree in every shell they have, so that the resolution is only the finest that could be told."""
        return never_falls(self.fsc.corrected, GOLD_STANDARD)

    @cached_property
    def sharpened(self) -> tuple[Tensor, Guinier | None]:
        """The map with the fall-off of its amplitudes undone, and that fall-off; None where the resolution shows none."""
        fit = guinier_fit(self.unfiltered, self.fsc.corrected, self.pixel_size)
        b_factor = max(0.0, fit.b_factor) if fit else 0.0
        return sharpened(self.unfiltered, self.fsc.corrected, self.pixel_size, b_factor), fit

    def local_resolution(self) -> Tensor:
        """Å at each voxel, `(d, d, d)`."""
        last = int(crossing_shell(self.fsc.corrected, GOLD_STANDARD)) + _LOOK_AHEAD
        return local_resolution(self.halves, self.mask, self.pixel_size, last)


def final_maps(sets: HalfSets, modes: Modes) -> FinalMaps:
    """Reconstruct with all frequencies from the poses as they stand."""
    problem = sets.problem
    sums = sets.reconstruct(modes, problem.last_shell)
    halves, together = sums.unfiltered(problem.box), sums.together(problem.box)
    first, second = (wiener_filtered(half, sets.fsc, whole=False) for half in halves)
    mask = outline_mask((first, second), problem.mask_diameter, 1 / sets.resolved_shell)
    curves = fsc_curves(halves, mask).up_to(problem.last_shell)
    # Masked before it is filtered: a mask on a filtered map would smear low frequencies over the shells taken out.
    within = together * mask
    density = wiener_filtered(within, curves.masked, whole=True)
    return FinalMaps(problem.pixel_size, density, within, halves, mask, curves)
