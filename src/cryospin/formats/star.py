"""RELION particle tables, version 3.1 and later: an optics block and a particles block.

Values are kept as the text they were, so that a table written back differs only where it should.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import starfile
import torch
from torch import Tensor

from cryospin.errors import InputError
from cryospin.formats.paths import find_stack
from cryospin.formats.stack import ImageLocation
from cryospin.formats.table import GivenPoses, ParticleTable
from cryospin.formats.whole import whole
from cryospin.geometry.rotations import from_relion_angles, to_relion_angles
from cryospin.optics import Optics

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")


@dataclass(frozen=True)
class StarText:
    """The blocks of a STAR file as text, in the file's order."""

    path: Path
    blocks: dict[str, pd.DataFrame | dict[str, str]]

    @property
    def particles(self) -> pd.DataFrame:
        """The particles block."""
        block = self.blocks.get("particles")
        if not isinstance(block, pd.DataFrame):
            raise InputError(
                "has no particles block",
                where=self.path,
                remedy="Give a RELION 3.1 or later particle table, such as run_data.star",
            )
        return block

    @property
    def optics(self) -> pd.DataFrame:
        """The optics block."""
        block = self.blocks.get("optics")
        if isinstance(block, dict):
            return pd.DataFrame({name: [value] for name, value in block.items()})
        if block is None:
            raise InputError(
                "has no optics block",
                where=self.path,
                remedy="Convert it with relion_convert_star to RELION 3.1 or later",
            )
        return block


def read_star(path: str | Path, datadir: Path | None = None) -> ParticleTable:
    """Read a particle table.

    datadir: folder to look for the stacks in first
    raises: `InputError` that names the file, the row or column, and what to do
    """
    path = Path(path)
    text = read_star_text(path)
    rows = text.particles
    if len(rows) == 0:
        raise InputError("the table holds no particles", where=path, remedy="Check how it was selected or exported")
    optics_rows = _optics_row_of_each(text)
    pixel_size = _pixel_size(text, optics_rows)
    return ParticleTable(
        path=path,
        images=_locations(rows, path, datadir),
        optics=_optics(text, optics_rows),
        pixel_size=pixel_size,
        poses=_poses(rows, path, pixel_size),
        source=text,
    )


def read_poses(path: str | Path) -> GivenPoses:
    """The poses of a table alone; its images need not be there.

    raises: `InputError` where there are none
    """
    path = Path(path)
    text = read_star_text(path)
    poses = _poses(text.particles, path, _pixel_size(text, _optics_row_of_each(text)))
    if poses is None:
        raise InputError(
            f"has no poses ({', '.join(ANGLES)})", where=path, remedy="Give a table of particles that were aligned"
        )
    return poses


def read_star_text(path: Path) -> StarText:
    """The blocks of a STAR file with every value as text; raises `InputError` where it cannot be parsed."""
    if not path.is_file():
        raise InputError("no such file", where=path, remedy="Check the path of the particle table")
    try:
        labels = re.findall(r"^_(\S+)", path.read_text(), flags=re.MULTILINE)
        blocks = starfile.read(path, always_dict=True, parse_as_string=labels)
    except (ValueError, IndexError, TypeError, KeyError, pd.errors.ParserError) as error:
        raise InputError(f"not a readable STAR file ({str(error).splitlines()[0]})", where=path) from error
    return StarText(path, blocks)


def write_star(path: str | Path, blocks: dict[str, pd.DataFrame | dict[str, str]]) -> None:
    """Write STAR blocks, whole or not at all."""
    with whole(path) as temporary:
        # Tabs between the values, since values may hold spaces.
        starfile.write(blocks, temporary, sep="\t", na_rep="nan")


def star_with_poses(
    source: StarText, rotation: Tensor, shift_angstrom: Tensor, **columns: np.ndarray
) -> dict[str, pd.DataFrame | dict[str, str]]:
    """A table's blocks with poses, and any further columns, added or replaced; rows and columns keep their order.

    rotation: `(N, 3, 3)`; shift_angstrom: `(N, 2)`, displacement of the particle; columns: label to `(N,)` values
    """
    angles = to_relion_angles(rotation).numpy()
    values: dict[str, np.ndarray] = {name: angles[:, i] for i, name in enumerate(ANGLES)}
    values |= {name: -shift_angstrom[:, i].double().numpy() for i, name in enumerate(ORIGINS)}
    rows = source.particles.copy()
    for name, column in (values | columns).items():
        rows[name] = [str(v) if np.issubdtype(column.dtype, np.integer) else f"{v:.6f}" for v in column]
    return {**source.blocks, "particles": rows}


