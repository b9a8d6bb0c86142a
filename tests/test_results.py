"""What a run found comes back in the coordinates of the table it was given."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryospin.formats.star import read_poses, read_star
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels.types import Poses
from cryospin.particles import ParticleSet
from cryospin.posed_tables import write_tables
from cryospin.poses.modes import Modes
from cryospin.results import assigned
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
    write_tables(tmp_path, result.particles.table, assigned(result), np.zeros(7))
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
    write_tables(tmp_path, result.particles.table, assigned(result), np.zeros(7))
    table = read_star(tmp_path / "particles.star")
    assert (table.images.slice + 1).tolist() == [2, 4, 5, 7, 9, 10, 12]
    star = table.source.star
    columns = star.columns(star.block("particles"), ("rlnRandomSubset", "rlnLogLikeliContribution"))
    assert columns["rlnRandomSubset"] == ["1", "2", "1", "2", "1", "2", "1"]
    assert [float(v) for v in columns["rlnLogLikeliContribution"]] == pytest.approx(torch.linspace(9, -1, 7).tolist())
