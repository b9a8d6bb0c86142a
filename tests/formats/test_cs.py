"""cryoSPARC's tables are read."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from cs_tables import NO_ALIGNMENT, floats, split_in_two
from scipy.spatial.transform import Rotation

from cryospin.errors import InputError
from cryospin.findings import Severity
from cryospin.formats.cs import read_cs, read_rows
from cryospin.formats.plausibility import check_table


def test_a_cryosparc_table_is_read(cs):
    path = cs()
    rows, got = np.load(path), read_cs(path)
    assert not got.findings
    assert (len(got), got.format, got.pixel_size) == (4, "cryoSPARC CS", 1.5)
    assert got.images.files == ("J3/extract/a.mrc", "J3/extract/b.mrc")
    assert got.images.stack.tolist() == [1, 0, 1, 0]
    assert got.images.slice.tolist() == [0, 0, 1, 1]
    o = got.optics
    assert o.group.tolist() == [0] * 4
    (group,) = o.groups
    assert (group.voltage, group.spherical_aberration, group.amplitude_contrast) == (300.0, 2.7, 0.1)
    assert (group.pixel_size, group.box, group.beam_tilt) == (1.5, 64, (0.0, 0.0))
    assert o.defocus_u.tolist() == [12000.0, 13000.0, 14000.0, 15000.0]
    np.testing.assert_array_equal(o.defocus_v, rows["ctf/df2_A"])
    np.testing.assert_allclose(o.defocus_angle, np.rad2deg([-1, -1 / 3, 1 / 3, 1]), rtol=1e-6)
    assert (o.phase_shift.tolist(), o.b_factor.tolist(), o.scale.tolist()) == ([0.0] * 4, [0.0] * 4, [1.0] * 4)
    assert got.sign.tolist() == [-1.0] * 4
    assert got.rows.tolist() == [0, 1, 2, 3]


def test_poses_are_those_of_relion_after_conversion(cs):
    path = cs()
    rows, poses = np.load(path), read_cs(path).poses
    # pyem's csparc2star takes the transpose of the rotation vector's matrix for RELION's Euler matrix.
    want = Rotation.from_rotvec(rows["alignments3D/pose"].astype(float)).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(poses.rotation, want, atol=1e-12)
    np.testing.assert_allclose(poses.shift, -3.0 * rows["alignments3D/shift"], rtol=1e-6)
    assert poses.pixel_size == 1.5


def test_a_quarter_turn_about_x_is_written_out(cs):
    got = read_cs(cs({"alignments3D/pose": floats(*[[np.pi / 2, 0, 0]] * 4)})).poses.rotation[0]
    want = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def test_2d_alignments_give_shifts_but_no_poses(cs):
    shift = floats([1, -2], [0, 4], [3, 3], [-1, 0])
    two = {"alignments2D/shift": shift, "alignments2D/pose": floats(0, 1, 2, 3), "alignments2D/psize_A": floats(*[2.0] * 4)}
    got = read_cs(cs(NO_ALIGNMENT | two))
    assert got.poses is None
    assert got.shift.tolist() == (-2 * shift).tolist()
    both = read_cs(cs(two))
    np.testing.assert_array_equal(both.shift, both.poses.shift)


@pytest.mark.parametrize("size", [None, 0.0])
def test_shifts_without_a_pixel_size_are_in_the_images_pixels(cs, size):
    size = None if size is None else floats(*[size] * 4)
    got = read_cs(cs({"alignments3D/psize_A": size, "alignments3D/shift": floats(*[[2, -4]] * 4)}))
    assert got.shift.tolist() == [[-3.0, 6.0]] * 4


def test_imported_particles_have_neither_shifts_nor_poses(cs):
    got = read_cs(cs(NO_ALIGNMENT))
    assert got.poses is None
    assert got.shift is None


def test_paths_relative_to_the_project_lose_their_mark(cs):
    names = np.array([b">J1/imported/a.mrcs", b">/J1/b.mrcs", b"/data/c.mrcs", b"d.mrcs"])
    got = read_cs(cs({"blob/path": names})).images
    assert [got.files[i] for i in got.stack] == ["J1/imported/a.mrcs", "J1/b.mrcs", "/data/c.mrcs", "d.mrcs"]


def test_paths_may_be_unicode(cs):
    got = read_cs(cs({"blob/path": np.array(["ä.mrc", "b.mrc", "ä.mrc", "b.mrc"])})).images
    assert [got.files[i] for i in got.stack] == ["ä.mrc", "b.mrc", "ä.mrc", "b.mrc"]


def test_the_sign_of_the_contrast_is_kept(cs):
    assert read_cs(cs({"blob/sign": floats(1, -1, 1, -1)})).sign.tolist() == [1, -1, 1, -1]
    assert read_cs(cs({"blob/sign": None})).sign is None


def test_particles_taken_alike_are_one_optics_group_whatever_their_exposure_group(cs):
    changes = {"ctf/accel_kv": floats(300, 200, 300, 200), "ctf/exp_group_id": np.arange(4, dtype=np.uint32)}
    o = read_cs(cs(changes)).optics
    assert o.of_group("voltage").tolist() == [300.0, 200.0, 300.0, 200.0]
    assert len(o.groups) == 2


def test_beam_tilt_comes_out_of_the_displacement_that_it_causes(cs):
    tilt = 2.7e7 * np.sin([[0.5e-3, -1e-3]] * 4)
    group = read_cs(cs({"ctf/tilt_A": tilt.astype(np.float32)})).optics.groups[0]
    assert group.beam_tilt == pytest.approx((0.5, -1.0), rel=1e-5)
    assert read_cs(cs({"ctf/tilt_A": None})).optics.groups[0].beam_tilt == (0.0, 0.0)


def test_beam_tilt_without_aberration_is_none(cs):
    tilt, none = np.ones((4, 2), np.float32), np.zeros(4, np.float32)
    assert read_cs(cs({"ctf/tilt_A": 0 * tilt, "ctf/cs_mm": none})).optics.groups[0].beam_tilt == (0.0, 0.0)


def test_phase_shift_scale_and_b_factor_are_read(cs):
    changes = {
        "ctf/phase_shift_rad": floats(0, np.pi / 2, np.pi, 0),
        "ctf/scale": floats(1, 0.5, 1, 1),
        "ctf/bfactor": floats(0, 0, 30, 0),
    }
    o = read_cs(cs(changes)).optics
    np.testing.assert_allclose(o.phase_shift, [0, 90, 180, 0], rtol=1e-6)
    assert o.scale.tolist() == [1.0, 0.5, 1.0, 1.0]
    assert o.b_factor.tolist() == [0.0, 0.0, 30.0, 0.0]
    bare = read_cs(cs(dict.fromkeys(changes))).optics
    assert (bare.phase_shift.tolist(), bare.scale.tolist(), bare.b_factor.tolist()) == ([0.0] * 4, [1.0] * 4, [0.0] * 4)
    assert read_cs(cs({"ctf/scale": floats(0, 0, 0, 0)})).optics.scale.tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("field", "size", "word"),
    [
        ("ctf/trefoil_A", 2, "trefoil"),
        ("ctf/tetra_A", 4, "tetrafoil"),
        ("ctf/anisomag", 4, "anisotropic magnification"),
    ],
)
def test_aberrations_that_are_not_undone_are_warned_of(cs, field, size, word):
    assert not read_cs(cs({field: np.zeros((4, size), np.float32)})).findings
    (finding,) = read_cs(cs({field: np.eye(4, size, dtype=np.float32)})).findings
    assert finding.severity is Severity.warning
    assert finding.problem == f"{field} ({word}) is not 0 and is not corrected for"


@pytest.mark.parametrize("field", ["blob/path", "blob/idx", "blob/psize_A"])
def test_a_table_without_images_is_refused(cs, field):
    with pytest.raises(InputError, match=f"lacks the field {field}. Give the particles of an import or extraction job"):
        read_cs(cs({field: None}))


@pytest.mark.parametrize("name", ["accel_kv", "cs_mm", "amp_contrast", "df1_A", "df2_A", "df_angle_rad"])
def test_a_table_without_ctf_asks_for_its_passthrough_file(cs, name):
    with pytest.raises(InputError, match=f"lacks the field ctf/{name}. Give the job's passthrough file with --ctf"):
        read_cs(cs({f"ctf/{name}": None}))


@pytest.mark.parametrize(
    "field", ["ctf/accel_kv", "ctf/df1_A", "ctf/df_angle_rad", "blob/psize_A", "alignments3D/pose", "alignments3D/shift"]
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_named(cs, field, value):
    values = np.load(cs())[field]
    values[2] = value
    findings = read_cs(cs({field: values})).findings
    assert findings[0].problem == f"row 3: {field} is not a number"
    with pytest.raises(InputError, match="Remove the particle"):
        findings.refuse_errors()


def test_a_field_of_words_is_named(cs):
    assert (
        read_cs(cs({"ctf/df1_A": np.array([b"1", b"deep", b"", b"2"])})).findings[0].problem == "ctf/df1_A holds no numbers"
    )


@pytest.mark.parametrize("size", [0.0, -1.5, 1e7])
def test_an_impossible_pixel_size_is_named(cs, size):
    findings = read_cs(cs({"blob/psize_A": floats(1.5, 1.5, size, size)})).findings
    assert findings[0].problem == "row 3: the pixel size is not positive"
    assert findings[0].count == 2


@pytest.mark.parametrize(("field", "shape", "message"), [("shift", (4, 1), "two numbers"), ("pose", (4,), "three numbers")])
def test_alignments_of_another_shape_are_refused(cs, field, shape, message):
    with pytest.raises(InputError, match=f"alignments3D/{field} does not hold {message}"):
        read_cs(cs({f"alignments3D/{field}": np.zeros(shape, np.float32)}))


def test_what_is_wrong_is_told_by_the_names_that_cryosparc_has_for_it(cs):
    table = read_cs(cs({"ctf/accel_kv": floats(0.3, 0.3, 0.3, 0.3), "ctf/scale": floats(1, 1, -1, 1)}))
    check_table(table, None)
    told = [str(finding) for finding in table.findings]
    assert any("the voltage is 0.3 kV. Correct ctf/accel_kv" in line for line in told)
    assert any("row 3: the CTF scale is not positive. Correct ctf/scale" in line for line in told)
    assert not any("rln" in line for line in told)
    assert {f.column for f in table.findings if f.column} == {"ctf/accel_kv", "ctf/scale"}
    later = table.findings.within(np.array([2]))
    assert any("row 3: the CTF scale" in str(finding) for finding in later)


def test_a_table_without_particles_is_refused(cs):
    with pytest.raises(InputError, match=r"the table holds no particles\. Check how it was selected"):
        read_cs(cs(count=0))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 0, 2, 1], [5, 2, 0, 4, 1, 3]])
def test_a_passthrough_file_is_joined_by_uid(cs, order):
    own, passthrough, whole = split_in_two(cs, order)
    got = read_cs(own, passthrough)
    np.testing.assert_array_equal(got.optics.defocus_u, whole["ctf/df1_A"])
    np.testing.assert_array_equal(got.optics.defocus_v, whole["ctf/df2_A"])
    np.testing.assert_array_equal(got.images.slice, whole["blob/idx"])
    assert len(got) == 4


def test_a_passthrough_file_of_other_particles_is_refused(cs):
    own, passthrough, _ = split_in_two(cs, [0, 1, 2, 5])
    with pytest.raises(InputError, match=r"passthrough\.cs: lacks particles of own\.cs\. Give .* of the same job"):
        read_cs(own, passthrough)
    empty = cs(name="empty.cs", count=0)
    with pytest.raises(InputError, match=r"empty\.cs: lacks particles of own\.cs"):
        read_cs(own, empty)


def test_files_without_uids_cannot_be_joined(cs):
    own, passthrough = cs({"uid": None}, "own.cs"), cs(name="passthrough.cs")
    for a, b in ((own, passthrough), (passthrough, own)):
        with pytest.raises(InputError, match=r"own\.cs: lacks the field uid\. Give files of one job"):
            read_cs(a, b)


def test_the_compressed_format_is_explained(tmp_path):
    path = tmp_path / "p.cs"
    path.write_bytes(b"\x95CSDAT" + bytes(200))
    with pytest.raises(InputError, match=r"cryoSPARC's compressed format \(version 5\).*Export .*cryosparc-tools"):
        read_cs(path)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_refused_unopened(tmp_path):
    trap = tmp_path / "trap"
    rows = np.zeros(2, [("uid", "<u8"), ("blob/path", "O")])
    rows["blob/path"] = Trap(trap)
    with (tmp_path / "p.cs").open("wb") as handle:
        np.save(handle, rows, allow_pickle=True)
    with pytest.raises(InputError, match=r"p\.cs: holds Python objects, which could run code .*refused"):
        read_cs(tmp_path / "p.cs")
    (tmp_path / "q.cs").write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(InputError, match=r"q\.cs: not a cryoSPARC \.cs file"):
        read_cs(tmp_path / "q.cs")
    assert not trap.exists()
    np.load(tmp_path / "p.cs", allow_pickle=True)
    assert trap.exists()


@pytest.mark.parametrize(("cut", "held"), [(1, 3), (200, 2), (10**6, 0)])
def test_a_table_cut_short_says_how_many_it_holds(cs, cut, held):
    path = cs()
    content, size = path.read_bytes(), np.load(path).nbytes
    path.write_bytes(content[: max(len(content) - cut, len(content) - size)])
    with pytest.raises(InputError, match=rf"p\.cs: cut short: it promises 4 particles and holds {held}\. Copy"):
        read_cs(path)


def test_a_header_cut_short_is_refused(cs):
    path = cs()
    for length in (6, 8, 9, 10, 50):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(InputError, match=r"p\.cs: its header cannot be read"):
            read_cs(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"data_particles\n", b"\x93NUM", bytes(100)])
def test_what_is_no_cs_file_is_refused(tmp_path, content):
    (tmp_path / "p.cs").write_bytes(content)
    with pytest.raises(InputError, match=r"p\.cs: not a cryoSPARC \.cs file"):
        read_cs(tmp_path / "p.cs")


@pytest.mark.parametrize("array", [np.zeros(5), np.zeros((2, 2), [("uid", "<u8")]), np.zeros((), [("uid", "<u8")])])
def test_arrays_that_are_no_tables_are_refused(tmp_path, array):
    with (tmp_path / "p.cs").open("wb") as handle:
        np.save(handle, array)
    with pytest.raises(InputError, match="holds no table"):
        read_cs(tmp_path / "p.cs")


def test_a_missing_table_is_named():
    with pytest.raises(InputError, match=r"^gone\.cs: no such file"):
        read_cs("gone.cs")


def test_rows_are_read_as_numpy_reads_them(cs):
    path = cs()
    np.testing.assert_array_equal(read_rows(path), np.load(path, allow_pickle=False))
