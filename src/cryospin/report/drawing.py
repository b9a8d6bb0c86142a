"""All figures of a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from cryospin.engine.likeness import DOUBTFUL
from cryospin.geometry.rotations import distance_deg
from cryospin.report.contents import Contents, Maps
from cryospin.report.figures import plot_fsc, plot_orientations, plot_slices
from cryospin.report.histograms import plot_confidence, plot_defocus, plot_shifts, plot_shortfall
from cryospin.report.local import plot_local_resolution
from cryospin.report.numbers import Numbers
from cryospin.report.progress import plot_heads, plot_progress
from cryospin.report.spheres import plot_head_maps, plot_modes
from cryospin.report.style import as_data_uri, data_uri

_SHOWN = 6
_DECIDED = 0.99
"""A particle whose best pose is likelier than this is not undecided."""


def draw(contents: Contents, numbers: Numbers, folder: Path | None = None) -> dict[str, str]:
    """Every figure that the contents allow, as data addresses by name.

    folder: where to write those that are files of their own as well: `fsc`, `orientations`, `slices`, `progress`, `heads`
    """

    def at(name: str) -> Path | None:
        return folder / f"{name}.png" if folder else None

    found = {}
    if curves := contents.fsc:
        figure = plot_fsc(curves.shells_A, curves.curves, at("fsc"), resolution_A=numbers.resolution_A)
        found["fsc"] = as_data_uri(figure)
    if contents.rotation is not None and len(contents.rotation):
        factor = numbers.sampling.compensation if numbers.sampling else None
        figure = plot_orientations(contents.rotation, at("orientations"), group=contents.group, compensation=factor)
        found["orientations"] = _png(figure, at("orientations"))
    if contents.maps:
        found["slices"] = _png(plot_slices(contents.maps.density, contents.maps.voxel, at("slices")), at("slices"))
        found |= _local_resolution(contents.maps)
    if contents.records:
        found["progress"] = as_data_uri(plot_progress(contents.records, at("progress")))
    if any(r.get("winners") for r in contents.records):
        found["heads"] = as_data_uri(plot_heads(contents.records, at("heads")))
    return found | _of_particles(contents)


def _local_resolution(maps: Maps) -> dict[str, str]:
    """The figure of the local resolution, where a run has it."""
    if maps.local_A is None or maps.mask is None:
        return {}
    figure = plot_local_resolution(maps.density, maps.local_A, maps.mask, maps.voxel)
    return {"local_resolution": as_data_uri(figure, "png")}


def _png(figure: Figure, path: Path | None) -> str:
    """A figure's picture; the one that was written, where it was."""
    return as_data_uri(figure, "png") if path is None else data_uri(path.read_bytes(), "image/png")


def _of_particles(contents: Contents) -> dict[str, str]:
    """Figures of the particles one by one."""
    particles, evidence = contents.particles, contents.evidence
    if particles is None:
        return {}
    found = {"defocus": plot_defocus(particles.defocus_A), "shifts": plot_shifts(particles.shift_A)}
    if particles.confidence is not None:
        found["confidence"] = plot_confidence(particles.confidence)
    if "shortfall" in evidence:
        found["shortfall"] = plot_shortfall(evidence["shortfall"].numpy(), DOUBTFUL)
    out = {name: as_data_uri(figure) for name, figure in found.items()}
    if "head_error_deg" in evidence:
        beams = particles.rotation[evidence["head_row"], 2]
        out["head_maps"] = as_data_uri(plot_head_maps(beams, evidence["head_error_deg"]), "png")
    if chosen := undecided(contents):
        out["modes"] = as_data_uri(plot_modes(chosen))
    return out


def undecided(contents: Contents, count: int = _SHOWN) -> list[tuple[str, Tensor, np.ndarray]]:
    """The particles that decide least between poses, each with what `plot_modes` wants; none where all are sure.

    Doubtful ones are left out: what does not show the particle has no pose to decide on.
    """
    modes, particles = contents.modes, contents.particles
    if not modes or particles is None or particles.confidence is None:
        return []
    image, misfit = modes["image"].numpy(), modes["misfit"].numpy()
    several = (np.bincount(image, minlength=len(particles)) > 1) & (particles.confidence < _DECIDED)
    if "shortfall" in contents.evidence:
        several &= contents.evidence["shortfall"].numpy() < DOUBTFUL
    order = np.argsort(np.where(several, particles.confidence, np.inf), kind="stable")[: min(count, int(several.sum()))]
    group = contents.group.double()
    found = []
    for row in order:
        own = np.flatnonzero(image == row)
        own = own[np.argsort(misfit[own], kind="stable")]
        share = _shares(float(particles.confidence[row]), misfit[own])
        rotation = modes["rotation"][own]
        apart = float(distance_deg(rotation[0].double() @ group, rotation[1].double()).min())
        title = f"row {row + 1}: {100 * share[0]:.0f} % and {100 * share[1]:.0f} %, {apart:.0f}° apart"
        found.append((title, rotation, share))
    return found


def _shares(confidence: float, misfit: np.ndarray) -> np.ndarray:
    """Probabilities of a particle's poses, best first, `(m,)`.

    The first is the particle's confidence, which is by the other half's map. Of the others only misfits to the own map were
    kept: they share the rest by these.
    """
    share = np.exp(misfit[1:].min() - misfit[1:])
    return np.append(confidence, (1 - confidence) * share / share.sum())
