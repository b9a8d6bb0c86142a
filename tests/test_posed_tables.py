"""Tables with poses come in two: of all particles, and of those whose images resemble the map."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from cryospin.errors import InputError
from cryospin.formats.cs import CsSource
from cryospin.formats.star import read_star
from cryospin.formats.table import AssignedPoses
from cryospin.geometry.rotations import random_rotations
from cryospin.particles import ParticleSet
from cryospin.posed_tables import TABLES, write_tables
from cryospin.results import RunFolder
from cryospin.selection import Selection
from cryospin.simulation import ImagingConditions, simulate

SHORTFALL = np.array([0.0, 5.0, -1.0, 3.9, 4.0, 0.0, 9.0])


@pytest.fixture
def table(tmp_path, blobs):
    """Seven of twelve particles."""
    simulate(blobs.density(20), 7.0, 12, tmp_path / "data", ImagingConditions(), seed=1)
    index = tmp_path / "rows.txt"
    index.write_text("1 3 4 6 8 9 11")
    return ParticleSet.load(tmp_path / "data" / "truth.star", selection=Selection(index=index)).table


@pytest.fixture
def from_cryosparc(table):
    """The same as if its twelve rows had come from cryoSPARC."""
    rows = np.zeros(12, [("uid", "u8"), ("alignments3D/alpha", "f4")])
    rows["uid"], rows["alignments3D/alpha"] = np.arange(100, 112), 0.7
    return replace(table, source=CsSource(rows))


@pytest.fixture
def found(generator):
    half = np.arange(7) % 2 + 1
    return AssignedPoses(random_rotations(7, generator), torch.zeros(7, 2).double(), half, np.ones(7), np.arange(7.0))


def test_good_particles_are_the_same_rows_without_the_doubtful(table, found, tmp_path):
    write_tables(tmp_path, table, found, SHORTFALL)
    assert sorted(p.name for p in tmp_path.glob("particles*")) == ["particles.star", "particles_good.star"]
    whole, good = ((tmp_path / f"{name}.star").read_text().splitlines() for name in ("particles", "particles_good"))
    doubtful = [line for line in whole if line not in good]
    assert good == [line for line in whole if line not in doubtful]
    assert [re.search(r"(\d+)@", line)[1].lstrip("0") for line in doubtful] == ["4", "9", "12"]


def test_rows_of_good_particles_are_those_of_the_table(table, found, tmp_path):
    write_tables(tmp_path, table, found, SHORTFALL)
    assert (tmp_path / "good_rows.txt").read_text() == "1\n4\n6\n9\n"


def test_good_particles_of_a_cryosparc_table_come_in_both_kinds(from_cryosparc, found, tmp_path):
    write_tables(tmp_path, from_cryosparc, found, SHORTFALL)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name in TABLES) == sorted(TABLES)
    whole, good = np.load(tmp_path / "particles.cs"), np.load(tmp_path / "particles_good.cs")
    assert whole["uid"].tolist() == [101, 103, 104, 106, 108, 109, 111]
    np.testing.assert_array_equal(good, whole[[0, 2, 3, 5]])
    assert good["alignments3D/alpha"].tolist() == [1] * 4
    assert (read_star(tmp_path / "particles_good.star").images.slice + 1).tolist() == [2, 5, 7, 10]


def test_without_a_good_particle_there_is_a_table_of_none(table, from_cryosparc, found, tmp_path):
    for kind in (table, from_cryosparc):
        write_tables(tmp_path, kind, found, np.full(7, 9.0))
        with pytest.raises(InputError, match="holds no particles"):
            read_star(tmp_path / "particles_good.star")
    assert len(np.load(tmp_path / "particles_good.cs")) == 0


@pytest.mark.parametrize("name", ["particles_good.star", "particles_good.cs"])
def test_good_particles_of_before_are_not_written_over(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"{name}: is there already"):
        RunFolder.refuse_if_used(tmp_path)
