"""What a run found comes back in the coordinates of the table it was given."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryospin.errors import InputError
from cryospin.formats.cs import CsSource
from cryospin.formats.star import read_poses, read_star
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels.types import Poses
from cryospin.particles import ParticleSet
from cryospin.poses.modes import Modes
from cryospin.results import RunFolder
from cryospin.selection import Selection
from cryospin.simulation import ImagingConditions, simulate

MATRIX = (1.04, 0.03, -0.02, 0.96)


@pytest.fixture
def particles(tmp_path, blobs):
    """Seven of twelve particles, imaged with a distortion."""
    simulate(blobs.density(20), 7.0, 12, tmp_path / "data", ImagingConditions(magnification=MATRIX), seed=1)
    index = tmp_path / "rows.txt"
    index.write_text("1 3 4 6 8 9 11")
    return ParticleSet.load(tmp_path / "data" / "truth.star", selection=Selection(index=index))


@pytest.fixture
def result(particles, generator):
    """Poses at a box where a pixel is 8.75 Å, relative to centres that were undone on load."""
    count = len(particles)
    rotation, shift = random_rotations(count, generator), torch.randn(count, 2, generator=generator)
    poses = Poses(torch.arange(count), rotation, shift)
    return SimpleNamespace(
        particles=particles,
        poses=Modes(poses, torch.linspace(-9, 1, count, dtype=torch.float64), torch.zeros(count, dtype=torch.long)),
        maps=SimpleNamespace(pixel_size=8.75),
        centre=10 * torch.randn(count, 2, generator=generator, dtype=torch.float64),
        confidence=torch.linspace(0.2, 1, count),
        half=torch.arange(count) % 2,
    )


def test_poses_come_back_with_the_centring_and_the_distortion_undone(particles, result, tmp_path):
    RunFolder(tmp_path)._write_particles(result)
    written = read_poses(tmp_path / "particles.star")
    torch.testing.assert_close(written.rotation, result.poses.poses.rotation.double(), rtol=0, atol=1e-6)
    shift = result.poses.poses.shift.double() * 8.75 + result.centre
    torch.testing.assert_close(written.shift, shift, rtol=0, atol=1e-5)
    star = read_star(tmp_path / "particles.star").source.star
    columns = star.columns(star.block("particles"), ("rlnOriginXAngst", "rlnOriginYAngst"))
    origin = torch.tensor([[float(v) for v in column] for column in columns.values()], dtype=torch.float64).T
    matrix = torch.tensor(MATRIX, dtype=torch.float64).reshape(2, 2)
    torch.testing.assert_close(-origin, shift @ matrix, rtol=0, atol=1e-5)


def test_only_the_chosen_rows_come_back_in_their_order(result, tmp_path):
    RunFolder(tmp_path)._write_particles(result)
    table = read_star(tmp_path / "particles.star")
    assert (table.images.slice + 1).tolist() == [2, 4, 5, 7, 9, 10, 12]
    star = table.source.star
    columns = star.columns(star.block("particles"), ("rlnRandomSubset", "rlnLogLikeliContribution"))
    assert columns["rlnRandomSubset"] == ["1", "2", "1", "2", "1", "2", "1"]
    assert [float(v) for v in columns["rlnLogLikeliContribution"]] == pytest.approx(torch.linspace(9, -1, 7).tolist())


SHORTFALL = torch.tensor([0.0, 5.0, -1.0, 3.9, 4.0, 0.0, 9.0])


def cs_source() -> CsSource:
    """The table's twelve rows as if they had come from cryoSPARC."""
    rows = np.zeros(12, [("uid", "u8"), ("alignments3D/alpha", "f4")])
    rows["uid"], rows["alignments3D/alpha"] = np.arange(100, 112), 0.7
    return CsSource(rows)


def test_good_particles_are_the_same_rows_without_the_doubtful(result, tmp_path):
    result.evidence = {"shortfall": SHORTFALL}
    RunFolder(tmp_path)._write_particles(result)
    RunFolder(tmp_path)._write_good_particles(result)
    assert sorted(p.name for p in tmp_path.glob("particles*")) == ["particles.star", "particles_good.star"]
    whole, good = ((tmp_path / f"{name}.star").read_text().splitlines() for name in ("particles", "particles_good"))
    doubtful = [line for line in whole if line not in good]
    assert good == [line for line in whole if line not in doubtful]
    assert [re.search(r"(\d+)@", line)[1].lstrip("0") for line in doubtful] == ["4", "9", "12"]


def test_good_particles_of_a_cryosparc_table_come_in_both_kinds(result, particles, tmp_path):
    result.particles = replace(particles, table=replace(particles.table, source=cs_source()))
    result.evidence = {"shortfall": SHORTFALL}
    RunFolder(tmp_path)._write_particles(result)
    RunFolder(tmp_path)._write_good_particles(result)
    whole, good = np.load(tmp_path / "particles.cs"), np.load(tmp_path / "particles_good.cs")
    assert whole["uid"].tolist() == [101, 103, 104, 106, 108, 109, 111]
    np.testing.assert_array_equal(good, whole[[0, 2, 3, 5]])
    assert good["alignments3D/alpha"].tolist() == [1] * 4
    assert (read_star(tmp_path / "particles_good.star").images.slice + 1).tolist() == [2, 5, 7, 10]


def test_a_run_without_a_good_particle_has_a_table_of_none(result, particles, tmp_path):
    result.evidence = {"shortfall": torch.full((7,), 9.0)}
    for table in (particles.table, replace(particles.table, source=cs_source())):
        result.particles = replace(particles, table=table)
        RunFolder(tmp_path)._write_good_particles(result)
        with pytest.raises(InputError, match="holds no particles"):
            read_star(tmp_path / "particles_good.star")
    assert len(np.load(tmp_path / "particles_good.cs")) == 0


@pytest.mark.parametrize("name", ["particles_good.star", "particles_good.cs"])
def test_good_particles_of_before_are_not_written_over(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"{name}: is there already"):
        RunFolder.refuse_if_used(tmp_path)


def test_rows_of_good_particles_are_those_of_the_table(result, tmp_path):
    result.evidence = {"shortfall": SHORTFALL}
    RunFolder(tmp_path)._write_good_rows(result)
    assert (tmp_path / "good_rows.txt").read_text() == "1\n4\n6\n9\n"
