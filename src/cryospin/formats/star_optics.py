"""Imaging conditions out of RELION tables, wherever a version of RELION keeps them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import torch

from cryospin.findings import Severity
from cryospin.formats.columns import Columns
from cryospin.optics import Optics, OpticsGroup

_PIXEL, _DETECTOR, _MAGNIFICATION = "rlnImagePixelSize", "rlnDetectorPixelSize", "rlnMagnification"
_VOLTAGE, _CS, _CONTRAST = "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"
_TILT = ("rlnBeamTiltX", "rlnBeamTiltY")
_ODD, _EVEN = "rlnOddZernike", "rlnEvenZernike"
_MATRIX = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
_PREMULTIPLIED, _DIMENSIONS = "rlnCtfDataAreCtfPremultiplied", "rlnImageDimensionality"
_BOX = "rlnImageSize"
_GROUP, _NAME = "rlnOpticsGroup", "rlnOpticsGroupName"
_DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_PHASE, _B_FACTOR, _SCALE = "rlnPhaseShift", "rlnCtfBfactor", "rlnCtfScalefactor"

OPTICS_LABELS = (
    *(_PIXEL, _DETECTOR, _MAGNIFICATION, _VOLTAGE, _CS, _CONTRAST, *_TILT, _ODD, _EVEN, *_MATRIX),
    *(_BOX, _PREMULTIPLIED, _DIMENSIONS),
)
"""Columns that describe the microscope: of the optics block, or of each particle in RELION 3.0."""

GEOMETRY_LABELS = (_GROUP, _PIXEL, _DETECTOR, _MAGNIFICATION, *_MATRIX)
"""Those of them that shifts cannot be read without."""

PARTICLE_OPTICS_LABELS = (*_DEFOCUS, _PHASE, _B_FACTOR, _SCALE)
"""Columns that describe how one particle was imaged."""

USUAL_CONTRAST = 0.1
LEAST_PIXEL, MOST_PIXEL = 1e-3, 1e6
"""Å; nothing beyond was ever a pixel size."""

_NO_CTF = "Estimate the CTF and extract the particles again"


def read_optics(rows: Columns, groups: Columns | None) -> Optics:
    """Imaging conditions of each particle.

    rows: the particles block; groups: the optics block, or None for a table of one block
    """
    group, conditions = _from_optics_block(rows, groups) if groups is not None else _from_particles(rows)
    u, v, angle = _defocus(rows)
    columns = {
        "defocus_u": u,
        "defocus_v": v,
        "defocus_angle": angle,
        "phase_shift": rows.numbers(_PHASE, 0.0),
        "b_factor": rows.numbers(_B_FACTOR, 0.0),
        "scale": rows.numbers(_SCALE, 1.0),
    }
    if not columns["scale"].any():
        columns["scale"][:] = 1.0
        rows.findings.warn(f"{_SCALE} is 0 throughout and is taken for 1", rows.where, "Correct the column", _SCALE)
    tensors = {name: torch.from_numpy(column) for name, column in columns.items()}
    return Optics(**tensors, group=torch.from_numpy(group), groups=conditions)


def _defocus(rows: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both defoci and the direction of the first."""
    u = rows.numbers(_DEFOCUS[0], remedy=_NO_CTF)
    if _DEFOCUS[1] not in rows:
        if _DEFOCUS[0] in rows:
            rows.findings.warn(f"no column {_DEFOCUS[1]}: astigmatism is taken for 0", rows.where, "", _DEFOCUS[1])
        return u, u.copy(), np.zeros_like(u)
    v = rows.numbers(_DEFOCUS[1])
    flat = bool((u == v).all())
    return u, v, rows.numbers(_DEFOCUS[2], 0.0 if flat else None, _NO_CTF)


def _from_optics_block(rows: Columns, groups: Columns) -> tuple[np.ndarray, tuple[OpticsGroup, ...]]:
    """Groups as the optics block lists them, in its order."""
    group = np.zeros(rows.count, dtype=np.int64)
    if _GROUP not in groups:
        groups.missing(_GROUP)
    if _GROUP not in rows:
        rows.missing(_GROUP)
    if _GROUP in rows and _GROUP in groups:
        listed = groups.integers(_GROUP).tolist()
        numbers = {v: i for i, v in enumerate(listed)}
        if len(numbers) < len(listed):
            twice = next(v for v in listed if listed.count(v) > 1)
            groups.findings.error(
                f"optics group {twice} is listed twice", groups.where, "Give each group its own number", _GROUP
            )
        asked = rows.integers(_GROUP)
        group = np.array([numbers.get(int(v), -1) for v in asked], dtype=np.int64)
        rows.findings.rows(
            Severity.error,
            group < 0,
            "row {row} is in optics group {value}, which the optics block lacks",
            rows.where,
            "Add the group to the optics block, or remove its particles",
            _GROUP,
            value=lambda i: str(asked[i]),
        )
        group = group.clip(0)
    names = groups.text.get(_NAME) or [f"opticsGroup{i + 1}" for i in range(groups.count)]
    return group, _conditions(groups, names)


