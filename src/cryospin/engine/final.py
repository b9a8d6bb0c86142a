"""The maps a run ends with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cryospin.engine.half_sets import HalfSets
from cryospin.evaluation.fsc import crossing_shell
from cryospin.poses.modes import Modes
from cryospin.volume.halves import FscCurves, fsc_curves, wiener_filtered
from cryospin.volume.mask import outline_mask

GOLD_STANDARD = 0.143


@dataclass(frozen=True)
class FinalMaps:
    """Maps of all images and of each half.

    pixel_size: Å per voxel
    map: masked, and filtered by the half maps' agreement, `(d, d, d)`
    halves: the half maps, neither filtered nor masked
    mask: soft, 0 to 1
    fsc: curves over shells 0 to `d // 2 - 1`
    """

    pixel_size: float
    map: Tensor
    halves: tuple[Tensor, Tensor]
    mask: Tensor
    fsc: FscCurves

    def cpu(self) -> FinalMaps:
        """The same maps where files are written from."""
        halves = self.halves[0].cpu(), self.halves[1].cpu()
        return FinalMaps(self.pixel_size, self.map.cpu(), halves, self.mask.cpu(), self.fsc.cpu())

    @property
    def size_angstrom(self) -> float:
        """Side of the box."""
        return self.pixel_size * self.map.shape[0]

    @property
    def resolution(self) -> float:
        """Å, where the corrected FSC of the half maps falls below 0.143."""
        return self.size_angstrom / crossing_shell(self.fsc.corrected, GOLD_STANDARD)


def final_maps(sets: HalfSets, modes: Modes) -> FinalMaps:
    """Reconstruct with all frequencies from the poses as they stand."""
    problem = sets.problem
    sums = sets.reconstruct(modes, problem.last_shell)
    halves, together = sums.unfiltered(problem.box), sums.together(problem.box)
    mask = outline_mask(wiener_filtered(together, sets.fsc, whole=True), problem.mask_diameter)
    curves = fsc_curves(halves, mask)
    # Masked before it is filtered: a mask on a filtered map would smear low frequencies over the shells taken out.
    density = wiener_filtered(together * mask, curves.masked, whole=True)
    return FinalMaps(problem.pixel_size, density, halves, mask, curves)
