"""Small particle tables of every kind, and ways to compare what is written with what was read."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from cryospin.formats.table import AssignedPoses
from cryospin.geometry.rotations import random_rotations

OPTICS = {
    "rlnOpticsGroupName": ["seven", "three"],
    "rlnOpticsGroup": [7, 3],
    "rlnVoltage": [200.0, 300.0],
    "rlnSphericalAberration": [0.01, 2.7],
    "rlnAmplitudeContrast": [0.07, 0.1],
    "rlnImagePixelSize": [3.0, 1.5],
}
PARTICLES = {
    "rlnImageName": ["1@a.mrcs", "000002@a.mrcs", "1@b.mrcs"],
    "rlnDefocusU": [10000.0, 20000.0, 15000.0],
    "rlnDefocusV": [9500.0, 19000.0, 15100.0],
    "rlnDefocusAngle": [12.5, -45.0, 170.0],
    "rlnAngleRot": [10.0, -10.0, 100.0],
    "rlnAngleTilt": [20.0, 120.0, 90.0],
    "rlnAnglePsi": [30.0, -130.0, 0.0],
    "rlnOriginXAngst": [6.0, 0.0, -1.0],
    "rlnOriginYAngst": [-12.0, 3.0, 2.0],
}


def star_text(blocks: Mapping[str, Mapping[str, list]]) -> str:
    """Tables as RELION writes them."""
    lines = ["", "# version 30001", ""]
    for name, columns in blocks.items():
        lines += [f"data_{name}", "", "loop_ ", *(f"_{label} #{i} " for i, label in enumerate(columns, 1))]
        lines += [" ".join(map(str, row)) + " " for row in zip(*columns.values(), strict=True)] + [" ", ""]
    return "\n".join(lines)


def merged(usual: Mapping[str, list], changes: Mapping[str, list | None]) -> dict[str, list]:
    """Columns with some changed, added or, where None, left out."""
    return {label: values for label, values in {**usual, **changes}.items() if values is not None}


RELION31 = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnMtfFileName #8
opticsGroup7 7 200.000000 0.010000 0.070000 6.0 64 "mtf of K3.star"
opticsGroup3 3 300.000000 2.700000 0.100000 6.0 80 ""


# version 30001

data_particles

loop_
_rlnCoordinateX #1
_rlnImageName #2
_rlnOpticsGroup #3
_rlnDefocusU #4
_rlnDefocusV #5
_rlnDefocusAngle #6
_rlnPhaseShift #7
_rlnAngleRot #8
_rlnAngleTilt #9
_rlnAnglePsi #10
_rlnOriginXAngst #11
_rlnOriginYAngst #12
_rlnGroupName #13
 1024.5 000003@Extract/a.mrcs 3 10000.0 9500.0 12.5 0.0 10.0 20.0 30.0 6.0 -12.0 "two words"
# the last
 2000.0 12@Extract/a.mrcs 7 20000.0 19000.0 -45.0 90.0 -10.0 120.0 -130.0 0.0 3.0 ""

# version 30001

data_model_class_1

loop_
_rlnSpectralIndex #1
_rlnResolution #2
0 0.0
1 0.01
"""


@pytest.fixture
def star(tmp_path) -> Path:
    """A RELION 3.1 table with comments, odd blocks and spaces."""
    (tmp_path / "t.star").write_text(RELION31)
    return tmp_path / "t.star"


@pytest.fixture
def relion31(tmp_path) -> Callable[..., Path]:
    """Writes a RELION 3.1 table of three particles in two optics groups, with columns changed, added or left out."""

    def write(particles: Mapping = {}, optics: Mapping = {}) -> Path:
        group = {"rlnOpticsGroup": [3, 7, 3]}
        blocks = {"optics": merged(OPTICS, optics), "particles": merged(PARTICLES | group, particles)}
        (tmp_path / "t.star").write_text(star_text(blocks))
        return tmp_path / "t.star"

    return write


@pytest.fixture
def relion30(tmp_path) -> Callable[..., Path]:
    """Writes a RELION 3.0 table: one block, 14 µm on the detector magnified 40,000 times, origins in pixels."""
    usual = {label.removesuffix("Angst"): values for label, values in PARTICLES.items()} | {
        "rlnVoltage": [300.0] * 3,
        "rlnSphericalAberration": [2.7] * 3,
        "rlnAmplitudeContrast": [0.1] * 3,
        "rlnMagnification": [40000.0] * 3,
        "rlnDetectorPixelSize": [14.0] * 3,
    }

    def write(particles: Mapping = {}, block: str = "") -> Path:
        (tmp_path / "t.star").write_text(star_text({block: merged(usual, particles)}))
        return tmp_path / "t.star"

    return write


