"""RELION 3.1 tables of particles that came in another format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cryospin.formats.star import pose_columns
from cryospin.formats.star_text import star_file
from cryospin.formats.table import AssignedPoses, ParticleTable
from cryospin.optics import OpticsGroup

VERSION = "version 30001"
"""What RELION tells the layout of a table by."""


def write_new_star(path: Path, table: ParticleTable, found: AssignedPoses) -> None:
    """Write particles with their poses as a table that RELION 3.1 and later read."""
    rows = image_columns(table) | pose_columns(found, table.optics.shift_in_image(found.shift))
    star_file(path, {"optics": optics_columns(table.optics.groups), "particles": rows}, VERSION).write(path)


def image_columns(table: ParticleTable) -> dict[str, Sequence[object]]:
    """Where the images are and how each was taken."""
    names, optics = table.images, table.optics
    # RELION takes a plain .mrc for one image or map.
    files = [f"{name}:mrcs" if name.endswith(".mrc") else name for name in names.files]
    columns: dict[str, Sequence[object]] = {
        "rlnImageName": [f"{s + 1:06d}@{files[f]}" for f, s in zip(names.stack, names.slice, strict=True)],
        "rlnOpticsGroup": (optics.group + 1).tolist(),
    }
    for label, field in (
        ("rlnDefocusU", optics.defocus_u),
        ("rlnDefocusV", optics.defocus_v),
        ("rlnDefocusAngle", optics.defocus_angle),
        ("rlnPhaseShift", optics.phase_shift),
        ("rlnCtfBfactor", optics.b_factor),
        ("rlnCtfScalefactor", optics.scale),
    ):
        columns[label] = [f"{v:.6f}" for v in field.tolist()]
    return columns


def optics_columns(groups: Sequence[OpticsGroup]) -> dict[str, Sequence[object]]:
    """The optics block; columns that would hold nothing are left out."""
    columns: dict[str, Sequence[object]] = {
        "rlnOpticsGroup": range(1, len(groups) + 1),
        "rlnOpticsGroupName": [g.name for g in groups],
        "rlnVoltage": [f"{g.voltage:.6f}" for g in groups],
        "rlnSphericalAberration": [f"{g.spherical_aberration:.6f}" for g in groups],
        "rlnAmplitudeContrast": [f"{g.amplitude_contrast:.6f}" for g in groups],
        "rlnImagePixelSize": [f"{g.pixel_size:.6f}" for g in groups],
        "rlnImageDimensionality": [2] * len(groups),
    }
    if all(g.box for g in groups):
        columns["rlnImageSize"] = [g.box for g in groups]
    if any(any(g.beam_tilt) for g in groups):
        columns |= {f"rlnBeamTilt{axis}": [f"{g.beam_tilt[i]:.6f}" for g in groups] for i, axis in enumerate("XY")}
    for label, name in (("rlnOddZernike", "odd_zernike"), ("rlnEvenZernike", "even_zernike")):
        if any(getattr(g, name) for g in groups):
            columns[label] = [_coefficients(getattr(g, name)) for g in groups]
    if any(g.magnification != (1.0, 0.0, 0.0, 1.0) for g in groups):
        places = ("00", "01", "10", "11")
        columns |= {f"rlnMagMat{p}": [f"{g.magnification[i]:.8f}" for g in groups] for i, p in enumerate(places)}
    return columns


def _coefficients(values: tuple[float, ...]) -> str:
    return "[" + ",".join(f"{v:.10g}" for v in values or (0.0,)) + "]"


@dataclass(frozen=True)
class NewStarSource:
    """Particles that came without a table of their own."""

    columns: ClassVar[Mapping[str, str]] = {}

    def write(self, folder: Path, table: ParticleTable, found: AssignedPoses, stem: str = "particles") -> None:
        """Write `STEM.star`."""
        write_new_star(folder / f"{stem}.star", table, found)
