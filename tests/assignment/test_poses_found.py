"""Poses for particles that a run has not seen, in a map that is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import starfile
import torch
from known_truth import BOX, COUNT, PIXEL, run_that_knows, true_poses
from typer.testing import CliRunner

from cryospin.assignment import assign
from cryospin.cli import app
from cryospin.engine.assign import Assigner
from cryospin.engine.likeness import DOUBTFUL
from cryospin.formats.star import read_poses
from cryospin.fourier import FourierGrid, map_to_grid
from cryospin.geometry.rotations import distance_deg
from cryospin.geometry.symmetry import distance_modulo_deg, in_asymmetric_unit, point_group
from cryospin.model import Model
from cryospin.noise import weighted
from cryospin.particles import ParticleSet
from cryospin.poses.gauss_newton import refine_poses
from cryospin.poses.modes import Modes
from cryospin.selection import Selection
from cryospin.simulation import ImagingConditions, simulate


@pytest.mark.parametrize("proposals", ["grid", "both"])
def test_poses_of_images_never_seen_are_found(run, data, tmp_path, proposals):
    found = assign(run, data / "particles.star", tmp_path / "out", proposals=proposals)
    written, true = read_poses(tmp_path / "out" / "particles.star"), read_poses(data / "truth.star")
    # In the map's own frame: nothing is turned to fit.
    error = distance_deg(written.rotation, true.rotation)
    assert float(error.median()) < 3
    assert float((error < 10).double().mean()) > 0.95
    assert float((written.shift - true.shift).norm(dim=1).median()) < 0.5 * PIXEL
    assert found.doubtful <= 0.05 * COUNT
    torch.testing.assert_close(written.shift, torch.from_numpy(found.poses.shift_A), rtol=0, atol=1e-4)


def test_no_pose_is_likelier_than_those_found(run, data):
    """From the truth, which nobody has, the search would end where it ended, or worse."""
    model, observations = Model.of_run(run), ParticleSet.load(data / "particles.star").pack(BOX).observations
    found = Assigner(model, "grid", BOX).assign(observations).modes.best().poses
    grid = FourierGrid(14)
    volume, seen = map_to_grid(model.density, grid), weighted(observations.up_to(14), torch.ones(15, dtype=torch.float64))
    _, own = refine_poses(volume, grid, seen, found, steps=0, shift_sd=1.0)
    _, best = refine_poses(volume, grid, seen, true_poses(data), steps=20, shift_sd=1.0)
    assert float((own < best + 0.5).double().mean()) > 0.95


def test_mates_of_a_pose_are_one(tmp_path, particle):
    """In a map of symmetry C2 a pose and its mate share no confidence, and the one in the asymmetric unit is given."""
    density = particle.density(BOX)
    # Index 16 is the middle, so the first row and column have no mate.
    mate = torch.zeros_like(density)
    mate[:, 1:, 1:] = density[:, 1:, 1:].flip(1, 2)
    simulate(density + mate, PIXEL, COUNT, tmp_path / "data", ImagingConditions(snr=0.3, shift_sd=1.0), seed=5)
    (tmp_path / "run").mkdir()
    run = run_that_knows(tmp_path / "run", tmp_path / "data", "C2")
    found = assign(run, tmp_path / "data" / "particles.star", tmp_path / "out", proposals="grid")
    group, own = point_group("C2"), torch.from_numpy(found.poses.rotation)
    true = read_poses(tmp_path / "data" / "truth.star").rotation
    assert float((distance_modulo_deg(own, true, group) < 10).double().mean()) > 0.95
    assert np.median(found.poses.confidence) > 0.9
    torch.testing.assert_close(in_asymmetric_unit(own, group), own)


def test_poses_that_images_hardly_settle_come_to_rest_all_the_same(blobs, tmp_path):
    """Images of wide blobs leave three degrees open, and still their poses do not depend on where the search began."""
    simulate(blobs.density(BOX), PIXEL, COUNT, tmp_path / "data", ImagingConditions(snr=0.5, shift_sd=1.0), seed=4)
    (tmp_path / "run").mkdir()
    model = Model.of_run(run_that_knows(tmp_path / "run", tmp_path / "data", "C1"))
    observations = ParticleSet.load(tmp_path / "data" / "particles.star").pack(BOX).observations
    found = [
        Assigner(replace(model, seed=seed), "grid", BOX).assign(observations).modes.best().poses.rotation for seed in (0, 1)
    ]
    assert float((distance_deg(*found) < 0.5).double().mean()) > 0.95
    assert float(distance_deg(found[0], true_poses(tmp_path / "data").rotation).median()) < 3.2


def test_modes_that_are_left_belong_to_every_image(run, data):
    packed = ParticleSet.load(data / "particles.star").pack(BOX)
    modes, short, _ = Assigner(Model.of_run(run), "grid", BOX).assign(packed.observations)
    assert isinstance(modes, Modes)
    assert modes.best().poses.image.tolist() == list(range(COUNT))
    assert short.shape == (COUNT,)


def test_pieces_give_what_the_whole_gives(run, data, tmp_path, monkeypatch):
    whole = assign(run, data / "particles.star", tmp_path / "whole", proposals="grid")
    monkeypatch.setattr("cryospin.assignment._CHUNK", 50)
    pieces = assign(run, data / "particles.star", tmp_path / "pieces", proposals="grid")
    # The grid is turned at random at each use, so the way to the optimum is another.
    near = distance_deg(*(torch.from_numpy(found.poses.rotation) for found in (pieces, whole))) < 0.5
    assert float(near.double().mean()) > 0.95


def test_chosen_rows_come_back_with_everything_a_run_writes(run, data, tmp_path):
    found = assign(run, data / "particles.star", tmp_path / "out", proposals="grid", selection=Selection(first=40))
    rows = starfile.read(tmp_path / "out" / "particles.star", always_dict=True)["particles"]
    given = starfile.read(data / "particles.star", always_dict=True)["particles"]
    assert len(found) == len(rows) == 40
    assert list(rows["rlnImageName"]) == list(given["rlnImageName"])[:40]
    assert rows["rlnMaxValueProbDistribution"].between(0, 1).all()
    assert set(rows["rlnRandomSubset"]) == {1, 2}
    assert "rlnLogLikeliContribution" in rows
    good = np.flatnonzero(found.shortfall < DOUBTFUL)
    assert (tmp_path / "out" / "good_rows.txt").read_text().split() == [str(row) for row in good]
    kept = starfile.read(tmp_path / "out" / "particles_good.star", always_dict=True)["particles"]
    assert list(kept["rlnImageName"]) == [rows["rlnImageName"][row] for row in good]
    assert found.doubtful == 40 - len(good)


def test_the_command_says_how_fast_it_was(run, data, tmp_path):
    arguments = ["assign", run, data / "particles.star", "--out", tmp_path / "out", "--threads", 1, "--first", 30]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert "30 poses in" in result.output
    assert "images a second" in result.output
    assert "of 30 images tried, the heads settle" in result.output
    again = CliRunner().invoke(app, [str(a) for a in arguments])
    assert again.exit_code == 2
    assert "particles.star: is there already" in again.stderr
