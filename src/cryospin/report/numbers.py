"""The few numbers a run comes down to, and what in them deserves a second look."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cryospin.engine.likeness import DOUBTFUL
from cryospin.evaluation.sampling import Sampling, fourier_sampling
from cryospin.report.contents import Contents

SURE = 0.9
UNEVEN = 0.4
"""Sampling compensation factor below which a map is smeared visibly; views all round one axis have 0.81, and do no harm."""

_EARLY_SHELL = 10
_MANY_DOUBTFUL, _MANY_UNSURE = 0.1, 0.3
_MASK_CORRELATES = 0.1
_STILL_CORRELATED = 0.2


@dataclass(frozen=True)
class Numbers:
    """What stands at the top of a page; None for what is not known.

    resolution_A: where the corrected FSC falls below 0.143
    sampling: how evenly the views fill Fourier space
    sure: share of the particles whose best pose has a probability of 0.9 or more
    doubtful: how many particles resemble the map much less than they should
    """

    resolution_A: float | None = None
    sampling: Sampling | None = None
    sure: float | None = None
    doubtful: int | None = None

    @classmethod
    def of(cls, contents: Contents) -> Numbers:
        """Measure a run."""
        curves, particles = contents.fsc, contents.particles
        resolution = curves.at() if curves else None
        sampling = None
        if contents.rotation is not None and len(contents.rotation):
            size = contents.maps.size_A if contents.maps else 0.0
            shell = size / resolution if resolution else _EARLY_SHELL
            sampling = fourier_sampling(contents.rotation, shell, contents.group)
        shortfall = contents.evidence.get("shortfall")
        return cls(
            resolution_A=resolution,
            sampling=sampling,
            sure=float((particles.confidence >= SURE).mean()) if particles and particles.confidence is not None else None,
            doubtful=int((shortfall >= DOUBTFUL).sum()) if shortfall is not None else None,
        )


def remarks(contents: Contents, numbers: Numbers) -> list[str]:
    """What deserves a second look, in sentences that say why; that nothing was found is no remark, but said apart."""
    found = [warning for warning in contents.warnings if warning != contents.no_structure]
    if numbers.sampling and numbers.sampling.compensation < UNEVEN:
        found.append(_uneven(numbers.sampling))
    if contents.particles and numbers.doubtful and numbers.doubtful > _MANY_DOUBTFUL * len(contents.particles):
        found.append(
            f"{numbers.doubtful:,} particles resemble the map much less than they should: "
            "look at their thumbnails for junk, or for another structure."
        )
    if numbers.sure is not None and numbers.sure < 1 - _MANY_UNSURE:
        found.append(
            f"Only {100 * numbers.sure:.0f} % of the particles have one pose that clearly leads: "
            "a symmetry that was not imposed, or too much noise."
        )
    return found + _fsc_remarks(contents, numbers)


def _uneven(sampling: Sampling) -> str:
    """That views are uneven, and how many directions have no data, if any."""
    said = f"Views are very uneven: the sampling compensation factor is {sampling.compensation:.2f} (1 is even)"
    share = f"{100 * sampling.missing:.0f}"
    if share == "0":
        return f"{said}."
    return f"{said}, and {share} % of the directions have no data. The map may be smeared along them."


def _fsc_remarks(contents: Contents, numbers: Numbers) -> list[str]:
    """What the FSC curves give away."""
    curves = contents.fsc
    if curves is None:
        return []
    if numbers.resolution_A is None:
        return ["The FSC of the half maps never falls to 0.143: the box or --max-resolution limits the resolution."]
    found = []
    tail = torch.tensor(curves.curves[curves.best_curve])[-max(2, len(curves.shells_A) // 10) :]
    if float(tail.mean()) > _STILL_CORRELATED:
        found.append("The half maps still agree at the highest frequencies: duplicates, or a tight mask?")
    randomised = curves.curves.get("masked, phases randomised")
    if randomised:
        at = min(range(len(curves.shells_A)), key=lambda i: abs(curves.shells_A[i] - (numbers.resolution_A or 0)))
        if randomised[at] > _MASK_CORRELATES:
            found.append(
                f"With phases randomised, the masked half maps still correlate by {randomised[at]:.2f} at the resolution: "
                "the mask is tight; trust the corrected curve only."
            )
    return found
