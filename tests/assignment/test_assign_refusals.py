"""What assign refuses, and what it leaves behind where it fails: nothing."""

from __future__ import annotations

import shutil

import pytest
import torch
from known_truth import BOX, PIXEL
from typer.testing import CliRunner

from cryospin.assignment import assign
from cryospin.cli import app
from cryospin.engine.assign import Assigner
from cryospin.errors import InputError
from cryospin.formats.tensors import write_tensors
from cryospin.formats.volume import write_map
from cryospin.simulation import ImagingConditions, simulate


def test_images_of_another_size_are_refused(run, particle, tmp_path):
    simulate(particle.density(24), PIXEL, 20, tmp_path / "small", ImagingConditions(), seed=1)
    with pytest.raises(InputError, match=r"particles\.star: images are 144\.0 Å wide .*, the run's 192\.0 Å\. Extract"):
        assign(run, tmp_path / "small" / "particles.star", tmp_path / "out")
    assert not (tmp_path / "out").exists()


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
