from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from cryospin.errors import InputError
from cryospin.formats.star import (
    ANGLES,
    ORIGINS,
    read_poses,
    read_star,
    read_star_text,
    star_with_poses,
    write_star,
)
from cryospin.geometry.rotations import distance_deg, from_relion_angles, random_rotations


def test_a_relion_table_is_read(table):
    # Written out by hand, so that reading does not lean on our own writing.
    (table.folder / "Extract").mkdir()
    table.stack.rename(table.folder / "Extract" / "a.mrcs")
    table.star.write_text(
        """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
opticsGroup7 7 200.000000 0.010000 0.070000 6.0
opticsGroup3 3 300.000000 2.700000 0.100000 6.0


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
 1024.5 000003@Extract/a.mrcs 3 10000.0 9500.0 12.5 0.0 10.0 20.0 30.0 6.0 -12.0
 2000.0 000012@Extract/a.mrcs 7 20000.0 19000.0 -45.0 90.0 -10.0 120.0 -130.0 0.0 3.0
"""
    )
    got = read_star(table.star)
    assert len(got) == 2
    assert got.pixel_size == 6.0
    assert got.images.files == [table.folder / "Extract" / "a.mrcs"]
    assert got.images.slice.tolist() == [2, 11]
    o = got.optics
    assert o.voltage.tolist() == [300.0, 200.0]
    assert o.spherical_aberration.tolist() == [2.7, 0.01]
    assert o.amplitude_contrast.tolist() == [0.1, 0.07]
    assert o.defocus_u.tolist() == [10000.0, 20000.0]
    assert o.defocus_v.tolist() == [9500.0, 19000.0]
    assert o.defocus_angle.tolist() == [12.5, -45.0]
    assert o.phase_shift.tolist() == [0.0, 90.0]
    assert o.group.tolist() == [1, 0]
    # RELION's origin is what to add to bring the particle to the centre: minus its displacement.
    assert got.poses.shift.tolist() == [[-6.0, 12.0], [0.0, -3.0]]
    want = from_relion_angles(torch.tensor([[10.0, 20.0, 30.0], [-10.0, 120.0, -130.0]]))
    torch.testing.assert_close(got.poses.rotation, want)


def test_one_line_optics_blocks_are_read(table):
    text = table.star.read_text()
    lines = text.splitlines()
    start, stop = lines.index("data_optics"), lines.index("data_particles")
    labels = [line.split()[0] for line in lines[start:stop] if line.startswith("_")]
    values = next(line for line in lines[start:stop] if line.startswith("1 ")).split()
    block = ["data_optics", "", *(f"{a} {b}" for a, b in zip(labels, values, strict=True)), ""]
    table.star.write_text("\n".join([*lines[:start], *block, *lines[stop:]]) + "\n")
    assert read_star(table.star).optics.voltage.unique().tolist() == [300.0]


def test_a_table_without_poses_has_none(simulated):
    table = read_star(simulated / "particles.star")
    assert table.poses is None
    assert len(table) == 12
    with pytest.raises(InputError, match=r"particles\.star: has no poses .*aligned"):
        read_poses(simulated / "particles.star")


def test_rewriting_keeps_every_row_column_and_order(table):
    text = read_star_text(table.star)
    rows = text.particles.iloc[torch.randperm(12, generator=torch.Generator().manual_seed(0)).numpy()]
    rows = rows.assign(rlnMyOwnColumn=[f"value {i}" for i in range(12)], rlnCoordinateX=[f"{i}.50" for i in range(12)])
    rows["rlnGroupName"] = ["None", "NA", "two words", "null", "nan", *"abcdefg"]
    blocks = {**text.blocks, "particles": rows, "notes": pd.DataFrame({"rlnComment": ["a", "b"]})}
    write_star(table.star, blocks)
    source = read_star(table.star).source
    g = torch.Generator().manual_seed(1)
    out = star_with_poses(
        source, random_rotations(12, g), torch.randn(12, 2, generator=g), rlnRandomSubset=np.arange(12) % 2 + 1
    )
    path = table.folder / "out.star"
    write_star(path, out)
    again = read_star_text(path)
    assert list(again.blocks) == ["optics", "particles", "notes"]
    assert list(again.particles.columns) == [*rows.columns, "rlnRandomSubset"]
    replaced = {*ANGLES, *ORIGINS}
    for name in rows.columns:
        same = again.particles[name].fillna("nan").tolist() == rows[name].tolist()
        assert same != (name in replaced), name
    assert again.particles["rlnRandomSubset"].tolist() == ["1", "2"] * 6
    pd.testing.assert_frame_equal(again.optics, text.optics, check_dtype=False)
    assert again.blocks["notes"]["rlnComment"].tolist() == ["a", "b"]


def test_poses_written_are_read_back(table, generator):
    rotation = random_rotations(12, generator).double()
    rotation[0] = torch.eye(3)
    rotation[1] = from_relion_angles(torch.tensor([25.0, 180.0, 0.0]))
    shift = torch.randn(12, 2, generator=generator, dtype=torch.float64) * 20
    path = table.folder / "poses.star"
    write_star(path, star_with_poses(table.read().source, rotation, shift))
    for poses in (read_poses(path), read_star(path).poses):
        assert float(distance_deg(poses.rotation, rotation).max()) < 1e-4
        torch.testing.assert_close(poses.shift, shift, rtol=0, atol=1e-5)
        assert poses.pixel_size == 6.0


