"""cryoDRGN turns the tables that cryospin writes, `.star` and `.cs`, into the same poses, CTFs and map."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from other_programs import BOX, COUNT, PIXEL, masked_fsc, run

from cryospin.formats.cs import CsSource, read_cs
from cryospin.formats.star import read_star
from cryospin.formats.table import AssignedPoses
from cryospin.formats.volume import read_map

CRYODRGN = os.environ.get("CRYODRGN") or shutil.which("cryodrgn")
"""The program; an environment of its own is named by the variable."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CRYODRGN is None, reason="cryoDRGN is not installed (or CRYODRGN does not name it)"),
]


@pytest.fixture(scope="module")
def folder(written, found) -> Path:
    """The set in every form, and what cryoDRGN reads out of it."""
    table = read_star(written / "particles.star")
    np.save(written / "bare.npy", _as_cs(table))
    (written / "bare.npy").rename(written / "bare.cs")
    source = read_cs(written / "bare.cs")
    assert isinstance(source.source, CsSource)
    poses: AssignedPoses = found(table)
    (written / "from_cs").mkdir()
    source.source.write(written / "from_cs", source, poses)
    for name, star in (("star", "particles.star"), ("cs_star", "from_cs/particles.star")):
        run(f"{CRYODRGN} parse_pose_star {star} -o {name}_pose.pkl -D {BOX} --Apix {PIXEL}", written)
        run(f"{CRYODRGN} parse_ctf_star {star} -o {name}_ctf.pkl -D {BOX} --Apix {PIXEL} --ps 0", written)
    run(f"{CRYODRGN} parse_pose_csparc from_cs/particles.cs -o cs_pose.pkl -D {BOX}", written)
    run(f"{CRYODRGN} parse_ctf_csparc from_cs/particles.cs -o cs_ctf.pkl", written)
    return written


def test_poses_are_the_same_by_either_table(folder):
    (rotation, shift), (of_cs, shift_of_cs), (converted, shift_converted) = (
        _unpickled(folder / f"{name}_pose.pkl") for name in ("star", "cs", "cs_star")
    )
    assert rotation == pytest.approx(of_cs, abs=1e-5)
    assert rotation == pytest.approx(converted, abs=1e-5)
    assert shift == pytest.approx(shift_of_cs, abs=1e-6)
    assert shift == pytest.approx(shift_converted, abs=1e-6)
    assert np.abs(shift).max() > 0.03


def test_ctfs_are_the_same_by_either_table(folder):
    star, cs, converted = (_unpickled(folder / f"{name}_ctf.pkl") for name in ("star", "cs", "cs_star"))
    assert star.shape == (COUNT, 9)
    assert star == pytest.approx(converted, rel=1e-4, abs=1e-3)
    assert star == pytest.approx(cs, rel=1e-4, abs=2e-3)


def test_backprojection_gives_the_map(folder, density):
    # cryoDRGN's CTF has the opposite sign of RELION's, and it takes white protein for inverted.
    run(
        f"{CRYODRGN} backproject_voxel particles.mrcs --poses star_pose.pkl --ctf star_ctf.pkl -o voxel",
        folder,
    )
    (made,) = [p for p in (folder / "voxel").glob("*.mrc") if p.stem in ("backproject", "volume")]
    assert float(masked_fsc(read_map(made)[0], density)[1:12].min()) > 0.9


def _as_cs(table) -> np.ndarray:
    """The table as cryoSPARC would import it."""
    fields = [
        ("uid", "<u8"),
        ("blob/path", "S32"),
        ("blob/idx", "<u4"),
        ("blob/shape", "<u4", (2,)),
        ("blob/psize_A", "<f4"),
        ("blob/sign", "<f4"),
        ("ctf/type", "S9"),
        *((f"ctf/{name}", "<f4") for name in ("accel_kv", "cs_mm", "amp_contrast", "df1_A", "df2_A", "df_angle_rad")),
        ("ctf/phase_shift_rad", "<f4"),
        ("ctf/scale", "<f4"),
    ]
    optics, group = table.optics, table.optics.groups[0]
    rows = np.zeros(len(table), np.dtype(fields))
    rows["uid"] = np.random.default_rng(0).integers(0, 2**63, len(table))
    rows["blob/path"], rows["blob/idx"], rows["blob/shape"] = b">particles.mrcs", table.images.slice, BOX
    rows["blob/psize_A"], rows["blob/sign"], rows["ctf/type"] = group.pixel_size, 1, b"imported"
    rows["ctf/accel_kv"], rows["ctf/cs_mm"] = group.voltage, group.spherical_aberration
    rows["ctf/amp_contrast"], rows["ctf/scale"] = group.amplitude_contrast, 1
    rows["ctf/df1_A"], rows["ctf/df2_A"] = optics.defocus_u.numpy(), optics.defocus_v.numpy()
    rows["ctf/df_angle_rad"] = np.deg2rad(optics.defocus_angle.numpy())
    return rows


def _unpickled(path: Path):
    with path.open("rb") as handle:
        return pickle.load(handle)