def _from_particles(rows: Columns) -> tuple[np.ndarray, tuple[OpticsGroup, ...]]:
    """Particles taken under the same conditions make a group, in order of appearance."""
    kinds: dict[OpticsGroup, int] = {}
    each = _conditions(rows, ["opticsGroup"] * rows.count)
    group = np.array([kinds.setdefault(conditions, len(kinds)) for conditions in each], dtype=np.int64)
    return group, tuple(replace(kind, name=f"opticsGroup{i + 1}") for i, kind in enumerate(kinds))


def _conditions(block: Columns, names: list[str]) -> tuple[OpticsGroup, ...]:
    """One set of conditions for each row of a block."""
    pixel = _pixel_sizes(block)
    voltage = block.numbers(_VOLTAGE)
    aberration = block.numbers(_CS)
    if _CONTRAST not in block:
        block.findings.warn(
            f"the {block.block} block has no column {_CONTRAST}: {USUAL_CONTRAST} is used",
            block.where,
            f"Add {_CONTRAST} to the table if it was estimated with another",
            _CONTRAST,
        )
    contrast = block.numbers(_CONTRAST, USUAL_CONTRAST)
    box = block.numbers(_BOX, 0.0).clip(0, 1 << 24)
    tilt = [block.numbers(label, 0.0) for label in _TILT]
    matrix = [block.numbers(label, default) for label, default in zip(_MATRIX, (1.0, 0.0, 0.0, 1.0), strict=True)]
    odd, even = _coefficients(block, _ODD), _coefficients(block, _EVEN)
    _refuse_other_images(block)
    singular = np.abs(matrix[0] * matrix[3] - matrix[1] * matrix[2]) < 0.1
    block.findings.rows(
        Severity.error,
        singular,
        f"row {{row}} of the {block.block} block: the magnification matrix cannot be undone",
        block.where,
        "Correct rlnMagMat00 to rlnMagMat11; without distortion it is 1 0 0 1",
        _MATRIX[0],
        of_particles=block.of_particles,
    )
    return tuple(
        OpticsGroup(
            name=names[i],
            voltage=float(voltage[i]),
            spherical_aberration=float(aberration[i]),
            amplitude_contrast=float(contrast[i]),
            pixel_size=float(pixel[i]),
            box=int(box[i]),
            beam_tilt=(float(tilt[0][i]), float(tilt[1][i])),
            odd_zernike=odd[i],
            even_zernike=even[i],
            magnification=(1.0, 0.0, 0.0, 1.0) if singular[i] else tuple(float(m[i]) for m in matrix),  # type: ignore[arg-type]
        )
        for i in range(block.count)
    )


def _pixel_sizes(block: Columns) -> np.ndarray:
    """Å, of each row: as given, or the detector's divided by the magnification (RELION 3.0)."""
    if _PIXEL in block or not (_DETECTOR in block and _MAGNIFICATION in block):
        size = block.numbers(_PIXEL, remedy=f"Add {_PIXEL}, or {_DETECTOR} and {_MAGNIFICATION}, to the table")
        label = _PIXEL
        known = _PIXEL in block
    else:
        magnification = block.numbers(_MAGNIFICATION)
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.nan_to_num(block.numbers(_DETECTOR) * 1e4 / magnification, posinf=0.0, neginf=0.0)
        label, known = _MAGNIFICATION, True
    if known:
        wrong = ~((size > LEAST_PIXEL) & (size < MOST_PIXEL))
        block.findings.rows(
            Severity.error,
            wrong,
            f"row {{row}} of the {block.block} block: the pixel size is {{value}} Å",
            block.where,
            f"Correct {label}: pixel sizes are Å per pixel and positive",
            label,
            value=lambda i: f"{size[i]:g}",
            of_particles=block.of_particles,
        )
    return size


def _coefficients(block: Columns, label: str) -> list[tuple[float, ...]]:
    """Lists of Zernike coefficients (`[0.1,0,-2.5]`)."""
    if label not in block:
        return [()] * block.count
    found = [_list_of_numbers(v) for v in block.text[label]]
    block.findings.rows(
        Severity.error,
        np.array([c is None for c in found]),
        f"row {{row}} of the {block.block} block: {label} is no list of numbers such as [0.1,0,-2.5]",
        block.where,
        "Correct the list, or remove the column",
        label,
        of_particles=block.of_particles,
    )
    return [c or () for c in found]


def _list_of_numbers(text: str) -> tuple[float, ...] | None:
    if not text.startswith("["):
        return None
    try:
        numbers = tuple(float(v) for v in json.loads(text))
    except (ValueError, TypeError, RecursionError, OverflowError):
        return None
    return numbers if np.isfinite(numbers).all() else None


def _refuse_other_images(block: Columns) -> None:
    """Images that are not plain projections."""
    if _PREMULTIPLIED in block and block.numbers(_PREMULTIPLIED).any():
        block.findings.error(
            "images were multiplied by their CTF when they were extracted, which is not supported",
            block.where,
            "Extract them again without premultiplying the CTF",
            _PREMULTIPLIED,
        )
    if _DIMENSIONS in block and (block.numbers(_DIMENSIONS) == 3).any():
        block.findings.error("images are 3D (subtomograms)", block.where, "Give a table of 2D particle images", _DIMENSIONS)
