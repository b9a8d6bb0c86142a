"""RELION particle tables, from version 3.0 (one block) to 5 (optics and particles)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cryospin.errors import InputError
from cryospin.findings import Findings, Severity
from cryospin.formats.columns import Columns
from cryospin.formats.star_optics import GEOMETRY_LABELS, OPTICS_LABELS, PARTICLE_OPTICS_LABELS, read_optics
from cryospin.formats.star_text import StarBlock, StarFile, parse_star
from cryospin.formats.table import AssignedPoses, GivenPoses, ImageNames, ParticleTable
from cryospin.geometry.rotations import from_relion_angles, to_relion_angles
from cryospin.optics import Optics

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")
OLD_ORIGINS = ("rlnOriginX", "rlnOriginY")
_IMAGE, _GROUP, _NAME = "rlnImageName", "rlnOpticsGroup", "rlnOpticsGroupName"
_KIND_OF_FILE = re.compile(r":mrcs?$")
"""RELION's way of saying what kind of file to take one for."""

_NEUTRAL = {"rlnNormCorrection": "1.000000", "rlnNrOfSignificantSamples": "1"}
"""Columns that no run finds, as RELION has them before it finds anything; it divides images by their `rlnNormCorrection`."""

_TOMOGRAPHY = ("rlnTomoName", "rlnTomoParticleName")


def read_star(path: str | Path) -> ParticleTable:
    """Read a particle table; its images need not be there.

    raises: `InputError` for a file that is not such a table; what is wrong with its values is in the table's findings
    """
    path, findings = Path(path), Findings()
    star = parse_star(path)
    block, optics_block = _blocks(star)
    if sum(b.name == block.name for b in star.blocks) > 1:
        findings.warn(
            f"there are several blocks data_{block.name}, and only the first is used",
            path,
            "Join them into one, for instance with relion_star_handler --combine",
        )
    if len(block) == 0:
        raise InputError("the table holds no particles", where=path, remedy="Check how it was selected or exported")
    if optics_block is not None and len(optics_block) == 0:
        raise InputError("the optics block is empty", where=path, remedy="Copy its rows from the table this one was made of")
    _refuse_tomography(block, path)
    labels = (_IMAGE, _GROUP, *ANGLES, *ORIGINS, *OLD_ORIGINS, *PARTICLE_OPTICS_LABELS, *OPTICS_LABELS)
    rows = Columns(path, "particles", star.columns(block, labels), len(block), findings)
    groups = None
    if optics_block is not None:
        text = star.columns(optics_block, (_GROUP, _NAME, *OPTICS_LABELS))
        groups = Columns(path, "optics", text, len(optics_block), findings)
    optics = read_optics(rows, groups)
    shift, has_shift = _shifts(rows, optics)
    return ParticleTable(
        path=path,
        format=_version(star, optics_block),
        images=_image_names(rows),
        optics=optics,
        poses=_poses(rows, shift, optics),
        shift=shift if has_shift else None,
        sign=None,
        rows=np.arange(len(block)),
        source=StarSource(star, block, in_pixels=optics_block is None and ORIGINS[0] not in block),
        findings=findings,
    )


def read_poses(path: str | Path) -> GivenPoses:
    """The poses of a table alone; it needs no images and no CTF.

    raises: `InputError` where there are none, or where they are broken
    """
    table = read_star(path)
    needed = {None, *ANGLES, *ORIGINS, *OLD_ORIGINS, *GEOMETRY_LABELS}
    Findings(f for f in table.findings if f.column in needed).refuse_errors()
    if table.poses is None:
        raise InputError(
            f"has no poses ({', '.join(ANGLES)})", where=path, remedy="Give a table of particles that were aligned"
        )
    return replace(table.poses, images=table.images)


def pose_columns(found: AssignedPoses, shift_in_image: Tensor, pixel_size: Tensor | None = None) -> dict[str, list[str]]:
    """What a run found out, as RELION's columns of text.

    shift_in_image: `(N, 2)`, Å; pixel_size: of each image, where origins are to be given in pixels (RELION 3.0)
    """
    angles = to_relion_angles(found.rotation).numpy()
    origin = -shift_in_image.double().numpy()
    names = ORIGINS
    if pixel_size is not None:
        names, origin = OLD_ORIGINS, origin / pixel_size.numpy()[:, None]
    values = {name: angles[:, i] for i, name in enumerate(ANGLES)} | {n: origin[:, i] for i, n in enumerate(names)}
    values["rlnMaxValueProbDistribution"] = found.confidence
    values["rlnLogLikeliContribution"] = found.log_likelihood
    text = {name: [f"{v:.6f}" for v in column] for name, column in values.items()}
    return text | {"rlnRandomSubset": [str(int(h)) for h in found.half]}


