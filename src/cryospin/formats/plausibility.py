"""Does a particle table make sense? Values that a microscope cannot have had, and units mixed up."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryospin.findings import Findings, Severity
from cryospin.formats.stack import ImageLocation
from cryospin.formats.table import ParticleTable
from cryospin.optics import Optics, OpticsGroup
from cryospin.words import counted

SMALLEST_BOX = 16
FEWEST = 100
"""Fewer particles than this say nothing about a structure that nobody knows."""

_DEFOCUS = ("rlnDefocusU", "rlnDefocusV")
_MICROMETRES = 20.0
_DEFOCUS_OF_ORDER = 100.0
_MOST_DEFOCUS = 100_000.0
_MUCH_ASTIGMATISM = 0.5
_KILOVOLTS = (60.0, 1000.0)
_MUCH_CONTRAST = 0.5
_IMPOSSIBLE = {
    "defocus_u": ("rlnDefocusU", 1e6, "Å"),
    "defocus_v": ("rlnDefocusV", 1e6, "Å"),
    "defocus_angle": ("rlnDefocusAngle", 1e4, "degrees"),
    "phase_shift": ("rlnPhaseShift", 1e4, "degrees"),
    "b_factor": ("rlnCtfBfactor", 1e3, "Å²"),
    "scale": ("rlnCtfScalefactor", 1e3, ""),
}
"""Column, size and unit beyond which a value was never measured, and no CTF can be computed."""

_LEAST_KILOVOLTS, _MOST_KILOVOLTS, _MOST_ABERRATION = 1.0, 1e7, 1e9
_PIXEL_TOLERANCE = 0.02
_MAP_DISTORTION = 0.2


def check_table(table: ParticleTable, images: ImageLocation | None) -> None:
    """Add to the table's findings what is wrong or suspicious about its values and its stacks' headers."""
    findings, path = table.findings, table.path
    broken, before = {f.column for f in findings.of(Severity.error)}, len(findings)
    used = [table.optics.groups[g] for g in table.optics.group.unique().tolist()]
    for group in used:
        _check_group(group, path, findings)
    _check_impossible(table.optics, path, findings)
    _check_defocus(table.optics, path, findings)
    _check_duplicates(table, images, findings)
    if len(table) < FEWEST:
        findings.warn(
            f"{len(table)} particles are too few to find a structure from",
            path,
            f"Give at least {FEWEST}, better some thousands",
        )
    if images is not None:
        _check_headers(table, images)
    # What could not be read was filled in, and is not to be judged as well.
    if any(c in broken for c in _DEFOCUS):
        broken |= set(_DEFOCUS)
    names = table.source.columns
    found = [f for f in findings[before:] if f.column is None or f.column not in broken]
    findings[:] = [f.by_columns(names) for f in (*findings[:before], *found)]


def _check_group(group: OpticsGroup, path: Path, findings: Findings) -> None:
    """One optics group: voltage, aberrations, contrast, pixel size."""
    which = f"optics group {group.name}: "
    low, high = _KILOVOLTS
    if not _LEAST_KILOVOLTS < group.voltage < _MOST_KILOVOLTS:
        findings.error(
            f"{which}the voltage is {group.voltage:g} kV", path, "Correct rlnVoltage, usually 200 or 300", "rlnVoltage"
        )
    elif not low <= group.voltage <= high:
        findings.warn(f"{which}a voltage of {group.voltage:g} kV is unusual", path, "rlnVoltage counts kV", "rlnVoltage")
    if group.spherical_aberration == 0:
        findings.warn(f"{which}Cs is 0", path, "Right only for a microscope with a corrector", "rlnSphericalAberration")
    elif not abs(group.spherical_aberration) < _MOST_ABERRATION:
        findings.error(
            f"{which}Cs is {group.spherical_aberration:g} mm",
            path,
            "Correct rlnSphericalAberration, usually 2.7",
            "rlnSphericalAberration",
        )
    elif not 0 < group.spherical_aberration < 20:
        findings.warn(
            f"{which}Cs is {group.spherical_aberration:g} mm",
            path,
            "rlnSphericalAberration counts mm",
            "rlnSphericalAberration",
        )
    if not 0 <= group.amplitude_contrast < 1:
        findings.error(
            f"{which}the amplitude contrast is {group.amplitude_contrast:g}, no fraction",
            path,
            "Correct rlnAmplitudeContrast, usually 0.07 or 0.1",
            "rlnAmplitudeContrast",
        )
    elif group.amplitude_contrast > _MUCH_CONTRAST:
        findings.warn(
            f"{which}an amplitude contrast of {group.amplitude_contrast:g} is unusual",
            path,
            "It is usually 0.07 or 0.1",
            "rlnAmplitudeContrast",
        )
    if group.pixel_size == 1:
        findings.warn(
            f"{which}the pixel size is exactly 1 Å, which programs write when they do not know it",
            path,
            "Correct rlnImagePixelSize if it is not",
            "rlnImagePixelSize",
        )
    if float(np.abs(group.distortion.numpy() - np.eye(2)).max()) > _MAP_DISTORTION:
        findings.warn(
            f"{which}the magnification matrix is far from 1 0 0 1", path, "Correct rlnMagMat00 and the others", "rlnMagMat00"
        )


def _check_impossible(optics: Optics, path: Path, findings: Findings) -> None:
    """Values out of damaged files."""
    for name, (column, most, unit) in _IMPOSSIBLE.items():
        values = getattr(optics, name).numpy()
        bad = ~(np.abs(values) < most)
        remedy = f"It counts {unit}; correct or remove the row" if unit else "Correct or remove the row"
        findings.rows(
            Severity.error,
            bad,
            f"row {{row}}: {column} is {{value}}",
            path,
            remedy,
            column,
            value=lambda i, v=values: f"{v[i]:.3g}",  # type: ignore[misc]
        )


def _check_defocus(optics: Optics, path: Path, findings: Findings) -> None:
    """Units, over-focus, astigmatism, phase shift."""
    u, v, phase = optics.defocus_u.numpy(), optics.defocus_v.numpy(), optics.phase_shift.numpy()
    middle = float(np.median(np.abs(u)))
    if 0 < middle < _MICROMETRES:
        findings.warn(
            f"defocus is about {middle:.3g}, which looks like µm", path, "Give it in Å: multiply by 10,000", "rlnDefocusU"
        )
    elif middle < _DEFOCUS_OF_ORDER:
        findings.warn(
            f"defocus is about {middle:.3g} Å, too little to see particles", path, "Estimate the CTF", "rlnDefocusU"
        )
    checks: tuple[tuple[np.ndarray, str, str, str], ...] = (
        ((u < 0) | (v < 0), "row {row}: over-focus", "RELION counts underfocus positive", "rlnDefocusU"),
        (np.abs(u) > _MOST_DEFOCUS, "row {row}: a defocus of more than 10 µm", "Defocus counts Å", "rlnDefocusU"),
        (
            np.abs(u - v) > _MUCH_ASTIGMATISM * np.maximum(np.abs(u + v) / 2, 1000),
            "row {row}: astigmatism is more than half of the defocus",
            "The CTF may have been fitted wrongly: remove such particles",
            "rlnDefocusV",
        ),
        (
            optics.scale.numpy() <= 0,
            "row {row}: the CTF scale is not positive",
            "Correct rlnCtfScalefactor",
            "rlnCtfScalefactor",
        ),
    )
    for bad, problem, remedy, column in checks:
        findings.rows(Severity.warning, bad, problem, path, remedy, column)
    if phase.any() and float(np.abs(phase).max()) <= np.pi:
        findings.warn(
            f"phase shifts are at most {float(np.abs(phase).max()):.2f}, which looks like radians",
            path,
            "rlnPhaseShift counts degrees",
            "rlnPhaseShift",
        )


def _check_duplicates(table: ParticleTable, images: ImageLocation | None, findings: Findings) -> None:
    """Particles that are listed more than once, be it under several names of one file."""
    names = table.images
    if not names.files:
        return
    stack = names.stack
    if images is not None:
        _, file = np.unique([str(s.path.resolve()) for s in images.stacks], return_inverse=True)
        stack = file.reshape(-1)[images.stack]
    key = stack * (int(names.slice.max(initial=0)) + 1) + names.slice
    findings.rows(
        Severity.warning,
        repeated(key),
        "row {row} lists an image that an earlier row lists, too",
        table.path,
        "Remove duplicates, which make half maps agree where they should not",
        "rlnImageName",
    )


def repeated(values: np.ndarray) -> np.ndarray:
    """Which values came before, bool `(n,)`."""
    _, first = np.unique(values, return_index=True)
    again = np.ones(len(values), dtype=bool)
    again[first] = False
    return again


def _check_headers(table: ParticleTable, images: ImageLocation) -> None:
    """Compare the stacks with what the table says of them."""
    findings, boxes = table.findings, images.boxes
    groups = table.optics.groups
    group = table.optics.group.numpy()
    said = np.array([g.box for g in groups], dtype=np.int64)[group]
    wrong = (said > 0) & (said != boxes)
    findings.rows(
        Severity.warning,
        wrong,
        "row {row}: {value}",
        table.path,
        "Check the pixel size, which changes where images were rescaled",
        "rlnImageSize",
        value=lambda i: f"the table says {said[i]} pixels, {images.stacks[images.stack[i]].path.name} has {boxes[i]}",
    )
    for side in np.unique(boxes[boxes < SMALLEST_BOX]):
        findings.error(f"images of {side} pixels are too small to reconstruct", table.path, "Extract larger boxes")
    pixel = np.array([g.pixel_size for g in groups])[group]
    voxel = np.array([s.voxel for s in images.stacks])[images.stack]
    # Programs that do not know the pixel size write 1 or 0 in the header.
    differs = (voxel > 0) & (voxel != 1) & (np.abs(voxel - pixel) > _PIXEL_TOLERANCE * pixel)
    findings.rows(
        Severity.warning,
        differs,
        "row {row}: {value}",
        table.path,
        "The table's is used; correct whichever is wrong",
        "rlnImagePixelSize",
        value=lambda i: (
            f"the table says {pixel[i]:.4g} Å per pixel, the header of "
            f"{images.stacks[images.stack[i]].path.name} {voxel[i]:.4g}"
        ),
    )
    _note_mixture(table, boxes, pixel)


def _note_mixture(table: ParticleTable, boxes: np.ndarray, pixel: np.ndarray) -> None:
    """Sets of several boxes or pixel sizes are brought to one lattice."""
    sizes = np.unique(np.round(boxes * pixel, 3))
    kinds, pixels = len(np.unique(boxes)), len(np.unique(pixel))
    if kinds > 1 or pixels > 1:
        table.findings.note(
            f"images are of {counted(kinds, 'box size')} and {counted(pixels, 'pixel size')}; "
            f"they are brought to one box of {sizes.max():.1f} Å",
            table.path,
        )
