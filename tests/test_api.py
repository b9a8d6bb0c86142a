"""The Python interface: the page about it runs as it stands, and what it returns is what the files say."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import mrcfile
import numpy as np
import pytest

import cryospin
from cryospin.formats.star import read_poses

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
SMALL = "box=24, pixel_size=8.0, conditions=cryospin.ImagingConditions(snr=0.5)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the page's code ran, on one thread and small images; clear ones, since faint ones are explored for longer."""
    folder = tmp_path_factory.mktemp("api")
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    small = {
        "n=3000, box=64, pixel_size=5.0": f"n=150, {SMALL}",
        'out="watched"': 'out="watched", first=120',
        "first=500": "first=100",
    }
    for old, new in small.items():
        assert old in code
        code = code.replace(old, new)
    code = code.replace("cryospin.reconstruct(", "cryospin.reconstruct(threads=1, starts=1, particles=")
    # The first lines reconstruct from particles that a reader has.
    own = f"cryospin.simulate('.', n=130, {SMALL})\n"
    script = folder / "page.py"
    script.write_text(code.replace("import cryospin\n", f"import cryospin\n{own}", 1))
    own_source = os.environ | {"PYTHONPATH": str(Path(cryospin.__file__).parents[1])}
    done = subprocess.run([sys.executable, script], cwd=folder, env=own_source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^[\d.]+ Å, 24 voxels of 8\.00 Å$", done.stdout, re.MULTILINE)
    assert re.search(r"^refine \d+ [\d.]+ Å", done.stdout, re.MULTILINE)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return cryospin.load_run(folder / "demo")


def test_all_public_names_are_there():
    assert [name for name in cryospin.__all__ if not hasattr(cryospin, name)] == []
    assert set(dir(cryospin)) == set(cryospin.__all__)
    assert set(cryospin._PUBLIC) == set(cryospin.__all__)
    with pytest.raises(AttributeError, match="no attribute 'reconstrct'"):
        _ = cryospin.reconstrct


def test_every_setting_can_be_given_by_its_name():
    parameters = inspect.signature(cryospin.reconstruct).parameters
    assert parameters.keys() - {"listener"} == {field.name for field in fields(cryospin.Settings)}
    given = {f.name: f.default for f in fields(cryospin.Settings) if f.default is not MISSING}
    assert {name: parameters[name].default for name in given} == given


@pytest.mark.parametrize("name", ["map", "other_hand", "mask"])
def test_maps_are_those_of_the_files(run, name):
    file = {"other_hand": "map_other_hand"}.get(name, name)
    with mrcfile.open(run.path / f"{file}.mrc") as handle:
        assert np.array_equal(getattr(run, name).density, handle.data)
        assert getattr(run, name).pixel_size == pytest.approx(float(handle.voxel_size.x))
    assert not np.array_equal(*(half.density for half in run.half_maps))


def test_poses_are_those_of_the_table(run):
    given = read_poses(run.path / "particles.star")
    assert len(run.poses) == 150
    assert np.array_equal(run.poses.rotation, given.rotation.numpy())
    assert np.array_equal(run.poses.shift_A, given.shift.numpy())
    assert set(run.poses.half) == {1, 2}
    assert (run.poses.confidence > 0).all()
    assert (run.poses.confidence <= 1).all()
    text = (run.path / "particles.star").read_text().splitlines()
    labels = [line.split()[0] for line in text if line.startswith("_rln")]
    row = next(line.split() for line in text if line.startswith("000001@"))
    labels = labels[labels.index("_rlnImageName") :]
    expected = [float(row[labels.index(f"_rlnAngle{name}")]) for name in ("Rot", "Tilt", "Psi")]
    difference = (run.poses.angles_deg[0] - expected + 180) % 360 - 180
    assert np.abs(difference).max() < 1e-3


def test_curves_epochs_and_settings(run):
    assert list(run.fsc) == ["resolution_A", "fsc_unmasked", "fsc_masked", "fsc_randomised", "fsc_corrected"]
    assert run.fsc["resolution_A"].max() >= run.resolution >= run.fsc["resolution_A"].min()
    assert list(run.metrics["epoch"]) == list(range(1, len(run.metrics) + 1))
    assert run.config["threads"] == 1


@pytest.mark.parametrize("name", ["plot_fsc", "plot_orientations", "plot_slices", "plot_progress"])
def test_figures_are_returned_and_written_where_asked(run, name, tmp_path):
    figure = getattr(run, name)()
    assert figure.axes
    assert list(tmp_path.iterdir()) == []
    getattr(run, name)(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_poses_of_new_particles_are_those_of_the_table(folder, run, tmp_path):
    found = cryospin.assign(run.path, folder / "data" / "particles.star", tmp_path, proposals="grid", threads=1)
    given = read_poses(tmp_path / "particles.star")
    assert len(found) == 150
    assert found.poses.rotation == pytest.approx(given.rotation.numpy(), abs=1e-5)
    assert found.poses.shift_A == pytest.approx(given.shift.numpy(), abs=1e-4)
    assert cryospin.load_run(run.path).poses.angles_deg.shape == found.poses.angles_deg.shape
    # The page did it for some.
    assert len(read_poses(folder / "assigned" / "particles.star").rotation) == 100
    assert (folder / "assigned.png").stat().st_size > 5000


def test_a_finished_run_is_resumed_at_once(run):
    assert cryospin.resume(run.path) == run


def test_a_run_that_is_not_finished_is_refused(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "finished.json").unlink()
    with pytest.raises(cryospin.InputError, match=r"is not finished. Continue it first: cryospin resume"):
        cryospin.load_run(tmp_path / "run")
    with pytest.raises(cryospin.InputError, match="holds no run"):
        cryospin.load_run(tmp_path)
