from __future__ import annotations

import numpy as np
import pytest
import torch

from cryospin.errors import InputError
from cryospin.formats.read import read_poses, read_table


def test_tables_are_told_apart_by_their_names(relion31, relion30, cs):
    assert read_table(relion31()).format == "RELION 3.1 STAR"
    assert read_table(relion30()).format == "RELION 3.0 STAR"
    assert read_table(cs()).format == "cryoSPARC CS"


def test_capitals_do_not_matter(relion31, cs, tmp_path):
    relion31().rename(tmp_path / "T.STAR")
    cs().rename(tmp_path / "P.CS")
    assert len(read_table(tmp_path / "T.STAR")) == 3
    assert len(read_table(tmp_path / "P.CS")) == 4


def test_a_passthrough_file_comes_with_a_cs(cs):
    own = cs({"ctf/df1_A": None}, "own.cs")
    with pytest.raises(InputError, match=r"own\.cs: lacks the field ctf/df1_A"):
        read_table(own)
    assert read_table(own, cs()).optics.defocus_u.tolist() == [12000.0, 13000.0, 14000.0, 15000.0]


def test_a_star_has_its_own_ctf(relion31, cs):
    with pytest.raises(InputError, match=r"t\.star: a \.star table has its own CTF columns\. Drop --ctf"):
        read_table(relion31(), cs())


@pytest.mark.parametrize("name", ["particles.csv", "particles", "particles.json", "map.map", ".star"])
def test_other_kinds_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"unknown kind of particle table\. Give a RELION \.star, a cryoSPARC \.cs, or"):
        read_table(tmp_path / name)


@pytest.mark.parametrize("name", ["gone.star", "gone.cs"])
def test_a_missing_table_is_named(tmp_path, name):
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / name)


@pytest.mark.parametrize(("name", "other"), [("t.star", "t.cs"), ("p.cs", "p.star")])
def test_a_file_of_another_kind_than_its_name_is_refused(relion31, cs, tmp_path, name, other):
    relion31(), cs()
    (tmp_path / name).rename(tmp_path / other)
    with pytest.raises(InputError, match=r"not a (STAR|cryoSPARC \.cs) file"):
        read_table(tmp_path / other)


@pytest.mark.parametrize("kind", ["relion31", "relion30", "cs"])
def test_poses_alone_are_those_of_the_table(request, kind):
    path = request.getfixturevalue(kind)()
    poses, whole = read_poses(path), read_table(path).poses
    assert torch.equal(poses.rotation, whole.rotation)
    assert torch.equal(poses.shift, whole.shift)
    assert poses.pixel_size == whole.pixel_size


def test_poses_of_a_cs_need_no_images_and_no_ctf(cs):
    whole, others = read_poses(cs()), [n for n in np.load(cs()).dtype.names if not n.startswith("alignments3D/")]
    bare = read_poses(cs(dict.fromkeys(others), "bare.cs"))
    assert torch.equal(bare.rotation, whole.rotation)
    assert torch.equal(bare.shift, whole.shift)


@pytest.mark.parametrize("field", ["alignments3D/pose", "alignments3D/shift"])
def test_a_cs_without_poses_is_refused_where_poses_are_asked_for(cs, field):
    with pytest.raises(InputError, match=rf"p\.cs: lacks the field {field}\. Give a table of particles that were aligned"):
        read_poses(cs({field: None}))


def test_broken_poses_of_a_cs_are_refused(cs):
    shift = np.zeros((4, 2), np.float32)
    shift[2, 1] = np.nan
    with pytest.raises(InputError, match=r"p\.cs: row 3: alignments3D/shift is not a number"):
        read_poses(cs({"alignments3D/shift": shift}))
    with pytest.raises(InputError, match="holds no particles"):
        read_poses(cs({}, count=0))
