"""The command line: what it prints, what it writes and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys

import mrcfile
import numpy as np
import pytest
from typer.testing import CliRunner

from cryospin.cli import app


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


COUNT = 110


@pytest.fixture
def particles(tmp_path):
    """A few simulated images of 24 pixels."""
    result = call("simulate", "--out", tmp_path / "data", "--n", COUNT, "--box", 24, "--pixel-size", 8, "--seed", 4)
    assert result.exit_code == 0, result.output
    return tmp_path / "data" / "particles.star"


def complaint(result, *words):
    """The one line a failed command ends with."""
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("cryospin: error: ")
    assert [w for w in words if w not in lines[0]] == []
    return lines[0]


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_simulate_writes_images_and_truth(particles):
    names = {p.name for p in particles.parent.iterdir()}
    assert names == {"particles.star", "particles.mrcs", "truth.star", "truth.mrc"}


def test_simulate_refuses_a_signal_to_noise_ratio_of_zero(tmp_path):
    complaint(call("simulate", "--out", tmp_path / "x", "--snr", 0), "--snr", "0.1")
    assert not (tmp_path / "x").exists()


def test_simulate_writes_over_nothing(particles):
    before = particles.read_bytes()
    complaint(call("simulate", "--out", particles.parent, "--n", 5, "--box", 24), "particles.star", "is there already")
    assert particles.read_bytes() == before


@pytest.mark.parametrize("seed", [-1, 10**20])
def test_simulate_refuses_a_seed_that_is_none(tmp_path, seed):
    complaint(call("simulate", "--out", tmp_path / "x", "--n", 5, "--box", 24, "--seed", seed), f"--seed {seed}")


def test_a_folder_with_the_particles_is_not_written_to(particles):
    before = particles.read_bytes()
    complaint(call("reconstruct", particles, "--out", particles.parent), "particles.star", "is there already")
    assert particles.read_bytes() == before


def test_what_else_is_in_a_folder_survives_a_run_that_cannot_begin(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    complaint(call("reconstruct", tmp_path / "none.star", "--out", tmp_path), "none.star", "no such file")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "log.txt").write_text("mine, too")
    complaint(call("reconstruct", tmp_path / "none.star", "--out", tmp_path), "log.txt", "is there already")
    assert (tmp_path / "log.txt").read_text() == "mine, too"


def test_a_name_that_is_no_utf8_is_refused(tmp_path):
    complaint(call("reconstruct", f"{tmp_path}/gr\udcf6.star", "--out", tmp_path / "run"), "not UTF-8", "Rename")
    assert not (tmp_path / "run").exists()


def test_a_missing_table_is_named(tmp_path):
    out = tmp_path / "run"
    complaint(call("reconstruct", tmp_path / "none.star", "--out", out), "none.star", "no such file")
    assert not out.exists()


def test_a_missing_stack_is_named_with_the_places_tried(particles, tmp_path):
    (particles.parent / "particles.mrcs").unlink()
    complaint(
        call("reconstruct", particles, "--out", tmp_path / "run"), "particles.mrcs", "--datadir", str(particles.parent)
    )
    assert not (tmp_path / "run").exists()


def test_a_missing_column_is_named(particles, tmp_path):
    edit(particles, "_rlnDefocusU", "_rlnSomethingElse")
    complaint(call("reconstruct", particles, "--out", tmp_path / "run"), "particles.star", "rlnDefocusU", "CTF")


def test_images_that_are_not_square_are_refused(particles, tmp_path):
    stack = particles.parent / "particles.mrcs"
    stack.unlink()
    with mrcfile.new(stack) as handle:
        handle.set_data(np.ones((COUNT, 24, 20), np.float32))
    complaint(call("reconstruct", particles, "--out", tmp_path / "run"), "particles.mrcs", "20 x 24", "square")


def test_a_table_without_particles_is_refused(particles, tmp_path):
    text = particles.read_text().splitlines()
    particles.write_text("\n".join(line for line in text if "@particles.mrcs" not in line) + "\n")
    complaint(call("reconstruct", particles, "--out", tmp_path / "run"), "particles.star", "no particles")


def test_too_few_particles_are_refused(particles, tmp_path):
    lines = particles.read_text().splitlines()
    keep = [line for line in lines if "@particles.mrcs" not in line or line[:6] <= "000012"]
    particles.write_text("\n".join(keep) + "\n")
    complaint(call("reconstruct", particles, "--out", tmp_path / "run"), "particles.star", "12 particles", "100")
    assert not (tmp_path / "run").exists()


def test_nan_pixels_are_found(particles, tmp_path):
    with mrcfile.open(particles.parent / "particles.mrcs", mode="r+") as handle:
        handle.data[4, 2, 2] = np.nan
    complaint(call("reconstruct", particles, "--out", tmp_path / "run"), "particles.mrcs", "image 5", "NaN", "Remove")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--preset", "magic"),
        ("--proposals", "guess"),
        ("--box", "25"),
        ("--box", "400"),
        ("--symmetry", "Q3"),
        ("--threads", "0"),
        ("--mask-diameter", "-3"),
        ("--mask-diameter", "193"),
        ("--max-resolution", "40"),
        ("--seed", "-1"),
        ("--device", "abacus"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(particles, tmp_path, option, value):
    complaint(call("reconstruct", particles, "--out", tmp_path / "run", option, value), option, value)
    assert not (tmp_path / "run").exists()


def test_evaluate_refuses_a_folder_that_is_no_run(tmp_path):
    complaint(call("evaluate", tmp_path), str(tmp_path), "map.mrc")


def test_evaluate_refuses_to_write_where_it_cannot_before_it_measures(tmp_path):
    complaint(call("evaluate", tmp_path / "none", "--json", tmp_path), str(tmp_path), "is a folder")
    complaint(call("evaluate", tmp_path / "none", "--json", tmp_path / "x" / "y"), str(tmp_path / "x"), "no such folder")


def test_evaluate_of_a_map_with_itself_is_perfect(particles, tmp_path):
    truth = particles.parent / "truth.mrc"
    out = tmp_path / "figures.json"
    result = call("evaluate", truth, "--truth-map", truth, "--json", out)
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert set(figures) >= {"rotation_error_deg", "shift_error_A", "hand", "resolution_A", "map_correlation"}
    assert set(figures["resolution_A"]) == {"fsc_0_5", "fsc_0_143", "half_map_0_143"}
    assert figures["map_correlation"] > 0.99
    assert figures["hand"] == "same"


def test_evaluate_refuses_a_map_of_another_size(particles, tmp_path):
    other = tmp_path / "other.mrc"
    with mrcfile.new(other) as handle:
        handle.set_data(np.ones((24, 24, 24), np.float32))
        handle.voxel_size = 3.0
    complaint(call("evaluate", particles.parent / "truth.mrc", "--truth-map", other), "other.mrc", "72 Å", "192 Å")


def test_report_refuses_a_folder_that_is_no_run(tmp_path):
    complaint(call("report", tmp_path), str(tmp_path))


def test_doctor_lists_versions_as_json():
    result = call("doctor", "--json")
    assert result.exit_code == 0
    assert json.loads(result.output)["versions"]["torch"]


def test_where_compiled_code_cannot_be_kept_the_program_works_and_doctor_says_so():
    read_only = "from numba.core.caching import CacheImpl; CacheImpl._locator_classes = []; "
    doctor = "import sys; sys.argv = ['cryospin', 'doctor', '--json']; from cryospin.cli import main; main()"
    told = subprocess.run([sys.executable, "-c", read_only + doctor], capture_output=True, text=True, check=True)
    assert "set NUMBA_CACHE_DIR" in json.loads(told.stdout)["compile cache"]["state"]


def test_help_names_every_command():
    result = call("--help")
    assert result.exit_code == 0
    for command in ("simulate", "check", "reconstruct", "evaluate", "report", "watch", "doctor"):
        assert command in result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_taught_to_complete_commands(shell, monkeypatch):
    shown = CliRunner().invoke(app, ["--show-completion", shell], prog_name="cryospin")
    assert shown.exit_code == 0
    assert "_CRYOSPIN_COMPLETE" in shown.stdout
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "cryospin ass")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("COMP_WORDS", "cryospin ass")
    monkeypatch.setenv("COMP_CWORD", "1")
    completed = CliRunner().invoke(app, [], prog_name="cryospin", env={"_CRYOSPIN_COMPLETE": f"complete_{shell}"})
    assert "assign" in completed.stdout
    assert "reconstruct" not in completed.stdout
