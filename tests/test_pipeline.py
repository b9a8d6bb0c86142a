"""A whole run on a small phantom: the contract of its files and figures."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import subprocess
import tomllib

import mrcfile
import pytest
import starfile
import torch

from cryospin.engine.record import Silence
from cryospin.evaluation.evaluate import evaluate
from cryospin.formats.star import read_star
from cryospin.formats.tensors import read_tensors
from cryospin.formats.volume import read_map
from cryospin.geometry.symmetry import point_group
from cryospin.maps.alignment import move_map
from cryospin.maps.fsc import fourier_shell_correlation
from cryospin.pipeline import reconstruct
from cryospin.run import load_run
from cryospin.settings import Settings
from cryospin.simulation import ImagingConditions, density_from_source, simulate

COUNT, BOX, PIXEL = 1200, 32, 8.0
FILES = (
    "map.mrc",
    "map_other_hand.mrc",
    "half1.mrc",
    "half2.mrc",
    "mask.mrc",
    "map_sharpened.mrc",
    "local_resolution.mrc",
    "fsc.csv",
    "particles.star",
    "metrics.jsonl",
    "config.toml",
    "log.txt",
    "fsc.png",
    "orientations.png",
    "slices.png",
    "progress.png",
    "heads.png",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A phantom's images, bright enough that few of them do."""
    out = tmp_path_factory.mktemp("data")
    density = density_from_source("phantom", BOX, PIXEL, seed=1)
    simulate(density, PIXEL, COUNT, out, ImagingConditions(snr=0.3, shift_sd=1.0), seed=3)
    return out


class Counting(Silence):
    """Counts what a run tells."""

    def __init__(self):
        self.stages, self.notes, self.read = [], [], 0

    def note(self, text):
        self.notes.append(text)

    def epoch(self, record):
        self.stages.append(record.stage)

    def reading(self, total):
        def advance(done):
            self.read += done

        return advance


@pytest.fixture(scope="module")
def listener():
    return Counting()


@pytest.fixture(scope="module")
def run(data, listener, tmp_path_factory):
    """A finished run with the default preset, of one start: it convinces or not by a hair's breadth."""
    out = tmp_path_factory.mktemp("runs") / "run"
    reconstruct(
        Settings(particles=data / "particles.star", out=out, threads=2, seed=0, starts=1, truth_poses=data / "truth.star"),
        listener,
    )
    return out


@pytest.fixture(scope="module")
def figures(run, data):
    return evaluate(run, truth_map=data / "truth.mrc", truth_poses=data / "truth.star")


def test_every_file_of_the_contract_is_there(run):
    assert [name for name in FILES if not (run / name).is_file()] == []
    assert list(run.glob(".*.part")) == []
    left = {p.name for p in (run / "checkpoints").iterdir()}
    assert left == {"modes.safetensors", "heads.safetensors", "model.safetensors", "origin.json", "finished.json"}


def test_poses_are_found_from_nothing(figures):
    assert figures["rotation_error_deg"]["median"] < 4
    assert figures["rotation_error_deg"]["within_10"] > 90
    assert figures["shift_error_A"]["median_px"] < 0.4


def test_the_map_is_nearly_as_good_as_true_poses_make_it(figures):
    assert figures["resolution_A"]["fsc_0_5"] < 1.12 * figures["true_poses_A"]["fsc_0_5"]
    assert figures["map_correlation"] > 0.85


def test_the_hand_agrees_between_maps_and_poses(run, data, figures):
    other = evaluate(run / "map_other_hand.mrc", truth_map=data / "truth.mrc")
    assert {figures["hand"], other["hand"]} == {"same", "flipped"}
    assert other["resolution_A"]["fsc_0_5"] == pytest.approx(figures["resolution_A"]["fsc_0_5"], rel=0.05)


def test_a_structure_is_found(run, listener):
    assert load_run(run).found_structure is True
    assert [note for note in listener.notes if "looks wrong" in note or "no structure" in note] == []


def test_metrics_follow_the_run(run, listener):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records] == list(range(1, len(records) + 1))
    assert [r["stage"] for r in records] == listener.stages
    assert list(dict.fromkeys(listener.stages)) == ["explore", "compete", "refine"]
    assert listener.read == COUNT
    final = records[-1]
    assert final["pose_error_deg"] < 4
    assert final["resolution_A"] > 0
    assert sum(final["winners"]) == COUNT
    assert len(final["winners"]) == len(final["winner_names"])
    assert all(a["seconds"] <= b["seconds"] for a, b in itertools.pairwise(records))