def _optics_row_of_each(text: StarText) -> np.ndarray:
    """Row of the optics block that each particle refers to, int64 `(N,)`."""
    rows, optics = text.particles, text.optics
    if "rlnOpticsGroup" not in rows:
        raise _missing("rlnOpticsGroup", text.path, "particles")
    numbers = {str(v): i for i, v in enumerate(optics["rlnOpticsGroup"])} if "rlnOpticsGroup" in optics else {}
    known = rows["rlnOpticsGroup"].isin(numbers.keys())
    if not known.all():
        row = int(np.flatnonzero(~known)[0])
        raise InputError(
            f"particle {row + 1} is in optics group {rows['rlnOpticsGroup'].iloc[row]}, which the optics block lacks",
            where=text.path,
            remedy="Add the group to the optics block, or remove its particles",
        )
    return rows["rlnOpticsGroup"].map(numbers).to_numpy(np.int64, copy=True)


def _optics(text: StarText, optics_rows: np.ndarray) -> Optics:
    """Imaging conditions of each particle."""
    path, rows = text.path, text.particles

    def of_particle(label: str, default: float | None = None) -> Tensor:
        return torch.from_numpy(_numbers(rows, label, path, "particles", default))

    def of_group(label: str) -> Tensor:
        return torch.from_numpy(_numbers(text.optics, label, path, "optics")[optics_rows])

    return Optics(
        defocus_u=of_particle("rlnDefocusU"),
        defocus_v=of_particle("rlnDefocusV"),
        defocus_angle=of_particle("rlnDefocusAngle"),
        phase_shift=of_particle("rlnPhaseShift", 0.0),
        voltage=of_group("rlnVoltage"),
        spherical_aberration=of_group("rlnSphericalAberration"),
        amplitude_contrast=of_group("rlnAmplitudeContrast"),
        group=torch.from_numpy(optics_rows),
    )


def _pixel_size(text: StarText, optics_rows: np.ndarray) -> float:
    """The one pixel size of all particles, Å."""
    pixel = np.unique(_numbers(text.optics, "rlnImagePixelSize", text.path, "optics")[np.unique(optics_rows)])
    if len(pixel) > 1 or not pixel[0] > 0:
        raise InputError(
            f"optics groups have pixel sizes of {', '.join(f'{p:g}' for p in pixel)} Å",
            where=text.path,
            remedy="Give particles of one positive pixel size",
        )
    return float(pixel[0])


def _poses(rows: pd.DataFrame, path: Path, pixel_size: float) -> GivenPoses | None:
    """The table's poses, if it has angles."""
    if not all(name in rows for name in ANGLES):
        return None
    angles = np.stack([_numbers(rows, name, path, "particles") for name in ANGLES], axis=1)
    origins = np.stack([_numbers(rows, name, path, "particles", 0.0) for name in ORIGINS], axis=1)
    return GivenPoses(from_relion_angles(torch.from_numpy(angles)), -torch.from_numpy(origins), pixel_size)


def _locations(rows: pd.DataFrame, path: Path, datadir: Path | None) -> ImageLocation:
    """Stack and slice of each particle, from `rlnImageName` (`000012@stack.mrcs`)."""
    if "rlnImageName" not in rows:
        raise _missing("rlnImageName", path, "particles")
    parts = rows["rlnImageName"].str.extract(r"^(?:(\d+)@)?(.+)$")
    number = parts[0].fillna("1").astype(np.int64).to_numpy()
    if (number < 1).any():
        raise InputError(
            f"row {int(np.argmin(number)) + 1}: rlnImageName counts images from 1",
            where=path,
            remedy="Write the first image of a stack as 000001@stack.mrcs",
        )
    codes, names = pd.factorize(parts[1])
    files = [find_stack(str(name), path, datadir) for name in names]
    return ImageLocation(files, codes.astype(np.int64), number - 1)


def _numbers(block: pd.DataFrame, label: str, path: Path, name: str, default: float | None = None) -> np.ndarray:
    """A column as finite float64 numbers; `default` fills a column that is not there."""
    if label not in block:
        if default is None:
            raise _missing(label, path, name)
        return np.full(len(block), default)
    values = pd.to_numeric(block[label], errors="coerce").to_numpy(np.float64, copy=True)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InputError(
            f"row {bad[0] + 1} of the {name} block: {label} is {block[label].iloc[bad[0]]!r}, not a number",
            where=path,
            remedy="Mend or remove the row" + (f" and {len(bad) - 1} more like it" if len(bad) > 1 else ""),
        )
    return values


def _missing(label: str, path: Path, name: str) -> InputError:
    return InputError(
        f"the {name} block has no column {label}",
        where=path,
        remedy="Estimate the CTF and re-extract" if "Defocus" in label else f"Add {label} to the table",
    )