def test_poses_can_be_read_without_the_images(table):
    table.stack.unlink()
    torch.testing.assert_close(read_poses(table.star).rotation.det(), torch.ones(12, dtype=torch.float64))


SPOILT = {
    "angle is a word": (
        lambda t: t.column("rlnAngleTilt", 4, "steep"),
        r"row 5 of the particles block: rlnAngleTilt is 'steep', not a number\. Mend or remove the row",
    ),
    "defocus": (
        lambda t: t.column("rlnDefocusU", 2, "unknown"),
        r"row 3 of the particles block: rlnDefocusU is 'unknown', not a number\. Mend or remove the row",
    ),
    "defocus NaN": (
        lambda t: (t.column("rlnDefocusV", 2, "nan"), t.column("rlnDefocusV", 9, "inf")),
        r"row 3 of the particles block: rlnDefocusV is '?nan'?, not a number\. .* and 1 more like it",
    ),
    "optics value": (lambda t: t.edit(" 300.000000 ", " high "), "row 1 of the optics block: rlnVoltage is 'high'"),
    "missing defocus": (
        lambda t: t.edit("_rlnDefocusU", "_rlnDefocusX"),
        "the particles block has no column rlnDefocusU. Estimate the CTF",
    ),
    "missing voltage": (
        lambda t: t.edit("_rlnVoltage", "_rlnVolts"),
        "the optics block has no column rlnVoltage. Add rlnVoltage to the table",
    ),
    "missing pixel size": (
        lambda t: t.edit("_rlnImagePixelSize", "_rlnPixels"),
        "the optics block has no column rlnImagePixelSize. Add",
    ),
    "zero pixel size": (lambda t: t.edit(" 6.000000 ", " 0.0 "), "pixel sizes of 0 Å. Give .* one positive pixel size"),
    "missing image name": (lambda t: t.edit("_rlnImageName", "_rlnImages"), "no column rlnImageName. Add rlnImageName"),
    "missing group": (lambda t: t.edit("_rlnOpticsGroup ", "_rlnGroup "), "the particles block has no .* rlnOpticsGroup"),
    "unknown group": (
        lambda t: t.column("rlnOpticsGroup", 6, "4"),
        "particle 7 is in optics group 4, which the optics block lacks. Add the group",
    ),
    "image zero": (
        lambda t: t.column("rlnImageName", 1, "000000@particles.mrcs"),
        "row 2: rlnImageName counts images from 1. Write the first",
    ),
    "no optics": (
        lambda t: t.edit("data_optics", "data_optic"),
        "has no optics block. Convert it with relion_convert_star to RELION 3.1 or later",
    ),
    "no particles": (lambda t: t.edit("data_particles", "data_micrographs"), "has no particles block. Give a RELION 3.1"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT.keys())
def test_what_is_wrong_is_named_with_its_remedy(table, spoil, message):
    spoil(table)
    with pytest.raises(InputError, match=message) as error:
        table.read()
    assert str(error.value).startswith(f"{table.star}: ")
    assert "\n" not in str(error.value)


def test_a_missing_table_is_named():
    with pytest.raises(InputError, match=r"^gone\.star: no such file\. Check the path"):
        read_star("gone.star")


def test_a_table_without_rows_is_refused(table):
    lines = table.star.read_text().splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("_rln"))
    table.star.write_text("\n".join(lines[: last + 1]) + "\n")
    with pytest.raises(InputError, match="holds no particles"):
        table.read()


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x00\xff\xfe\x80" * 50, b"data_particles\n\nloop_\n_a\n_b\n1 2 3\n"])
def test_what_is_no_table_is_refused_in_one_line(table, content):
    table.star.write_bytes(content)
    with pytest.raises(InputError) as error:
        table.read()
    assert str(error.value).startswith(f"{table.star}: ")
    assert "\n" not in str(error.value)


def test_mixed_pixel_sizes_are_refused_unless_unused(table):
    lines = table.star.read_text().splitlines()
    where = next(i for i, line in enumerate(lines) if line.startswith("1 "))
    second = lines[where].replace("1 ", "2 ", 1).replace(" 6.000000 ", " 3.000000 ")
    table.star.write_text("\n".join([*lines[: where + 1], second, *lines[where + 1 :]]) + "\n")
    assert table.read().pixel_size == 6.0
    table.column("rlnOpticsGroup", 0, "2")
    with pytest.raises(InputError, match="pixel sizes of 3, 6 Å"):
        table.read()


def test_a_failed_write_leaves_no_trace(table, monkeypatch):
    before = table.star.read_text()
    files = set(table.folder.iterdir())

    def fail(blocks, path, **_):
        path.write_text("half a ta")
        raise OSError("disk full")

    monkeypatch.setattr("cryospin.formats.star.starfile.write", fail)
    with pytest.raises(OSError, match="disk full"):
        write_star(table.star, table.read().source.blocks)
    assert table.star.read_text() == before
    assert set(table.folder.iterdir()) == files
