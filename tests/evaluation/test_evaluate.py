"""A run is compared with the truth of the particles that it used."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import starfile
import tomli_w
import torch

from cryospin.cli.evaluate import as_table
from cryospin.errors import InputError
from cryospin.evaluation.evaluate import evaluate
from cryospin.formats.star import read_poses
from cryospin.formats.table import AssignedPoses
from cryospin.formats.volume import write_map
from cryospin.geometry.rotations import random_rotations, to_rotation_vectors
from cryospin.maps.fsc import shell_of_voxels
from cryospin.particles import ParticleSet
from cryospin.settings import Settings
from cryospin.simulation import ImagingConditions, simulate

COUNT, BOX, PIXEL = 240, 20, 7.0


@pytest.fixture(scope="module")
def imaged(tmp_path_factory, blobs):
    folder = tmp_path_factory.mktemp("imaged")
    conditions = ImagingConditions(snr=1.0, magnification=(1.03, 0.01, -0.01, 0.98))
    simulate(blobs.density(BOX), PIXEL, COUNT, folder, conditions, seed=1)
    return folder


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("\n".join(str(i) for i in range(1, COUNT, 2)))
    return path


@pytest.fixture
def finished(imaged, blobs, tmp_path):
    """Writes the folder of a run that found the true poses, or those of other particles."""

    def write(wrong=False, **options):
        settings = Settings(particles=imaged / "truth.star", out=tmp_path / "run", **options)
        table = ParticleSet.load(settings.particles, selection=settings.selection).table
        count, poses = len(table), table.poses
        rotation = random_rotations(count, torch.Generator().manual_seed(0)) if wrong else poses.rotation
        settings.out.mkdir()
        found = AssignedPoses(rotation, poses.shift, np.arange(count) % 2 + 1, np.ones(count), np.zeros(count))
        table.source.write(settings.out, table, found)
        write_map(settings.out / "map.mrc", blobs.density(BOX), PIXEL)
        resolved = {"box": BOX, "mask_diameter_A": 120.0, "max_resolution_A": 15.0, "invert": False}
        (settings.out / "config.toml").write_text(tomli_w.dumps(settings.table() | resolved))
        return settings.out

    return write


CHOICES = {
    "all": {},
    "first": {"first": 110},
    "listed": {"particles_index": True},
    "first of those listed": {"first": 105, "particles_index": True},
    "a sample": {"sample": 110},
    "recentred": {"first": 110, "recentre": True},
}


@pytest.mark.parametrize("options", CHOICES.values(), ids=CHOICES.keys())
def test_poses_are_compared_particle_by_particle(imaged, finished, index, options):
    run = finished(**options | ({"particles_index": index} if "particles_index" in options else {}))
    figures = evaluate(run, truth_map=imaged / "truth.mrc", truth_poses=imaged / "truth.star")
    assert figures["rotation_error_deg"]["mean"] < 0.01
    assert figures["shift_error_A"]["median"] < 0.01
    assert figures["hand"] == "same"
    assert figures["map_correlation"] == pytest.approx(1, abs=1e-3)
    assert PIXEL * 2 < figures["true_poses_A"]["fsc_0_5"] < 30


def test_wrong_poses_are_called_so(imaged, finished):
    figures = evaluate(finished(wrong=True, first=150), truth_poses=imaged / "truth.star", ceiling=False)
    assert figures["rotation_error_deg"]["median"] > 30
    assert figures["true_poses_A"] is None


@pytest.mark.parametrize("options", [{"first": 110}, {"particles_index": True}])
def test_the_truth_of_the_chosen_particles_alone_will_do(finished, index, options):
    run = finished(**options | ({"particles_index": index} if "particles_index" in options else {}))
    figures = evaluate(run, truth_poses=run / "particles.star", ceiling=False)
    assert figures["rotation_error_deg"]["mean"] < 1e-3


@pytest.mark.parametrize("options", [{}, {"first": 110}])
def test_true_poses_may_be_those_of_cryosparc(imaged, finished, tmp_path, options):
    true = read_poses(imaged / "truth.star")
    rows = np.zeros(COUNT, [("alignments3D/pose", "f4", 3), ("alignments3D/shift", "f4", 2), ("alignments3D/psize_A", "f4")])
    rows["alignments3D/pose"] = to_rotation_vectors(true.rotation.mT)
    rows["alignments3D/shift"] = -true.shift / 3.5
    rows["alignments3D/psize_A"] = 3.5
    with (tmp_path / "truth.cs").open("wb") as handle:
        np.save(handle, rows)
    figures = evaluate(finished(**options), truth_poses=tmp_path / "truth.cs", ceiling=False)
    assert figures["rotation_error_deg"]["mean"] < 0.01
    assert figures["shift_error_A"]["median"] < 0.01


def test_the_truth_of_other_particles_is_refused(finished, simulated):
    run = finished(first=110)
    with pytest.raises(InputError, match=r"truth\.star: has 12 particles, the run 110\. Give the same particles"):
        evaluate(run, truth_poses=simulated / "truth.star", ceiling=False)


def test_images_that_are_gone_are_named_with_the_way_to_do_without(imaged, finished, tmp_path):
    run = finished()
    (tmp_path / "alone").mkdir()
    shutil.copy(imaged / "truth.star", tmp_path / "alone")
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace(str(imaged / "truth.star"), str(tmp_path / "alone" / "truth.star")))
    with pytest.raises(InputError, match=r"particles\.mrcs.*--datadir, or do without.*--no-ceiling"):
        evaluate(run, truth_poses=imaged / "truth.star")
    assert evaluate(run, truth_poses=imaged / "truth.star", ceiling=False)["rotation_error_deg"]["mean"] < 0.01


def test_poses_without_a_run_are_refused(imaged):
    with pytest.raises(InputError, match=r"nothing to compare the map with\. Give --truth-map"):
        evaluate(imaged / "truth.mrc")
    with pytest.raises(InputError, match=r"a map alone has no poses\. Give the run's folder, or drop --truth-poses"):
        evaluate(imaged / "truth.mrc", truth_poses=imaged / "truth.star")


def test_a_resolution_that_the_box_cannot_tell_is_called_a_bound(imaged, finished):
    run = finished(first=110)
    shells = [f"{BOX * PIXEL / shell},0.9,0.9,0,{fsc}" for shell, fsc in enumerate([0.9, 0.8, 0.1, 0], 1)]
    (run / "fsc.csv").write_text("\n".join(["resolution_A,fsc_unmasked,fsc_masked,fsc_randomised,fsc_corrected", *shells]))
    figures = evaluate(run, truth_map=imaged / "truth.mrc", truth_poses=imaged / "truth.star")
    finest = BOX * PIXEL / (BOX // 2 - 1)
    assert figures["at_most"]["resolution_A"] == ["fsc_0_5", "fsc_0_143"]
    assert figures["resolution_A"]["fsc_0_5"] == figures["resolution_A"]["fsc_0_143"] == pytest.approx(finest)
    assert BOX * PIXEL / 3 < figures["resolution_A"]["half_map_0_143"] < BOX * PIXEL / 2
    for name, at in figures["true_poses_A"].items():
        assert (name in figures["at_most"]["true_poses_A"]) == (at == pytest.approx(finest)), name
    text, measured = as_table(figures), figures["resolution_A"]["half_map_0_143"]
    assert f"\nFSC 0.5 to truth    ≤ {finest:.2f} Å (finest of the box)  (true poses: " in text
    assert f"\nhalf maps 0.143     {measured:.2f} Å  (true poses: " in text


def test_a_resolution_that_was_measured_is_printed_as_it_is(imaged, blobs, tmp_path):
    density = torch.fft.rfftn(blobs.density(BOX).double())
    density[shell_of_voxels(BOX) > 5] = 0
    write_map(tmp_path / "blurred.mrc", torch.fft.irfftn(density, s=(BOX,) * 3), PIXEL)
    figures = evaluate(tmp_path / "blurred.mrc", truth_map=imaged / "truth.mrc")
    assert figures["at_most"] == {"resolution_A": [], "true_poses_A": []}
    assert "≤" not in as_table(figures)


def test_a_run_whose_images_moved_can_be_told_where(imaged, finished, tmp_path):
    moved = tmp_path / "disk"
    moved.mkdir()
    shutil.copy(imaged / "particles.mrcs", moved)
    shutil.copy(imaged / "truth.star", tmp_path)
    run = finished(first=110)
    config = run / "config.toml"
    config.write_text(config.read_text().replace(str(imaged / "truth.star"), str(tmp_path / "truth.star")))
    with pytest.raises(InputError, match="not found"):
        evaluate(run, truth_poses=imaged / "truth.star")
    assert evaluate(run, truth_poses=imaged / "truth.star", datadir=moved)["true_poses_A"] is not None


@pytest.mark.parametrize("elsewhere", [False, True])
def test_true_poses_are_found_by_the_names_of_their_images(imaged, finished, tmp_path, elsewhere):
    star = starfile.read(imaged / "truth.star", always_dict=True)
    star["particles"] = star["particles"].sample(frac=1, random_state=3)
    if elsewhere:
        star["particles"]["rlnImageName"] = [name.replace("@", "@old/place/") for name in star["particles"]["rlnImageName"]]
    starfile.write(star, tmp_path / "shuffled.star")
    for options in ({}, {"first": 100}):
        run = finished(**options)
        figures = evaluate(run, truth_poses=tmp_path / "shuffled.star", ceiling=False)
        assert figures["rotation_error_deg"]["within_5"] == 100
        assert figures["hand"] == "same"
        shutil.rmtree(run)


def test_names_that_do_not_tell_leave_the_order(imaged, finished, tmp_path):
    star = starfile.read(imaged / "truth.star", always_dict=True)
    star["particles"]["rlnImageName"] = [f"{i + 1}@another.mrcs" for i in range(COUNT)]
    starfile.write(star, tmp_path / "renamed.star")
    assert evaluate(finished(), truth_poses=tmp_path / "renamed.star", ceiling=False)["rotation_error_deg"]["mean"] < 0.1