def structured(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """A structured array of columns."""
    dtype = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    out = np.zeros(len(next(iter(columns.values()))), dtype)
    for name, values in columns.items():
        out[name] = values
    return out


def cs_columns(count: int = 4) -> dict[str, np.ndarray]:
    """Fields of a cryoSPARC refinement."""
    g = np.random.default_rng(3)

    def same(value: float) -> np.ndarray:
        return np.full(count, value, np.float32)

    return {
        "uid": g.integers(1 << 63, 1 << 64, count, dtype=np.uint64),
        "blob/path": np.array([b"J3/extract/b.mrc", b"J3/extract/a.mrc"] * count)[:count],
        "blob/idx": np.arange(count, dtype=np.uint32) // 2,
        "blob/shape": np.full((count, 2), 64, np.uint32),
        "blob/psize_A": same(1.5),
        "blob/sign": same(-1),
        "ctf/type": np.full(count, b"ctffind4"),
        "ctf/exp_group_id": np.arange(count, dtype=np.uint32),
        "ctf/accel_kv": same(300),
        "ctf/cs_mm": same(2.7),
        "ctf/amp_contrast": same(0.1),
        "ctf/df1_A": np.linspace(12000, 15000, count, dtype=np.float32),
        "ctf/df2_A": np.linspace(11000, 14500, count, dtype=np.float32),
        "ctf/df_angle_rad": np.linspace(-1, 1, count, dtype=np.float32),
        "ctf/phase_shift_rad": same(0),
        "ctf/scale": same(1),
        "ctf/bfactor": same(0),
        "ctf/tilt_A": np.zeros((count, 2), np.float32),
        "alignments3D/split": np.arange(count, dtype=np.uint32) % 2,
        "alignments3D/shift": g.normal(0, 3, (count, 2)).astype(np.float32),
        "alignments3D/pose": g.normal(0, 1, (count, 3)).astype(np.float32),
        "alignments3D/psize_A": same(3),
        "alignments3D/class_posterior": same(1),
    }


@pytest.fixture
def cs(tmp_path) -> Callable[..., Path]:
    """Writes a cryoSPARC table of four aligned particles, with fields changed, added or left out."""

    def write(changes: Mapping = {}, name: str = "p.cs", count: int = 4) -> Path:
        with (tmp_path / name).open("wb") as handle:
            np.save(handle, structured(merged(cs_columns(count), changes)))
        return tmp_path / name

    return write


@pytest.fixture
def assigned() -> Callable[[int], AssignedPoses]:
    """Poses as a run would assign them to so many particles."""

    def make(count: int) -> AssignedPoses:
        g = torch.Generator().manual_seed(8)
        return AssignedPoses(
            rotation=random_rotations(count, g),
            shift=torch.randn(count, 2, generator=g) * 10,
            half=np.arange(count) // 2 % 2 + 1,
            confidence=np.linspace(0.2, 0.9, count),
            log_likelihood=np.linspace(-30.5, 400.25, count),
        )

    return make


def anatomy(path: Path, block: str) -> tuple[list[str], dict[str, list[str]]]:
    """The lines of a STAR file that are no part of a block's table, and that table's columns."""
    outside, labels, rows, inside = list[str](), list[str](), list[list[str]](), False
    for line in path.read_bytes().decode("utf-8", "surrogateescape").split("\n"):
        if line.startswith("data_"):
            inside = line.strip() == f"data_{block}"
        elif inside and line.startswith("_"):
            labels.append(line.split()[0][1:])
            continue
        elif inside and line.strip() and not line.startswith(("#", "loop_")):
            rows.append(shlex.split(line) if '"' in line or "'" in line else line.split())
            assert len(rows[-1]) == len(labels)
            continue
        outside.append(line)
    return outside, {label: [row[i] for row in rows] for i, label in enumerate(labels)}


@pytest.fixture
def columns_of() -> Callable[..., dict[str, list[str]]]:
    """Columns of one block of a STAR file, read without cryospin."""
    return lambda path, block="particles": anatomy(path, block)[1]


@pytest.fixture
def changes() -> Callable[..., set[str]]:
    """Columns that were replaced or added between two files; everything else has to be the same, value for value."""

    def compare(before: Path, after: Path, block: str = "particles", rows: np.ndarray | None = None) -> set[str]:
        (lines, old), (lines_now, new) = anatomy(before, block), anatomy(after, block)
        assert lines_now == lines
        assert list(new)[: len(old)] == list(old)
        kept = {label: values if rows is None else [values[i] for i in rows] for label, values in old.items()}
        return {label for label, values in new.items() if kept.get(label) != values}

    return compare
