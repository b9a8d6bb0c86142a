from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryospin.errors import InputError
from cryospin.findings import Severity
from cryospin.formats.star import read_poses, read_star

OPTICS_LABELS = ("rlnOpticsGroup", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize")


def relion_matrix(rot, tilt, psi) -> np.ndarray:
    """RELION's Euler matrix, from its angles in degrees."""
    return Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).as_matrix().T


def test_a_relion_table_is_read(star):
    got = read_star(star)
    assert not got.findings
    assert (len(got), got.format, got.path) == (2, "RELION 3.1 STAR", star)
    assert got.pixel_size == 6.0
    assert got.images.files == ("Extract/a.mrcs",)
    assert got.images.stack.tolist() == [0, 0]
    assert got.images.slice.tolist() == [2, 11]
    o = got.optics
    assert [g.name for g in o.groups] == ["opticsGroup7", "opticsGroup3"]
    assert o.group.tolist() == [1, 0]
    assert o.of_group("voltage").tolist() == [300.0, 200.0]
    assert o.of_group("spherical_aberration").tolist() == [2.7, 0.01]
    assert o.of_group("amplitude_contrast").tolist() == [0.1, 0.07]
    assert o.of_group("box").tolist() == [80, 64]
    assert o.defocus_u.tolist() == [10000.0, 20000.0]
    assert o.defocus_v.tolist() == [9500.0, 19000.0]
    assert o.defocus_angle.tolist() == [12.5, -45.0]
    assert o.phase_shift.tolist() == [0.0, 90.0]
    # RELION's origin is what to add to bring the particle to the centre: minus its displacement.
    assert got.shift.tolist() == got.poses.shift.tolist() == [[-6.0, 12.0], [0.0, -3.0]]
    want = np.stack([relion_matrix(10, 20, 30), relion_matrix(-10, 120, -130)])
    np.testing.assert_allclose(got.poses.rotation, want, atol=1e-12)
    assert got.poses.pixel_size == 6.0
    assert got.sign is None
    assert got.rows.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("angles", "matrix"),
    [
        ((0, 0, 0), [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ((90, 0, 0), [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
        ((0, 90, 0), [[0, 0, -1], [0, 1, 0], [1, 0, 0]]),
        ((0, 0, 90), [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
        ((90, 90, 0), [[0, 0, -1], [-1, 0, 0], [0, 1, 0]]),
        ((0, 90, 90), [[0, 1, 0], [0, 0, 1], [1, 0, 0]]),
    ],
)
def test_quarter_turns_are_relions(relion31, angles, matrix):
    columns = dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), ([a] * 3 for a in angles), strict=True))
    got = read_poses(relion31(columns)).rotation[1]
    torch.testing.assert_close(got, torch.tensor(matrix, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("comment", "format"),
    [
        ("# version 30001", "RELION 3.1 STAR"),
        ("# version 40001", "RELION 4 STAR"),
        ("# version 50001", "RELION 5 STAR"),
        ("#   version 30001 ", "RELION 3.1 STAR"),
        ("# Created by starfile", "RELION 3.1 or later STAR"),
        ("", "RELION 3.1 or later STAR"),
    ],
)
def test_what_wrote_a_table_is_told_by_its_comments(star, comment, format):
    star.write_text(star.read_text().replace("# version 30001", comment))
    assert read_star(star).format == format


def test_blocks_come_in_any_order(star):
    text = star.read_text()
    start, stop = text.index("data_optics"), text.index("data_particles")
    star.write_text(text[stop:] + "\n" + text[start:stop])
    assert read_star(star).optics.of_group("voltage").tolist() == [300.0, 200.0]


@pytest.mark.parametrize("block", ["", "images", "model_class_1", "particles"])
def test_relion_30_keeps_everything_in_one_block_of_any_name(relion30, block):
    got = read_star(relion30(block=block))
    assert not got.findings
    assert got.format == "RELION 3.0 STAR"
    assert len(got) == 3
    assert len(got.optics.groups) == 1
    assert got.pixel_size == 3.5
    assert got.optics.of_group("voltage").tolist() == [300.0] * 3
    assert got.optics.defocus_u.tolist() == [10000.0, 20000.0, 15000.0]
    assert got.images.files == ("a.mrcs", "b.mrcs")


def test_origins_in_pixels_become_angstrom(relion30):
    got = read_star(relion30())
    assert got.poses.shift.tolist() == [[-21.0, 42.0], [0.0, -10.5], [3.5, -7.0]]
    small = read_star(relion30({"rlnMagnification": [40000.0, 80000.0, 40000.0]}))
    assert small.poses.shift.tolist() == [[-21.0, 42.0], [0.0, -5.25], [3.5, -7.0]]
    assert small.pixel_size == small.poses.pixel_size == 3.5


def test_origins_in_angstrom_win_over_those_in_pixels(relion30):
    columns = {"rlnOriginXAngst": [1.0, 2.0, 3.0], "rlnOriginYAngst": [4.0, 5.0, 6.0]}
    assert read_star(relion30(columns)).shift.tolist() == [[-1.0, -4.0], [-2.0, -5.0], [-3.0, -6.0]]


def test_origins_may_be_missing(relion31):
    no_origins = {"rlnOriginXAngst": None, "rlnOriginYAngst": None}
    got = read_star(relion31(no_origins))
    assert got.shift is None
    assert got.poses.shift.tolist() == [[0.0, 0.0]] * 3
    half = read_star(relion31({"rlnOriginXAngst": None}))
    assert half.shift.tolist() == [[0.0, 12.0], [0.0, -3.0], [0.0, -2.0]]


def test_without_angles_there_are_shifts_but_no_poses(relion31):
    path = relion31({"rlnAngleRot": None})
    got = read_star(path)
    assert got.poses is None
    assert got.shift.tolist() == [[-6.0, 12.0], [0.0, -3.0], [1.0, -2.0]]
    with pytest.raises(InputError, match=r"t\.star: has no poses \(rlnAngleRot, rlnAngleTilt, rlnAnglePsi\)\. .*aligned"):
        read_poses(path)


def test_a_simulated_table_without_poses_has_none(simulated):
    table = read_star(simulated / "particles.star")
    assert table.poses is None
    assert len(table) == 12
    assert not table.findings


def test_a_shift_of_a_magnified_image_is_smaller_in_the_particle(relion31):
    optics = {f"rlnMagMat{i}": [v, one] for i, v, one in (("00", 1.25, 1), ("01", 0.5, 0), ("10", 0.0, 0), ("11", 0.8, 1))}
    got = read_star(relion31(optics=optics)).shift
    inverse_transposed = np.linalg.inv(np.array([[1.25, 0.5], [0.0, 0.8]])).T
    np.testing.assert_allclose(got[1], inverse_transposed @ [0.0, -3.0])
    assert got[0].tolist() == [-6.0, 12.0]


@pytest.mark.parametrize(
    ("name", "file", "position"),
    [
        ("1@a.mrcs", "a.mrcs", 0),
        ("000012@dir/a.mrcs", "dir/a.mrcs", 11),
        ("a.mrc", "a.mrc", 0),
        ('"3@with blank.mrcs"', "with blank.mrcs", 2),
        ("4@m@5.mrcs", "m@5.mrcs", 3),
    ],
)
def test_image_names_have_a_number_or_none(relion31, name, file, position):
    got = read_star(relion31({"rlnImageName": ["7@z.mrcs", name, "8@z.mrcs"]}))
    assert not got.findings
    assert got.images.files == ("z.mrcs", file)
    assert got.images.stack.tolist() == [0, 1, 0]
    assert got.images.slice.tolist() == [6, position, 7]


@pytest.mark.parametrize(
    "name", ["0@a.mrcs", "000000@a.mrcs", "-1@a.mrcs", "@a.mrcs", "1.5@a.mrcs", "9" * 400 + "@a", "²@a.mrcs"]
)
def test_an_image_number_that_is_none_is_named(relion31, name):
    (finding,) = read_star(relion31({"rlnImageName": ["1@a.mrcs", name, "2@a.mrcs"]})).findings
    assert finding.problem == "row 2: rlnImageName does not start with the number of an image, counted from 1"
    assert finding.remedy == "Write the first image of a stack as 000001@stack.mrcs"
    assert (finding.severity, finding.row, finding.column) == (Severity.error, 2, "rlnImageName")


@pytest.mark.parametrize("version", ["relion30", "relion31"])
@pytest.mark.parametrize("value", ["steep", "nan", "-inf"])
@pytest.mark.parametrize("row", [0, 2])
def test_an_angle_or_origin_that_is_no_number_is_named(request, version, value, row):
    write = request.getfixturevalue(version)
    for label in ("rlnAngleTilt", "rlnOriginXAngst"):
        values = ["0"] * 3
        values[row] = value
        findings = read_star(write({label: values})).findings
        assert findings[0].problem == f"row {row + 1} of the particles block: {label} is {value!r}, not a number"
        with pytest.raises(InputError, match=r"not a number\. Correct or remove the row"):
            findings.refuse_errors()


def test_a_table_without_image_names_says_so(relion31):
    (finding,) = read_star(relion31({"rlnImageName": None})).findings
    assert finding.problem == "the particles block has no column rlnImageName"
    assert finding.remedy == "Add rlnImageName to the table"


def test_poses_with_errors_are_refused_all_at_once(relion31):
    path = relion31({"rlnAngleTilt": ["x", "0", "0"], "rlnOriginXAngst": ["1", "y", "1"]})
    with pytest.raises(InputError, match=r"rlnOriginXAngst is 'y', not a number\. Correct .* lists 1 more"):
        read_poses(path)


SPOILT = {
    "angle is a word": (
        lambda t: t.column("rlnAngleTilt", 4, "steep"),
        r"row 5 of the particles block: rlnAngleTilt is 'steep', not a number\. Correct or remove the row",
    ),
    "defocus": (
        lambda t: t.column("rlnDefocusU", 2, "unknown"),
        r"row 3 of the particles block: rlnDefocusU is 'unknown', not a number\. Correct or remove the row",
    ),
    "defocus NaN": (
        lambda t: (t.column("rlnDefocusV", 2, "nan"), t.column("rlnDefocusV", 9, "inf")),
        r"row 3 of the particles block: rlnDefocusV is 'nan', not a number\. Correct or remove the row; the same for 1 more",
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
        "the optics block has no column rlnImagePixelSize. Add rlnImagePixelSize, or rlnDetectorPixelSize and",
    ),
    "zero pixel size": (
        lambda t: t.edit(" 6.000000 ", " 0.0 "),
        "pixel size is 0 Å. Correct rlnImagePixelSize: .* positive",
    ),
    "missing image name": (lambda t: t.edit("_rlnImageName", "_rlnImages"), "no column rlnImageName. Add rlnImageName"),
    "missing group": (lambda t: t.edit("_rlnOpticsGroup ", "_rlnGroup "), "the optics block has no column rlnOpticsGroup"),
    "unknown group": (
        lambda t: t.column("rlnOpticsGroup", 6, "4"),
        "row 7 is in optics group 4, which the optics block lacks. Add the group",
    ),
    "image zero": (
        lambda t: t.column("rlnImageName", 1, "000000@particles.mrcs"),
        "row 2: rlnImageName does not start with the number of an image, counted from 1. Write the first",
    ),
    "no particles": (
        lambda t: (t.edit("data_particles", "data_movies"), t.edit("_rlnImageName", "_rlnMovieName")),
        "has no particles: no block has a column rlnImageName. Give a particle table, such as run_data.star",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT.keys())
def test_what_is_wrong_is_named_with_its_remedy(table, spoil, message):
    spoil(table)
    with pytest.raises(InputError, match=message) as error:
        table.read().findings.refuse_errors()
    assert str(error.value).startswith(f"{table.star}: ")
    assert "\n" not in str(error.value)


def test_a_missing_table_is_named():
    with pytest.raises(InputError, match=r"^gone\.star: no such file\. Check the path"):
        read_star("gone.star")


def test_a_table_without_rows_is_refused(table):
    lines = table.star.read_text().splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("_rln"))
    table.star.write_text("\n".join(lines[: last + 1]) + "\n")
    with pytest.raises(InputError, match=r"the table holds no particles\. Check how it was selected"):
        table.read()


def test_an_empty_optics_block_is_refused(relion31):
    with pytest.raises(InputError, match=r"the optics block is empty\. Copy its rows"):
        read_star(relion31(optics={label: [] for label in ("rlnOpticsGroupName", *OPTICS_LABELS)}))


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x00\xff\xfe\x80" * 50, b"data_particles\n\nloop_\n_a\n_b\n1 2 3\n"])
def test_what_is_no_table_is_refused_in_one_line(table, content):
    table.star.write_bytes(content)
    with pytest.raises(InputError) as error:
        table.read().findings.refuse_errors()
    assert str(error.value).startswith(f"{table.star}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", ["rlnTomoName", "rlnTomoParticleName"])
def test_subtomograms_are_refused(relion31, label):
    with pytest.raises(InputError, match=r"is a table of subtomograms, which are 3D\. cryospin reconstructs from 2D images"):
        read_star(relion31({label: ["TS_01", "TS_01", "TS_02"]}))


def test_poses_can_be_read_without_the_images(table):
    table.stack.unlink()
    torch.testing.assert_close(read_poses(table.star).rotation.det(), torch.ones(12, dtype=torch.float64))


@pytest.mark.parametrize(
    "without", [dict.fromkeys(("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")), {"rlnImageName": None}]
)
def test_poses_can_be_read_without_ctf_and_image_names(relion31, without):
    there = read_poses(relion31())
    assert torch.equal(read_poses(relion31(without)).rotation, there.rotation)


def test_poses_without_a_pixel_size_are_refused(relion31):
    with pytest.raises(InputError, match="rlnImagePixelSize"):
        read_poses(relion31(optics={"rlnImagePixelSize": None}))


def test_a_second_block_of_particles_is_told_of(relion31):
    path = relion31()
    text = path.read_text()
    path.write_text(text + text[text.index("data_particles") :])
    table = read_star(path)
    assert len(table) == 3
    assert [f.problem for f in table.findings] == ["there are several blocks data_particles, and only the first is used"]
