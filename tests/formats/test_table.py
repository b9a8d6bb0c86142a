from __future__ import annotations

import numpy as np
import pytest
import torch

from cryospin.findings import Findings, Severity
from cryospin.formats.cs import read_cs
from cryospin.formats.stack import read_images, write_stack
from cryospin.formats.star import read_star


def test_particles_that_are_taken_keep_what_is_theirs(cs):
    table = read_cs(cs({"ctf/accel_kv": np.array([300, 200, 300, 200], np.float32)}))
    rows = np.array([3, 0])
    some = table.take(rows)
    assert len(some) == 2
    assert some.rows.tolist() == [3, 0]
    assert some.images.slice.tolist() == table.images.slice[rows].tolist()
    assert [some.images.files[i] for i in some.images.stack] == ["J3/extract/a.mrc", "J3/extract/b.mrc"]
    assert some.optics.of_group("voltage").tolist() == [200.0, 300.0]
    for field in ("rotation", "shift"):
        assert torch.equal(getattr(some.poses, field), getattr(table.poses, field)[[3, 0]])
    assert torch.equal(some.shift, table.shift[[3, 0]])
    assert torch.equal(some.sign, table.sign[[3, 0]])


def test_findings_about_taken_particles_name_rows_of_the_file(relion31, located):
    table = read_star(relion31({"rlnImageName": ["1@a.mrcs", "2@a.mrcs", "2@b.mrcs"]}))
    some = table.take(np.array([0, 2]))
    some.locate(None, some.findings)
    assert [f.problem for f in some.findings] == ["row 3 asks for image 2 of b.mrcs, which holds 1"]
    assert not table.findings


def test_what_reading_found_stays_with_the_particles_that_are_taken(relion31):
    table = read_star(relion31(optics={"rlnAmplitudeContrast": None}))
    assert [f.column for f in table.take(np.array([1])).findings] == ["rlnAmplitudeContrast"]


def test_what_a_table_lacks_is_still_lacking_when_particles_are_taken(relion31):
    table = read_star(relion31({"rlnAngleRot": None, "rlnOriginXAngst": None, "rlnOriginYAngst": None}))
    some = table.take(np.array([1]))
    assert (some.poses, some.shift, some.sign) == (None, None, None)


def test_the_pixel_size_is_the_largest_of_those_in_use(relion31):
    table = read_star(relion31())
    assert table.pixel_size == 3.0
    assert table.take(np.array([0, 2])).pixel_size == 1.5


def test_unused_groups_do_not_count(relion31):
    assert read_star(relion31({"rlnOpticsGroup": [3, 3, 3]})).pixel_size == 1.5


@pytest.fixture
def located(relion31, tmp_path):
    """The table and its two stacks, of two images and one."""
    for name, count in (("a", 2), ("b", 1)):
        write_stack(tmp_path / f"{name}.mrcs", torch.full((count, 16, 16), ord(name)).float(), 1.5)
    return read_star(relion31())


def test_images_are_located(located):
    where = located.locate(None, findings := Findings())
    assert not findings
    assert [s.path.name for s in where.stacks] == ["a.mrcs", "b.mrcs"]
    assert read_images(where, np.arange(3))[:, 0, 0].tolist() == [97.0, 97.0, 98.0]


def test_stacks_that_no_taken_particle_is_in_may_be_missing(located, tmp_path):
    (tmp_path / "a.mrcs").unlink()
    where = located.take(np.array([2])).locate(None, findings := Findings())
    assert not findings
    assert read_images(where, np.arange(1))[0, 0, 0] == 98.0


def test_stacks_are_found_under_datadir(located, tmp_path):
    other = tmp_path / "disk"
    other.mkdir()
    for name in ("a.mrcs", "b.mrcs"):
        (tmp_path / name).rename(other / name)
    assert located.locate(None, Findings()) is None
    where = located.locate(other, Findings())
    assert [s.path for s in where.stacks] == [other / "a.mrcs", other / "b.mrcs"]


def test_a_namesake_in_the_current_folder_is_not_read_and_warned_of(located, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    write_stack(other / "a.mrcs", torch.zeros(2, 16, 16), 1.5)
    monkeypatch.chdir(other)
    where = located.locate(None, findings := Findings())
    assert read_images(where, np.arange(1))[0, 0, 0] == 97.0
    (finding,) = findings
    assert finding.severity == Severity.warning
    assert str(finding).startswith(f"{located.path}: stack {tmp_path / 'a.mrcs'} is read, not {other / 'a.mrcs'} in the ")


def test_missing_stacks_are_one_error(located, tmp_path):
    (tmp_path / "a.mrcs").unlink()
    where = located.locate(None, findings := Findings())
    assert where is None
    (finding,) = findings
    assert finding.problem.startswith("stack a.mrcs not found (looked in ")
    assert "more of" not in finding.problem
    assert (finding.severity, finding.names, finding.count) == (Severity.error, ("a.mrcs",), 1)
    assert finding.remedy == "Give the folder it is in with --datadir"
    (tmp_path / "b.mrcs").unlink()
    located.locate(None, findings := Findings())
    assert [(f.names, f.count) for f in findings] == [(("a.mrcs", "b.mrcs"), 2)]
    assert findings[0].problem.endswith(", and 1 more of 2 stacks are missing")


def test_a_stack_that_cannot_be_read_is_an_error(located, tmp_path):
    (tmp_path / "a.mrcs").write_bytes(b"no image")
    where = located.locate(None, findings := Findings())
    assert where is None
    (finding,) = findings
    assert finding.where == tmp_path / "a.mrcs"
    assert finding.problem == "holds 8 bytes, less than an MRC header"


def test_an_image_beyond_the_end_of_its_stack_is_an_error(relion31, located):
    table = read_star(relion31({"rlnImageName": ["1@a.mrcs", "3@a.mrcs", "2@b.mrcs"]}))
    table.locate(None, findings := Findings())
    (finding,) = findings
    assert finding.problem == "row 2 asks for image 3 of a.mrcs, which holds 2"
    assert finding.remedy.startswith("Check rlnImageName: the stack may belong to another extraction")
    assert (finding.row, finding.count) == (2, 2)


def test_an_image_before_the_start_of_its_stack_is_an_error(cs, located):
    path = cs({"blob/path": np.full(4, b"a.mrcs"), "blob/idx": np.array([0, 1, -1, 0], np.int32)})
    read_cs(path).locate(None, findings := Findings())
    assert [f.problem for f in findings] == ["row 3 asks for image 0 of a.mrcs, which holds 2"]


def test_a_table_without_images_locates_none(relion31):
    table = read_star(relion31({"rlnImageName": None}))
    assert table.locate(None, findings := Findings()) is None
    assert not findings


def test_what_is_wrong_with_rows_left_out_is_left_out(relion31):
    table = read_star(relion31({"rlnDefocusU": ["15000", "bad", "worse"]}))
    assert table.take(np.array([0])).findings == []
    (finding,) = table.take(np.array([0, 2])).findings
    assert (finding.row, finding.count) == (3, 1)
    assert finding.problem == "row 3 of the particles block: rlnDefocusU is 'worse', not a number"


def test_a_stack_that_stands_in_for_another_is_an_error(relion31, located, tmp_path):
    names = {"rlnImageName": ["1@old/job1/a.mrcs", "2@old/job2/a.mrcs", "1@b.mrcs"]}
    read_star(relion31(names)).locate(tmp_path, findings := Findings())
    (finding,) = findings
    assert finding.severity is Severity.error
    assert "stacks old/job1/a.mrcs and old/job2/a.mrcs are both taken for" in finding.problem