def test_the_switch_is_logged_with_its_reason(run, listener):
    lines = [note for note in listener.notes if note.startswith("switch to direct optimisation: ")]
    assert len(lines) == 1
    assert lines[0] in (run / "log.txt").read_text()


def test_input_rows_come_back_in_order_with_poses_and_halves(run, data):
    given = starfile.read(data / "particles.star", always_dict=True)
    written = starfile.read(run / "particles.star", always_dict=True)
    assert list(written) == list(given)
    rows, before = written["particles"], given["particles"]
    assert list(rows.columns[: len(before.columns)]) == list(before.columns)
    assert list(rows["rlnImageName"]) == list(before["rlnImageName"])
    assert set(rows["rlnRandomSubset"]) == {1, 2}
    assert abs((rows["rlnRandomSubset"] == 1).sum() - COUNT / 2) <= 1
    assert rows["rlnMaxValueProbDistribution"].between(0, 1).all()
    assert {"rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnLogLikeliContribution"} <= set(rows)


def test_maps_carry_their_voxel_size_and_halves_differ(run):
    for name in ("map", "map_other_hand", "half1", "half2", "mask"):
        with mrcfile.open(run / f"{name}.mrc") as handle:
            assert handle.data.shape == (BOX,) * 3
            assert float(handle.voxel_size.x) == pytest.approx(PIXEL)
    half1, half2 = read_map(run / "half1.mrc")[0], read_map(run / "half2.mrc")[0]
    assert float((half1 - half2).std()) > 0.05 * float(half1.std())
    mask = read_map(run / "mask.mrc")[0]
    assert float(mask.min()) == 0
    assert float(mask.max()) == 1


def test_fsc_table_has_the_columns_of_the_contract(run):
    with (run / "fsc.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["resolution_A", "fsc_unmasked", "fsc_masked", "fsc_randomised", "fsc_corrected"]
    assert float(rows[0]["resolution_A"]) == pytest.approx(BOX * PIXEL)
    assert float(rows[2]["fsc_masked"]) > 0.9


def test_config_says_everything_that_was_resolved(run, data):
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["particles"] == str(data / "particles.star")
    assert config["box"] == BOX
    assert config["proposals"] == "both"
    assert config["invert"] is False


def test_rows_of_all_but_doubtful_particles_can_be_chosen(run, data):
    from cryospin.selection import Selection

    rows = Selection(index=run / "good_rows.txt").rows(COUNT, data / "particles.star")
    assert 0.9 * COUNT < len(rows) <= COUNT
    shortfall = read_tensors(run / "report" / "evidence.safetensors", "")["shortfall"]
    assert rows.tolist() == (shortfall < 4).nonzero()[:, 0].tolist()


def test_a_used_folder_is_not_written_into(run, data):
    from cryospin.errors import InputError

    with pytest.raises(InputError, match="already holds a run"):
        reconstruct(Settings(particles=data / "particles.star", out=run))


def test_our_reader_gives_the_run_s_poses_back(run, data, figures):
    again = evaluate(run, truth_poses=run / "particles.star")
    assert again["rotation_error_deg"]["mean"] < 1e-3
    assert again["shift_error_A"]["median"] < 1e-3
    assert read_star(run / "particles.star").poses is not None


@pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="RELION is not installed")
def test_relion_reconstructs_our_map_from_our_particles(run, data, figures, tmp_path):
    shutil.copy(run / "particles.star", data / "aligned.star")
    out = tmp_path / "relion.mrc"
    subprocess.run(
        ["relion_reconstruct", "--i", "aligned.star", "--o", str(out), "--ctf"], cwd=data, check=True, capture_output=True
    )
    theirs, ours = read_map(out)[0], read_map(run / "map.mrc")[0]
    mask = read_map(run / "mask.mrc")[0]
    fsc = fourier_shell_correlation(theirs * mask, ours)
    last = int(BOX * PIXEL / figures["resolution_A"]["fsc_0_5"])
    assert float(fsc[1 : last + 1].min()) > 0.95


@pytest.mark.slow
def test_a_run_that_memory_does_not_hold_gives_the_same_numbers(run, data, tmp_path):
    listener, out = Counting(), tmp_path / "run"
    reconstruct(Settings(particles=data / "particles.star", out=out, threads=2, seed=0, starts=1, memory=0.001), listener)
    assert any("kept on disk" in note for note in listener.notes)
    for name in ("map.mrc", "half1.mrc", "half2.mrc"):
        assert torch.equal(read_map(out / name)[0], read_map(run / name)[0])
    # The first line says when the file was written.
    tables = [(folder / "particles.star").read_text().splitlines()[1:] for folder in (out, run)]
    assert tables[0] == tables[1]


