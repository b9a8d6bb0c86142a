"""Everything a preflight check finds out, as one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryospin.errors import InputError
from cryospin.findings import Findings, Severity
from cryospin.formats.plausibility import FEWEST
from cryospin.formats.stack import ImageLocation
from cryospin.formats.table import ParticleTable
from cryospin.particles import ParticleSet, find_particles
from cryospin.preflight.estimate import Estimate, estimate
from cryospin.preflight.pixels import PixelFacts, look_at_pixels
from cryospin.preparation import off_centre
from cryospin.selection import Selection


@dataclass(frozen=True)
class Preflight:
    """What was found, what is suspicious, what is wrong, and what a run would cost.

    path: the particle table
    facts: name to value, in the order they are to be told; empty where the table could not be read
    pixels: what the images look like, None where they could not be read
    cost: of a run with default settings, None where there would be none
    findings: errors, warnings and notes
    """

    path: Path
    facts: dict[str, Any]
    pixels: PixelFacts | None
    cost: Estimate | None
    findings: Findings

    @property
    def fit(self) -> bool:
        """Whether a reconstruction would start."""
        return not self.findings.of(Severity.error) and self.facts["particles"] >= FEWEST

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": str(self.path),
            "fit": self.fit,
            "facts": self.facts,
            "images": asdict(self.pixels) if self.pixels else None,
            "cost": asdict(self.cost) if self.cost else None,
            "findings": [f.plain() for f in self.findings],
        }


def preflight(
    path: Path,
    *,
    datadir: Path | None = None,
    ctf: Path | None = None,
    selection: Selection | None = None,
    box: int | None = None,
    threads: int = 1,
    deep: bool = False,
    reading: Callable[[int], Callable[[int], None]] = lambda total: lambda n: None,
) -> Preflight:
    """Check a particle table, its stacks' headers, and a sample of the images.

    box: working box asked for; deep: read every image instead of a sample
    reading: called with the number of images to look at; what it returns is called with the number done since
    """
    try:
        table, images = find_particles(path, datadir, ctf, selection or Selection())
    except InputError as error:
        findings = Findings()
        findings.error(error.problem, Path(error.where or path), error.remedy)
        return Preflight(path, {}, None, None, findings)
    pixels, cost = None, None
    if images is not None and not table.findings.of(Severity.error):
        particles = ParticleSet(table, images)
        if found := off_centre(particles):
            table.findings.warn(found, path, "Give cryospin reconstruct --recentre, which centres them first")
        pixels = look_at_pixels(particles, deep=deep, reading=reading)
        cost = _cost(particles, box, threads)
    return Preflight(path, _facts(table, images), pixels, cost, table.findings)


def _cost(particles: ParticleSet, box: int | None, threads: int) -> Estimate | None:
    """Of a run, and a warning where the memory will not do."""
    findings, path = particles.table.findings, particles.table.path
    try:
        cost = estimate(len(particles), particles.working_box(box), threads)
    except InputError as error:
        findings.error(error.problem, path, error.remedy)
        return None
    if cost.available_gib is not None and cost.memory_gib > cost.available_gib:
        findings.warn(
            f"a run needs about {cost.memory_gib:.1f} GiB, {cost.available_gib:.1f} GiB are free",
            path,
            "Give a smaller --box, or --sample N particles",
        )
    return cost


def _facts(table: ParticleTable, images: ImageLocation | None) -> dict[str, Any]:
    """What the table says, in numbers."""
    optics = table.optics
    used = optics.group.unique().tolist()
    facts: dict[str, Any] = {
        "format": table.format,
        "particles": len(table),
        "stacks": len(np.unique(table.images.stack)) if table.images.files else 0,
        "box_px": sorted(set(images.boxes.tolist())) if images is not None else sorted({optics.groups[g].box for g in used}),
        "pixel_size_A": sorted({optics.groups[g].pixel_size for g in used}),
        "optics_groups": [_group_facts(table, g) for g in used],
        "defocus_A": _range((optics.defocus_u + optics.defocus_v).numpy() / 2),
        "astigmatism_A": _range((optics.defocus_u - optics.defocus_v).abs().numpy()),
        "phase_shift_deg": _range(optics.phase_shift.numpy()),
        "poses": "3D" if table.poses is not None else "2D shifts" if table.shift is not None else "none",
    }
    if images is not None:
        facts["pixel_types"] = sorted({s.dtype.name for s in images.stacks})
    return facts


def _group_facts(table: ParticleTable, number: int) -> dict[str, Any]:
    """One optics group, with how many particles it has."""
    group = table.optics.groups[number]
    plain: dict[str, Any] = {
        "name": group.name,
        "particles": int((table.optics.group == number).sum()),
        "voltage_kV": group.voltage,
        "cs_mm": group.spherical_aberration,
        "amplitude_contrast": group.amplitude_contrast,
        "pixel_size_A": group.pixel_size,
    }
    if any(group.beam_tilt):
        plain["beam_tilt_mrad"] = group.beam_tilt
    if any(group.odd_zernike) or any(group.even_zernike):
        plain["zernike_terms"] = len(group.odd_zernike) + len(group.even_zernike)
    if group.magnification != (1.0, 0.0, 0.0, 1.0):
        plain["magnification"] = group.magnification
    return plain


def _range(values: np.ndarray) -> tuple[float, float, float]:
    """Least, middle and greatest."""
    return float(values.min()), float(np.median(values)), float(values.max())
