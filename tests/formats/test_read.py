from __future__ import annotations

import pytest

from cryospin.errors import InputError
from cryospin.formats.read import read_table


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
