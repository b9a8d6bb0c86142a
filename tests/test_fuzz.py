"""Damaged inputs of every kind: an explanation, never a traceback, a hang, a wrong success or a stray file."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryospin.errors import InputError
from cryospin.findings import Severity
from cryospin.formats.star_text import star_file
from cryospin.particles import ParticleSet
from cryospin.preflight import preflight
from cryospin.simulation import ImagingConditions, simulate

LONGEST_SECONDS = 5.0
QUICK, THOROUGH = 60, 3400
"""Examples of each kind of file; three kinds make ten thousand."""

TOKENS = [
    *(b"", b"\0", b"\n", b"\n\n", b" ", b"\t", b"#", b'"', b"'", b";", b"@", b"_", b"data_", b"loop_\n", b"data_optics\n"),
    *(b"nan", b"inf", b"-inf", b"1e400", b"-1", b"0", b"99999999999999999999", b"1e-320", b"1_0", b"0x10", b"\xff\xfe"),
    *(b"[1,2", b"[[[[[[", b"[nan]", b"../../etc/passwd", b"/", b"~", b"_rlnImageName #1\n", b"_rlnDefocusU #2\n", b"\r\n"),
    *(b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f", b"O", b"|O", b">f8", b"(2, 3)"),
    *("é".encode(), "\u2028".encode(), b"A" * 5000),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory, blobs) -> dict[str, dict[str, bytes]]:
    """Sound files of every kind, each with the stack it needs: kind to file name to contents."""
    folder = tmp_path_factory.mktemp("sound")
    conditions = ImagingConditions(snr=5.0, beam_tilt=(1.0, 0.5), magnification=(1.01, 0.0, 0.0, 0.99), phase_shift=20)
    simulate(blobs.density(16), 6.0, 24, folder, conditions, seed=1)
    stack = {"particles.mrcs": (folder / "particles.mrcs").read_bytes()}
    old = {
        "rlnImageName": [f"{i + 1}@particles.mrcs" for i in range(24)],
        **{f"rlnDefocus{k}": [12000.0 + i for i in range(24)] for k in ("U", "V")},
        **{name: [value] * 24 for name, value in OLD_COLUMNS.items()},
    }
    star_file(folder / "old.star", {"": old}).write(folder / "old.star")
    np.save(folder / "p.npy", _cs_rows())
    return {
        "star": {"p.star": (folder / "truth.star").read_bytes(), **stack},
        "old star": {"p.star": (folder / "old.star").read_bytes(), **stack},
        "cs": {"p.cs": (folder / "p.npy").read_bytes(), **stack},
        "mrc": {"particles.mrcs": stack["particles.mrcs"], "p.star": (folder / "truth.star").read_bytes()},
    }


OLD_COLUMNS = {
    "rlnVoltage": 300,
    "rlnSphericalAberration": 2.7,
    "rlnAmplitudeContrast": 0.1,
    "rlnDefocusAngle": 10,
    "rlnMagnification": 10000,
    "rlnDetectorPixelSize": 6,
    "rlnOriginX": 1.5,
    "rlnOriginY": -0.5,
}


def _cs_rows() -> np.ndarray:
    numbers = {"blob/psize_A": 6, "blob/sign": -1, "ctf/accel_kv": 300, "ctf/cs_mm": 2.7, "ctf/amp_contrast": 0.1}
    numbers |= {"ctf/df1_A": 12000, "ctf/df2_A": 11000, "ctf/df_angle_rad": 0.3, "ctf/phase_shift_rad": 0}
    fields = [("uid", "<u8"), ("blob/path", "S20"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,))]
    fields += [(name, "<f4") for name in numbers]
    fields += [("alignments3D/pose", "<f4", (3,)), ("alignments3D/shift", "<f4", (2,)), ("alignments3D/psize_A", "<f4")]
    rows = np.zeros(24, np.dtype(fields))
    rows["uid"], rows["blob/path"], rows["blob/idx"], rows["blob/shape"] = range(24), b">particles.mrcs", range(24), 16
    for name, value in numbers.items():
        rows[name] = value
    return rows


def damaged(data: bytes, seed: int, header: int) -> bytes:
    """Some bytes changed, cut, doubled or replaced; often among the first `header` ones, where it hurts most."""
    dice, out = random.Random(seed), bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        limit = len(out) if dice.random() < 0.4 else min(header, len(out))
        at, length = dice.randrange(limit + 1), dice.choice((0, 1, 1, 4, 30))
        kind = dice.randrange(5)
        if kind == 0:
            out[at : at + length] = dice.choice(TOKENS)
        elif kind == 1:
            out[at : at + length] = dice.randbytes(length)
        elif kind == 2:
            del out[at : at + dice.choice((1, 10, 1000))]
        elif kind == 3:
            out[at:at] = out[at : at + dice.choice((10, 200))]
        elif dice.random() < 0.3:
            del out[at:]
    return bytes(out)


@pytest.mark.parametrize("kind", ["star", "old star", "cs", "mrc"])
def test_damaged_files_are_explained(kind, sound, tmp_path):
    _try_many(kind, sound, tmp_path, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["star", "old star", "cs", "mrc"])
def test_thousands_of_damaged_files_are_explained(kind, sound, tmp_path):
    _try_many(kind, sound, tmp_path, THOROUGH)


def _try_many(kind: str, sound: dict[str, dict[str, bytes]], folder: Path, count: int) -> None:
    files = sound[kind]
    victim = next(iter(files))
    table = folder / next(name for name in files if name.startswith("p."))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    header = 1200 if kind == "mrc" else 1500

    @settings(max_examples=count, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**40))
    def attempt(seed: int) -> None:
        (folder / victim).write_bytes(damaged(files[victim], seed, header))
        # Of this process alone, so that a busy machine fails nothing.
        started = time.process_time()
        found = preflight(table, threads=1)
        assert time.process_time() - started < LONGEST_SECONDS
        assert all(f.problem and "\n" not in str(f).strip() for f in found.findings)
        assert {p.name for p in folder.iterdir()} == set(files)
        if not found.findings.of(Severity.error):
            _must_be_sound(table)

    attempt()


def _must_be_sound(table: Path) -> None:
    """What is called fit can be packed into finite numbers, image by image."""
    particles = ParticleSet.load(table)
    optics = particles.table.optics
    assert all(bool(torch.isfinite(x).all()) for x in (optics.defocus_u, optics.defocus_v, optics.phase_shift))
    assert len(particles) == len(particles.images.slice) == len(optics)
    try:
        packed = particles.pack(particles.working_box())
    except InputError:
        return
    assert bool(torch.isfinite(packed.observations.images.abs()).all())
    assert bool(torch.isfinite(packed.observations.ctf).all())