@pytest.mark.slow
@pytest.mark.parametrize("proposals", ["grid", "both"])
def test_a_seed_makes_a_run_repeatable(data, tmp_path, proposals):
    maps = []
    for name in ("a", "b"):
        out = tmp_path / name
        reconstruct(Settings(particles=data / "particles.star", out=out, threads=2, seed=5, proposals=proposals))
        # The first line of a STAR file says when it was written.
        maps.append((read_map(out / "map.mrc")[0], (out / "particles.star").read_text().splitlines()[1:]))
    assert torch.equal(maps[0][0], maps[1][0])
    assert maps[0][1] == maps[1][1]


@pytest.mark.slow
@pytest.mark.parametrize("impose", ["refinement", "start"])
def test_a_point_group_can_be_imposed(tmp_path, impose):
    lopsided = density_from_source("phantom", BOX, PIXEL, seed=2)
    off_axis = move_map(lopsided, torch.eye(3), torch.tensor([2.5, 0.0, 0.0]))
    group = point_group("C3")
    density = sum(move_map(off_axis, turn, torch.zeros(3)) for turn in group)
    simulate(density / density.std(), PIXEL, COUNT, tmp_path, ImagingConditions(snr=0.3, shift_sd=1.0), seed=3)
    out = tmp_path / "run"
    reconstruct(Settings(particles=tmp_path / "particles.star", out=out, threads=2, symmetry="C3", impose=impose))
    figures = evaluate(out, truth_map=tmp_path / "truth.mrc", truth_poses=tmp_path / "truth.star", symmetry="C3")
    assert figures["rotation_error_deg"]["within_10"] > 90
    assert figures["resolution_A"]["fsc_0_5"] < 1.12 * figures["true_poses_A"]["fsc_0_5"]
    found = read_map(out / "map.mrc")[0]
    turned = move_map(found, group[1], torch.zeros(3))
    assert float(fourier_shell_correlation(found, turned)[1:8].min()) > 0.95
    angles = starfile.read(out / "particles.star", always_dict=True)["particles"]["rlnAngleRot"]
    assert angles.abs().max() <= 60.01


@pytest.mark.slow
def test_auto_says_which_symmetry_the_map_has(data, tmp_path):
    listener = Counting()
    settings = Settings(particles=data / "particles.star", out=tmp_path / "run", threads=2, symmetry="auto", first=600)
    reconstruct(settings, listener)
    assert [note for note in listener.notes if "no symmetry (C1)" in note]
    said = json.loads((tmp_path / "run" / "symmetry.json").read_text())
    assert said["symmetry"] == "C1"
    assert all(0 <= abs(c["score"]) <= 1 and len(c["main_axis"]) == 3 for c in said["candidates"])


@pytest.mark.slow
def test_chosen_particles_of_a_distorted_set_are_centred_and_solved(tmp_path):
    density = density_from_source("phantom", BOX, PIXEL, seed=1)
    distorted = ImagingConditions(snr=0.3, shift_sd=2.0, magnification=(1.04, 0.03, -0.02, 0.96), beam_tilt=(15.0, -10.0))
    simulate(density, PIXEL, COUNT + 100, tmp_path, distorted, seed=3)
    index, out, truth = tmp_path / "rows.txt", tmp_path / "run", tmp_path / "truth.star"
    index.write_text("\n".join(str(i) for i in range(COUNT + 100) if i % 20))
    settings = Settings(
        particles=truth, out=out, threads=2, proposals="grid", particles_index=index, first=1100, recentre=True
    )
    reconstruct(settings)
    figures = evaluate(out, truth_map=tmp_path / "truth.mrc", truth_poses=truth)
    assert figures["rotation_error_deg"]["within_10"] > 90
    assert figures["shift_error_A"]["median_px"] < 0.4
    assert figures["resolution_A"]["fsc_0_5"] < 1.12 * figures["true_poses_A"]["fsc_0_5"]
    rows = starfile.read(out / "particles.star", always_dict=True)["particles"]
    assert [int(name[:6]) - 1 for name in rows["rlnImageName"]] == [i for i in range(COUNT + 100) if i % 20][:1100]
