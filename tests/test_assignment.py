"""Poses for particles that a run has not seen, in a map that is known."""

from __future__ import annotations

import json
import shutil

import pytest
import starfile
import torch
from typer.testing import CliRunner

from cryospin.assignment import assign
from cryospin.cli import app
from cryospin.engine.assign import Assigner
from cryospin.errors import InputError
from cryospin.evaluation.pose_error import pose_errors
from cryospin.formats.star import read_poses
from cryospin.formats.tensors import write_tensors
from cryospin.formats.volume import write_map
from cryospin.geometry.rotations import distance_deg
from cryospin.model import Model
from cryospin.particles import ParticleSet
from cryospin.poses.modes import Modes
from cryospin.proposals.heads import Encoder
from cryospin.selection import Selection
from cryospin.simulation import ImagingConditions, simulate

BOX, PIXEL, COUNT = 32, 6.0, 120


@pytest.fixture(scope="module")
def data(tmp_path_factory, blobs):
    """Images of a known density."""
    out = tmp_path_factory.mktemp("data")
    simulate(blobs.density(BOX), PIXEL, COUNT, out, ImagingConditions(snr=0.5, shift_sd=1.0), seed=4)
    return out


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """What a run would leave that had found the truth, with heads that have learned nothing."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    (folder / "config.toml").write_text('symmetry = "C1"\ninvert = false\nseed = 0\n')
    (folder / "checkpoints" / "finished.json").write_text(json.dumps({}))
    gain = _gain(data)
    density = gain * _true_density(data)
    write_map(folder / "map.mrc", density, PIXEL)
    noise = torch.full((BOX // 2,), 1.0, dtype=torch.float64)
    measured = {"noise": noise, "contrast": torch.tensor(1.0), "spread": torch.tensor(1.0), "limit": torch.tensor(14)}
    write_tensors(folder / "checkpoints" / "model.safetensors", measured)
    torch.manual_seed(0)
    write_tensors(folder / "checkpoints" / "heads.safetensors", Encoder().state_dict())
    return folder


def _true_density(data):
    from cryospin.formats.volume import read_map

    return read_map(data / "truth.mrc")[0]


def _gain(data):
    """Contrast of the packed images relative to the true map, by least squares at the true poses."""
    from cryospin.fourier import FourierGrid, map_to_grid
    from cryospin.kernels.types import Poses
    from cryospin.noise import weighted
    from cryospin.poses.gauss_newton import fits_of

    packed, true = ParticleSet.load(data / "particles.star").pack(BOX), read_poses(data / "truth.star")
    poses = Poses(torch.arange(COUNT), true.rotation.float(), (true.shift / PIXEL).float())
    grid = FourierGrid(14)
    seen = weighted(packed.observations.up_to(14), torch.ones(15, dtype=torch.float64))
    fit = fits_of(map_to_grid(_true_density(data), grid), grid, seen, poses)
    return float(fit.cross.sum() / fit.power.sum())


@pytest.mark.parametrize("proposals", ["grid", "both"])
def test_poses_of_images_never_seen_are_found(run, data, tmp_path, proposals):
    found = assign(run, data / "particles.star", tmp_path / "out", proposals=proposals)
    written, true = read_poses(tmp_path / "out" / "particles.star"), read_poses(data / "truth.star")
    # In the map's own frame: nothing is turned to fit.
    error = distance_deg(written.rotation, true.rotation)
    assert float(error.median()) < 3
    assert float((error < 10).double().mean()) > 0.95
    assert float((written.shift - true.shift).norm(dim=1).median()) < 0.5 * PIXEL
    assert found.unlike <= 0.05 * COUNT
    torch.testing.assert_close(written.shift, torch.from_numpy(found.poses.shift_A), rtol=0, atol=1e-4)


def test_heads_that_know_nothing_leave_doubt_and_say_so(run, data, tmp_path):
    found = assign(run, data / "particles.star", tmp_path / "out", proposals="heads")
    assert found.unlike > 0.3 * COUNT


def test_heads_that_know_need_no_grid(run, data, monkeypatch):
    """Views near the truth are completed in the plane, and their poses are right to a degree or two."""
    packed, true = ParticleSet.load(data / "particles.star").pack(BOX), read_poses(data / "truth.star")
    model = Model.of_run(run)
    assigner = Assigner(model, "heads", BOX)
    tilt = torch.linalg.matrix_exp(torch.tensor([[0, 0, 0.08], [0, 0, -0.06], [-0.08, 0.06, 0]]))
    turned = tilt @ true.rotation.float()

    def knowing(observations):
        from cryospin.kernels.types import Poses

        # The chunks of `search` come in order, and here there is one.
        rotation = turned[:, None].expand(-1, 7, -1, -1).flatten(0, 1)
        return Poses(torch.arange(COUNT).repeat_interleave(7), rotation, torch.zeros(7 * COUNT, 2))

    monkeypatch.setattr(model.heads, "propose", knowing)
    modes, short, _ = assigner.assign(packed.observations)
    best = modes.best().poses
    assert float(distance_deg(best.rotation.double(), true.rotation).median()) < 3
    assert float((short > 3).double().mean()) < 0.05


def test_chosen_rows_come_back_with_everything_a_run_writes(run, data, tmp_path):
    found = assign(run, data / "particles.star", tmp_path / "out", proposals="grid", selection=Selection(first=40))
    rows = starfile.read(tmp_path / "out" / "particles.star", always_dict=True)["particles"]
    given = starfile.read(data / "particles.star", always_dict=True)["particles"]
    assert len(found) == len(rows) == 40
    assert list(rows["rlnImageName"]) == list(given["rlnImageName"])[:40]
    assert rows["rlnMaxValueProbDistribution"].between(0, 1).all()
    assert set(rows["rlnRandomSubset"]) == {1, 2}
    assert "rlnLogLikeliContribution" in rows


def test_pieces_give_what_the_whole_gives(run, data, tmp_path, monkeypatch):
    whole = assign(run, data / "particles.star", tmp_path / "whole", proposals="grid")
    monkeypatch.setattr("cryospin.assignment._CHUNK", 50)
    pieces = assign(run, data / "particles.star", tmp_path / "pieces", proposals="grid")
    # The grid is turned at random at each use, so the way to the optimum is another.
    near = distance_deg(*(torch.from_numpy(found.poses.rotation) for found in (pieces, whole))) < 0.5
    assert float(near.double().mean()) > 0.95


def test_the_same_particles_at_another_pixel_size_are_posed_alike(run, data, blobs, tmp_path):
    """Images twice as finely sampled, of the same physical size."""
    fine = tmp_path / "fine"
    simulate(blobs.density(2 * BOX), PIXEL / 2, COUNT, fine, ImagingConditions(snr=0.13, shift_sd=2.0), seed=4)
    assign(run, fine / "particles.star", tmp_path / "out", proposals="grid")
    own, true = read_poses(tmp_path / "out" / "particles.star"), read_poses(fine / "truth.star")
    errors = pose_errors(own.rotation, own.shift, true.rotation, true.shift)
    assert float((errors.rotation_deg < 10).double().mean()) > 0.9
    assert float(errors.shift.median()) < 0.5 * PIXEL


def test_images_of_another_size_are_refused(run, blobs, tmp_path):
    simulate(blobs.density(24), PIXEL, 20, tmp_path / "small", ImagingConditions(), seed=1)
    with pytest.raises(InputError, match=r"particles\.star: images are 144\.0 Å wide .*, the run's 192\.0 Å\. Extract"):
        assign(run, tmp_path / "small" / "particles.star", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_heads_is_refused_with_a_way_out(run, data, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    (bare / "checkpoints" / "heads.safetensors").unlink()
    with pytest.raises(InputError, match=r"no trained heads.*--proposals grid"):
        assign(bare, data / "particles.star", tmp_path / "out")
    assign(bare, data / "particles.star", tmp_path / "out", proposals="grid", selection=Selection(first=10))


def test_a_run_that_is_not_finished_is_refused(run, data, tmp_path):
    begun = tmp_path / "begun"
    shutil.copytree(run, begun)
    (begun / "checkpoints" / "finished.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        assign(begun, data / "particles.star", tmp_path / "out")


def test_the_command_says_how_fast_it_was(run, data, tmp_path):
    arguments = ["assign", run, data / "particles.star", "--out", tmp_path / "out", "--threads", 1, "--first", 30]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert "30 poses in" in result.output
    assert "images a second" in result.output
    again = CliRunner().invoke(app, [str(a) for a in arguments])
    assert again.exit_code == 2
    assert "particles.star: is there already" in again.stderr


def test_modes_that_are_left_belong_to_every_image(run, data):
    packed = ParticleSet.load(data / "particles.star").pack(BOX)
    modes, short, _ = Assigner(Model.of_run(run), "grid", BOX).assign(packed.observations)
    assert isinstance(modes, Modes)
    assert modes.best().poses.image.tolist() == list(range(COUNT))
    assert short.shape == (COUNT,)