@dataclass(frozen=True)
class StarSource:
    """A RELION table as it was read.

    in_pixels: whether origins are given in pixels
    """

    columns: ClassVar[Mapping[str, str]] = {}

    star: StarFile
    block: StarBlock
    in_pixels: bool

    def write(self, folder: Path, table: ParticleTable, found: AssignedPoses, stem: str = "particles") -> None:
        """Write `STEM.star`: the same file with poses, half-sets and confidence added or replaced.

        What an older job measured at its own poses is made neutral.
        """
        sizes = table.optics.of_group("pixel_size") if self.in_pixels else None
        shift = table.optics.shift_in_image(found.shift)
        columns = pose_columns(found, shift, sizes)
        if sizes is None and OLD_ORIGINS[0] in self.block:
            # A table with origins in both units keeps them equal.
            columns = pose_columns(found, shift, table.optics.of_group("pixel_size")) | columns
        columns |= {label: [value] * len(table) for label, value in _NEUTRAL.items() if label in self.block}
        self.star.replaced(self.block, columns, table.rows).write(folder / f"{stem}.star")


def _blocks(star: StarFile) -> tuple[StarBlock, StarBlock | None]:
    """The particles block, and the optics block if there is one."""
    optics = star.block("optics")
    block = star.block("particles") or next((b for b in star.blocks if _IMAGE in b), None)
    if block is None:
        raise InputError(
            f"has no particles: no block has a column {_IMAGE}",
            where=star.path,
            remedy="Give a particle table, such as run_data.star",
        )
    return block, optics


def _refuse_tomography(block: StarBlock, path: Path) -> None:
    if any(label in block for label in _TOMOGRAPHY):
        raise InputError(
            "is a table of subtomograms, which are 3D",
            where=path,
            remedy="cryospin reconstructs from 2D images: extract single particles",
        )


def _version(star: StarFile, optics: StarBlock | None) -> str:
    """What wrote the file, in words."""
    if optics is None:
        return "RELION 3.0 STAR"
    number = next((m[1] for line in star.lines if (m := re.match(r"#\s*version\s+(\d+)", line))), "")
    return {"3": "RELION 3.1 STAR", "4": "RELION 4 STAR", "5": "RELION 5 STAR"}.get(number[:1], "RELION 3.1 or later STAR")


def _image_names(rows: Columns) -> ImageNames:
    """Stack and slice of each particle (`000012@stack.mrcs`)."""
    if _IMAGE not in rows:
        rows.missing(_IMAGE)
        return ImageNames((), np.zeros(rows.count, np.int64), np.zeros(rows.count, np.int64))
    numbers, codes, files = [], [], dict[str, int]()
    for name in rows.text[_IMAGE]:
        number, at, file = name.partition("@")
        if not at:
            number, file = "1", name
        numbers.append(int(number) if number.isascii() and number.isdigit() and len(number) < 12 else 0)
        codes.append(files.setdefault(_KIND_OF_FILE.sub("", file), len(files)))
    position = np.array(numbers, dtype=np.int64)
    rows.findings.rows(
        Severity.error,
        position < 1,
        "row {row}: rlnImageName does not start with the number of an image, counted from 1",
        rows.where,
        "Write the first image of a stack as 000001@stack.mrcs",
        _IMAGE,
    )
    return ImageNames(tuple(files), np.array(codes, dtype=np.int64), position - 1)


def _shifts(rows: Columns, optics: Optics) -> tuple[Tensor, bool]:
    """Displacement of each particle, Å; and whether the table says anything about it."""
    if any(name in rows for name in ORIGINS):
        origin = np.stack([rows.numbers(name, 0.0) for name in ORIGINS], axis=1)
        return optics.shift_of_particle(-torch.from_numpy(origin)), True
    if any(name in rows for name in OLD_ORIGINS):
        pixels = np.stack([rows.numbers(name, 0.0) for name in OLD_ORIGINS], axis=1)
        angstrom = torch.from_numpy(pixels) * optics.of_group("pixel_size")[:, None]
        return optics.shift_of_particle(-angstrom), True
    return torch.zeros(rows.count, 2, dtype=torch.float64), False


def _poses(rows: Columns, shift: Tensor, optics: Optics) -> GivenPoses | None:
    """The table's poses, if it has angles."""
    if not all(name in rows for name in ANGLES):
        return None
    angles = np.stack([rows.numbers(name) for name in ANGLES], axis=1)
    return GivenPoses(from_relion_angles(torch.from_numpy(angles)), shift, float(optics.of_group("pixel_size").max()))
