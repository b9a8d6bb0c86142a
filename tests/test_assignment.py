"""Poses for particles that a run has not seen, in a map that is known."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
import starfile
import torch
from typer.testing import CliRunner

from cryospin.assignment import assign
from cryospin.cli import app
from cryospin.engine.assign import Assigner, Trial
from cryospin.engine.candidates import GridProposer
from cryospin.errors import InputError
from cryospin.evaluation.pose_error import pose_errors
from cryospin.formats.star import read_poses
from cryospin.formats.tensors import write_tensors
from cryospin.formats.volume import read_map, write_map
from cryospin.fourier import FourierGrid, map_to_grid
from cryospin.geometry.rotations import distance_deg
from cryospin.geometry.symmetry import distance_modulo_deg, in_asymmetric_unit, point_group
from cryospin.kernels.types import Poses
from cryospin.model import Model
from cryospin.noise import weighted
from cryospin.particles import ParticleSet
from cryospin.poses.gauss_newton import fits_of, refine_poses
from cryospin.poses.modes import Modes
from cryospin.proposals.heads import Encoder
from cryospin.selection import Selection
from cryospin.simulation import ImagingConditions, simulate

BOX, PIXEL, COUNT = 32, 6.0, 120
MEASURED = {
    "noise": torch.full((BOX // 2,), 1.0, dtype=torch.float64),
    "contrast": torch.tensor(1.0),
    "spread": torch.tensor(1.0),
    "limit": torch.tensor(14),
}


@pytest.fixture(scope="module")
def particle(blobs):
    """Sixty small blobs: detail in every shell, so that poses are sharp and a wrong one shows.

    Of the nine wide blobs that other tests use nothing is left beyond shell 9, and the likeliest poses of such images are
    three degrees from the truth.
    """
    generator = torch.Generator().manual_seed(1)
    position = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    radius = 0.3 * torch.rand(60, 1, generator=generator, dtype=torch.float64) ** (1 / 3)
    even = torch.ones(60, dtype=torch.float64)
    position = radius * position / position.norm(dim=1, keepdim=True)
    return replace(blobs, position=position, width=0.03 * even, weight=100 * even)


@pytest.fixture(scope="module")
def data(tmp_path_factory, particle):
    """Images of a known density."""
    out = tmp_path_factory.mktemp("data")
    simulate(particle.density(BOX), PIXEL, COUNT, out, ImagingConditions(snr=0.2, shift_sd=1.0), seed=4)
    return out


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """What a run would leave that had found the truth, with heads that have learned nothing."""
    return _run_that_knows(tmp_path_factory.mktemp("run"), data, "C1")


def _run_that_knows(folder, data, symmetry):
    (folder / "checkpoints").mkdir()
    (folder / "config.toml").write_text(f'symmetry = "{symmetry}"\ninvert = false\nseed = 0\n')
    (folder / "checkpoints" / "finished.json").write_text(json.dumps({}))
    write_map(folder / "map.mrc", _gain(data) * _true_density(data), PIXEL)
    write_tensors(folder / "checkpoints" / "model.safetensors", MEASURED)
    torch.manual_seed(0)
    write_tensors(folder / "checkpoints" / "heads.safetensors", Encoder().state_dict())
    return folder


def _true_density(data):
    return read_map(data / "truth.mrc")[0]


def _true_poses(data):
    true = read_poses(data / "truth.star")
    return Poses(torch.arange(COUNT), true.rotation.float(), (true.shift / PIXEL).float())


def _gain(data):
    """Contrast of the packed images relative to the true map, by least squares at the true poses."""
    packed, grid = ParticleSet.load(data / "particles.star").pack(BOX), FourierGrid(14)
    seen = weighted(packed.observations.up_to(14), torch.ones(15, dtype=torch.float64))
    fit = fits_of(map_to_grid(_true_density(data), grid), grid, seen, _true_poses(data))
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


def test_noise_of_another_level_leaves_the_poses_as_sure(run, data, tmp_path):
    """As in images of other pixels, whose background was normalised to the same deviation."""
    sure = assign(run, data / "particles.star", tmp_path / "one", proposals="grid")
    louder = tmp_path / "louder"
    shutil.copytree(run, louder)
    noise = MEASURED | {"noise": 3 * MEASURED["noise"]}
    write_tensors(louder / "checkpoints" / "model.safetensors", noise)
    again = assign(louder, data / "particles.star", tmp_path / "two", proposals="grid")
    np.testing.assert_allclose(again.log_likelihood, sure.log_likelihood, rtol=1e-3, atol=0.1)


@pytest.mark.parametrize("dark", [slice(None, COUNT // 2), slice(None)], ids=["one of two chunks", "all"])
def test_images_of_mixed_contrast_are_turned_over_one_by_one(run, data, tmp_path, monkeypatch, dark):
    """The table says which are dark, of all images or of the run's, and chunks of one sign are no others."""
    monkeypatch.setattr("cryospin.assignment._CHUNK", COUNT // 2)
    usual = assign(run, data / "particles.star", tmp_path / "usual", proposals="grid").poses
    mixed, sign = tmp_path / "mixed", torch.ones(COUNT)
    shutil.copytree(data, mixed)
    sign[dark] = -1
    with mrcfile.mmap(mixed / "particles.mrcs", mode="r+") as handle:
        handle.data[:] *= sign.numpy()[:, None, None]
    load = ParticleSet.load

    def with_signs(*arguments):
        particles = load(*arguments)
        return replace(particles, table=replace(particles.table, sign=sign).without_sign_of_all())

    monkeypatch.setattr(ParticleSet, "load", with_signs)
    signed = tmp_path / "signed"
    shutil.copytree(run, signed)
    (signed / "config.toml").write_text((run / "config.toml").read_text() + "signed = true\n")
    found = assign(signed, mixed / "particles.star", tmp_path / "out", proposals="grid").poses
    torch.testing.assert_close(torch.from_numpy(found.rotation), torch.from_numpy(usual.rotation), rtol=0, atol=1e-3)


def test_no_pose_is_likelier_than_those_found(run, data):
    """From the truth, which nobody has, the search would end where it ended, or worse."""
    model, observations = Model.of_run(run), ParticleSet.load(data / "particles.star").pack(BOX).observations
    found = Assigner(model, "grid", BOX).assign(observations).modes.best().poses
    grid = FourierGrid(14)
    volume, seen = map_to_grid(model.density, grid), weighted(observations.up_to(14), torch.ones(15, dtype=torch.float64))
    _, own = refine_poses(volume, grid, seen, found, steps=0, shift_sd=1.0)
    _, best = refine_poses(volume, grid, seen, _true_poses(data), steps=20, shift_sd=1.0)
    assert float((own < best + 0.5).double().mean()) > 0.95


def test_heads_that_know_nothing_leave_doubt_and_say_so(run, data, tmp_path):
    found = assign(run, data / "particles.star", tmp_path / "out", proposals="heads")
    assert found.unlike > 0.3 * COUNT
    true = read_poses(data / "truth.star").rotation
    wrong = (distance_deg(torch.from_numpy(found.poses.rotation), true) > 10).numpy()
    assert found.unlike > 0.7 * wrong.sum()
    # The confidence is the chance that a pose is right, as far as 120 images tell.
    assert found.poses.confidence[wrong].mean() < 0.1
    assert abs(found.poses.confidence.mean() - (~wrong).mean()) < 0.15


def _knowing(data, monkeypatch, heads):
    """Let heads guess the true views, some degrees off, at any angle in the plane."""
    tilt = torch.linalg.matrix_exp(torch.tensor([[0, 0, 0.08], [0, 0, -0.06], [-0.08, 0.06, 0]]))
    turned = tilt @ read_poses(data / "truth.star").rotation.float()
    images = ParticleSet.load(data / "particles.star").pack(BOX).observations.images

    def propose(observations):
        # Which image it is shows in the data themselves.
        some = observations.images[:, :20]
        row = (some[:, None] - images[None, :, :20]).abs().sum(2).argmin(1)
        rotation = turned[row][:, None].expand(-1, 7, -1, -1).flatten(0, 1)
        return Poses(torch.arange(len(row)).repeat_interleave(7), rotation, torch.zeros(7 * len(row), 2))

    monkeypatch.setattr(heads, "propose", propose)


def test_heads_that_know_need_no_grid(run, data, monkeypatch):
    """Views near the truth are completed in the plane, and their poses are right to a degree or two."""
    packed, true = ParticleSet.load(data / "particles.star").pack(BOX), read_poses(data / "truth.star")
    model = Model.of_run(run)
    assigner = Assigner(model, "heads", BOX)
    _knowing(data, monkeypatch, model.heads)
    modes, short, _ = assigner.assign(packed.observations)
    best = modes.best().poses
    assert float(distance_deg(best.rotation.double(), true.rotation).median()) < 3
    assert float((short > 3).double().mean()) < 0.05


@pytest.mark.parametrize("know", [True, False])
def test_heads_serve_where_a_trial_shows_that_they_do(run, data, monkeypatch, know):
    packed, true = ParticleSet.load(data / "particles.star").pack(BOX), read_poses(data / "truth.star")
    model = Model.of_run(run)
    if know:
        _knowing(data, monkeypatch, model.heads)
    monkeypatch.setattr("cryospin.engine.assign._TRIED", 40)
    searched, grid = [], GridProposer.propose
    monkeypatch.setattr(
        GridProposer, "propose", lambda self, v, g, some: searched.append(len(some.images)) or grid(self, v, g, some)
    )
    assigner = Assigner(model, "both", BOX)
    posed = assigner.assign(packed.observations)
    assert assigner.trial.images == 40
    assert assigner.trial.passed == know
    # The grid sees those on trial and, of the others, the doubtful or all.
    assert searched[0] == 40
    assert (sum(searched) < 60) if know else (sum(searched) == COUNT)
    right = distance_deg(posed.modes.best().poses.rotation.double(), true.rotation) < 10
    assert float(right.double().mean()) > 0.95


def test_heads_that_settle_much_but_wrongly_do_not_serve():
    assert Trial(500, settled=0.9, beaten=0.01).passed
    assert not Trial(500, settled=0.9, beaten=0.2).passed
    assert not Trial(500, settled=0.3, beaten=0.0).passed


def test_mates_of_a_pose_are_one(tmp_path, particle):
    """In a map of symmetry C2 a pose and its mate share no confidence, and the one in the asymmetric unit is given."""
    density = particle.density(BOX)
    # Index 16 is the middle, so the first row and column have no mate.
    mate = torch.zeros_like(density)
    mate[:, 1:, 1:] = density[:, 1:, 1:].flip(1, 2)
    simulate(density + mate, PIXEL, COUNT, tmp_path / "data", ImagingConditions(snr=0.3, shift_sd=1.0), seed=5)
    (tmp_path / "run").mkdir()
    run = _run_that_knows(tmp_path / "run", tmp_path / "data", "C2")
    found = assign(run, tmp_path / "data" / "particles.star", tmp_path / "out", proposals="grid")
    group, own = point_group("C2"), torch.from_numpy(found.poses.rotation)
    true = read_poses(tmp_path / "data" / "truth.star").rotation
    assert float((distance_modulo_deg(own, true, group) < 10).double().mean()) > 0.95
    assert np.median(found.poses.confidence) > 0.9
    torch.testing.assert_close(in_asymmetric_unit(own, group), own)


def test_images_of_lower_contrast_are_no_less_like_the_map(run, particle, tmp_path):
    """Half the signal power of the images that the run saw."""
    simulate(particle.density(BOX), PIXEL, COUNT, tmp_path / "data", ImagingConditions(snr=0.1, shift_sd=1.0), seed=9)
    found = assign(run, tmp_path / "data" / "particles.star", tmp_path / "out", proposals="grid")
    true = read_poses(tmp_path / "data" / "truth.star").rotation
    assert found.contrast == pytest.approx(0.5**0.5, rel=0.05)
    assert found.unlike <= 0.05 * COUNT
    right = distance_deg(torch.from_numpy(found.poses.rotation), true) < 10
    assert found.poses.confidence.mean() == pytest.approx(float(right.double().mean()), abs=0.05)


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


def test_poses_that_images_hardly_settle_come_to_rest_all_the_same(blobs, tmp_path):
    """Images of wide blobs leave three degrees open, and still their poses do not depend on where the search began."""
    simulate(blobs.density(BOX), PIXEL, COUNT, tmp_path / "data", ImagingConditions(snr=0.5, shift_sd=1.0), seed=4)
    (tmp_path / "run").mkdir()
    model = Model.of_run(_run_that_knows(tmp_path / "run", tmp_path / "data", "C1"))
    observations = ParticleSet.load(tmp_path / "data" / "particles.star").pack(BOX).observations
    found = [
        Assigner(replace(model, seed=seed), "grid", BOX).assign(observations).modes.best().poses.rotation for seed in (0, 1)
    ]
    assert float((distance_deg(*found) < 0.5).double().mean()) > 0.95
    assert float(distance_deg(found[0], _true_poses(tmp_path / "data").rotation).median()) < 3.2


def test_the_same_particles_at_another_pixel_size_are_posed_alike(run, data, particle, tmp_path):
    """Images twice as finely sampled, of the same physical size."""
    fine = tmp_path / "fine"
    simulate(particle.density(2 * BOX), PIXEL / 2, COUNT, fine, ImagingConditions(snr=0.05, shift_sd=2.0), seed=4)
    assign(run, fine / "particles.star", tmp_path / "out", proposals="grid")
    own, true = read_poses(tmp_path / "out" / "particles.star"), read_poses(fine / "truth.star")
    errors = pose_errors(own.rotation, own.shift, true.rotation, true.shift)
    assert float((errors.rotation_deg < 10).double().mean()) > 0.9
    assert float(errors.shift.median()) < 0.5 * PIXEL


def test_images_of_another_size_are_refused(run, particle, tmp_path):
    simulate(particle.density(24), PIXEL, 20, tmp_path / "small", ImagingConditions(), seed=1)
    with pytest.raises(InputError, match=r"particles\.star: images are 144\.0 Å wide .*, the run's 192\.0 Å\. Extract"):
        assign(run, tmp_path / "small" / "particles.star", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_heads_searches_and_does_not_guess(run, data, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    (bare / "checkpoints" / "heads.safetensors").unlink()
    with pytest.raises(InputError, match=r"no trained heads.*--proposals grid"):
        assign(bare, data / "particles.star", tmp_path / "out", proposals="heads")
    assert assign(bare, data / "particles.star", tmp_path / "out", selection=Selection(first=10)).trial is None


def test_particles_are_centred_first_where_that_is_asked_for(run, data, tmp_path):
    """The shifts that come out are those of the images as they are."""
    plain, centred = (
        assign(run, data / "truth.star", tmp_path / str(recentre), proposals="grid", recentre=recentre).poses
        for recentre in (False, True)
    )
    difference = np.linalg.norm(plain.shift_A - centred.shift_A, axis=1)
    assert float(np.median(difference)) < 0.05 * PIXEL
    assert float(np.median(np.linalg.norm(plain.shift_A, axis=1))) > PIXEL / 2


def test_a_run_that_is_not_finished_is_refused(run, data, tmp_path):
    begun = tmp_path / "begun"
    shutil.copytree(run, begun)
    (begun / "checkpoints" / "finished.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        assign(begun, data / "particles.star", tmp_path / "out")


def test_runs_that_keep_no_model_or_another_are_refused(run, data, tmp_path):
    def copy(name):
        shutil.copytree(run, tmp_path / name)
        return tmp_path / name

    learned, older, damaged, exchanged = map(copy, ("learned", "older", "damaged", "exchanged"))
    (learned / "checkpoints" / "model.safetensors").unlink()
    write_tensors(older / "checkpoints" / "model.safetensors", {"noise": torch.ones(BOX // 2), "limit": torch.tensor(3)})
    (damaged / "checkpoints" / "model.safetensors").write_bytes(b"half")
    write_map(exchanged / "map.mrc", torch.zeros(20, 20, 20), PIXEL)
    for folder, what in (
        (learned, r"learned: keeps no model .* Give a run of the preset cryospin or search"),
        (older, r"model\.safetensors: lacks contrast, spread\. "),
        (damaged, r"model\.safetensors: cannot be read"),
        (exchanged, r"map\.mrc: is not the map that the run wrote"),
        (tmp_path, "holds no run"),
    ):
        with pytest.raises(InputError, match=what) as error:
            assign(folder, data / "particles.star", tmp_path / "out")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_refused_before_the_work(run, data, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="out: is a file, not a folder"):
        assign(run, data / "particles.star", tmp_path / "out")


@pytest.mark.parametrize("there", [True, False])
def test_ctrl_c_leaves_nothing_behind(run, data, tmp_path, monkeypatch, there):
    out = tmp_path / "out"
    if there:
        out.mkdir()
        (out / "mine.txt").touch()
    monkeypatch.setattr("cryospin.assignment._CHUNK", 50)
    calls, real = [], Assigner.assign

    def interrupted(self, observations):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, observations)

    monkeypatch.setattr(Assigner, "assign", interrupted)
    arguments = ["assign", run, data / "particles.star", "--out", out, "--threads", 1, "--proposals", "grid"]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 130
    assert result.stderr == "cryospin: interrupted\n"
    assert [p.name for p in out.glob("*")] == (["mine.txt"] if there else [])
    assert out.exists() == there


def test_a_table_that_cannot_be_finished_takes_its_companion_along(run, data, tmp_path, monkeypatch):
    """A disk that is full after the first of two tables."""

    def full(self, folder, table, found):
        (folder / "particles.cs").touch()
        raise OSError(28, "No space left on device", str(folder / "particles.star"))

    monkeypatch.setattr("cryospin.formats.star.StarSource.write", full)
    arguments = ["assign", run, data / "particles.star", "--out", tmp_path / "out", "--threads", 1, "--first", 20]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 2
    assert result.stderr == f"cryospin: error: {tmp_path / 'out' / 'particles.star'}: No space left on device\n"
    assert not (tmp_path / "out").exists()


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


def test_modes_that_are_left_belong_to_every_image(run, data):
    packed = ParticleSet.load(data / "particles.star").pack(BOX)
    modes, short, _ = Assigner(Model.of_run(run), "grid", BOX).assign(packed.observations)
    assert isinstance(modes, Modes)
    assert modes.best().poses.image.tolist() == list(range(COUNT))
    assert short.shape == (COUNT,)
