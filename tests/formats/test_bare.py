from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from cryospin.errors import InputError
from cryospin.findings import Findings
from cryospin.formats.read import read_table
from cryospin.formats.stack import read_images, write_stack
from cryospin.formats.star import read_star


@pytest.fixture
def stacks(tmp_path) -> list[Path]:
    """Two stacks in folders of their own, of two images and one."""
    paths = [tmp_path / "x" / "one.mrcs", tmp_path / "y" / "two.mrcs"]
    for value, (path, count) in enumerate(zip(paths, (2, 1), strict=True)):
        path.parent.mkdir()
        write_stack(path, torch.full((count, 16, 16), float(value)) + torch.arange(count)[:, None, None] / 10, 2.0)
    return paths


@pytest.fixture
def three(tmp_path) -> Path:
    write_stack(tmp_path / "three.mrcs", torch.arange(3.0)[:, None, None].expand(3, 16, 16), 2.0)
    return tmp_path / "three.mrcs"


def pixels(table) -> list[float]:
    """The first pixel of each image."""
    where = table.locate(None, findings := Findings())
    assert not findings
    return [round(float(v), 6) for v in read_images(where, np.arange(len(table)))[:, 0, 0]]


def test_a_stack_takes_its_ctf_from_a_star_row_by_row(three, relion31):
    ctf = relion31()
    got = read_table(three, ctf)
    assert not got.findings
    assert (len(got), got.path) == (3, three)
    assert got.format == "MRC stack with CTF from t.star (RELION 3.1 STAR)"
    assert got.optics.defocus_u.tolist() == [10000.0, 20000.0, 15000.0]
    assert got.optics.of_group("box").tolist() == [16] * 3
    assert pixels(got) == [0.0, 1.0, 2.0]
    torch.testing.assert_close(got.poses.rotation, read_star(ctf).poses.rotation)


def test_a_stack_takes_its_ctf_from_a_cs(three, cs):
    got = read_table(three, cs(count=3))
    assert got.format == "MRC stack with CTF from p.cs (cryoSPARC CS)"
    assert got.optics.defocus_u.tolist() == [12000.0, 13500.0, 15000.0]
    assert got.sign.tolist() == [-1.0] * 3
    assert pixels(got) == [0.0, 1.0, 2.0]


def test_a_ctf_table_need_not_name_images(three, relion31):
    for names in (None, ["0@x", "y", "-3@z"]):
        got = read_table(three, relion31({"rlnImageName": names}))
        assert not got.findings
        assert pixels(got) == [0.0, 1.0, 2.0]


def test_what_is_wrong_with_the_ctf_is_kept(three, relion31):
    (finding,) = read_table(three, relion31({"rlnDefocusU": [1, "x", 2]})).findings
    assert finding.problem == "row 2 of the particles block: rlnDefocusU is 'x', not a number"


def test_a_compressed_stack_will_do(three, relion31):
    packed = three.with_suffix(".mrcs.gz")
    packed.write_bytes(gzip.compress(three.read_bytes()))
    assert pixels(read_table(packed, relion31())) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("name", ["stacks.txt", "stacks.TXT"])
def test_a_list_names_stacks_line_by_line(stacks, relion31, tmp_path, name):
    (tmp_path / name).write_text("# the second first\n\n  y/two.mrcs\nx/one.mrcs  \n")
    got = read_table(tmp_path / name, relion31())
    assert got.format == "list of stacks with CTF from t.star (RELION 3.1 STAR)"
    assert got.images.files == ("y/two.mrcs", "x/one.mrcs")
    assert got.images.stack.tolist() == [0, 1, 1]
    assert got.images.slice.tolist() == [0, 0, 1]
    assert pixels(got) == [1.0, 0.0, 0.1]


def test_stacks_of_a_list_may_lie_in_datadir(stacks, relion31, tmp_path):
    (tmp_path / "lists").mkdir()
    path = tmp_path / "lists" / "stacks.txt"
    path.write_text("elsewhere/x/one.mrcs\nelsewhere/y/two.mrcs\n")
    with pytest.raises(InputError, match=r"stacks\.txt: stack elsewhere/x/one\.mrcs not found"):
        read_table(path, relion31())
    assert len(read_table(path, relion31(), tmp_path)) == 3


def test_stacks_of_different_boxes_leave_the_box_open(stacks, relion31, tmp_path):
    write_stack(stacks[0], torch.zeros(2, 24, 24), 2.0)
    (tmp_path / "stacks.txt").write_text("x/one.mrcs\ny/two.mrcs\n")
    table = read_table(tmp_path / "stacks.txt", relion31(optics={"rlnImageSize": [24, 24]}))
    assert table.optics.of_group("box").tolist() == [0] * 3
    assert table.locate(None, Findings()).boxes.tolist() == [24, 24, 16]


@pytest.mark.parametrize("count", [2, 4])
def test_a_table_of_another_length_is_refused(three, cs, count):
    with pytest.raises(InputError, match=rf"p\.cs: has {count} rows, three\.mrcs 3 images\. Give .* one row for each image"):
        read_table(three, cs(count=count))


def test_images_alone_are_not_enough(three, tmp_path):
    (tmp_path / "stacks.txt").write_text("three.mrcs\n")
    for path in (three, tmp_path / "stacks.txt"):
        with pytest.raises(InputError, match=r"images alone do not say how they were taken\. Give --ctf FILE"):
            read_table(path)


def test_a_pickle_is_refused(three, tmp_path):
    (tmp_path / "ctf.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(InputError, match=r"ctf\.pkl: is a pickle, which could run code when it is read and is refused"):
        read_table(three, tmp_path / "ctf.pkl")


@pytest.mark.parametrize("name", ["ctf.csv", "ctf", "ctf.mrcs"])
def test_other_kinds_of_ctf_are_refused(three, name):
    with pytest.raises(InputError, match=r"unknown kind of CTF table\. Give a \.star or \.cs"):
        read_table(three, three.parent / name)


def test_a_list_of_nothing_is_refused(relion31, tmp_path):
    path = tmp_path / "stacks.txt"
    path.write_text("# nothing\n\n")
    with pytest.raises(InputError, match=r"stacks\.txt: lists no stacks\. Give one file name a line"):
        read_table(path, relion31())
    path.unlink()
    with pytest.raises(InputError, match=r"stacks\.txt: no such file"):
        read_table(path, relion31())


def test_a_list_of_garbage_is_refused(relion31, tmp_path):
    (tmp_path / "stacks.txt").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(InputError, match="not found"):
        read_table(tmp_path / "stacks.txt", relion31())


def test_a_missing_stack_is_named(relion31, tmp_path):
    with pytest.raises(InputError, match=r"gone\.mrcs not found"):
        read_table(tmp_path / "gone.mrcs", relion31())


def test_particles_are_written_as_a_relion_table(three, cs, assigned, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    table, found = read_table(three, cs(count=3)), assigned(3)
    table.source.write(out, table, found)
    assert [p.name for p in out.iterdir()] == ["particles.star"]
    again = read_star(out / "particles.star")
    assert not again.findings
    torch.testing.assert_close(again.shift, found.shift.double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(again.optics.defocus_u, table.optics.defocus_u)
    assert pixels(again) == [0.0, 1.0, 2.0]
    some = table.take(np.array([2]))
    some.source.write(out, some, assigned(1))
    assert pixels(read_star(out / "particles.star")) == [2.0]
