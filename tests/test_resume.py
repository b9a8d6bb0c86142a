"""A run that was stopped ends as one that was not: whatever stopped it, wherever."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import shutil
import stat
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cryospin import checkpoints, stages
from cryospin.cli import app
from cryospin.engine import explore_grid, explore_heads, refine
from cryospin.engine.record import Silence
from cryospin.errors import InputError
from cryospin.pipeline import reconstruct, resume
from cryospin.proposals import grid
from cryospin.settings import Settings
from cryospin.simulation import ImagingConditions, density_from_source, simulate

COUNT, BOX, PIXEL = 130, 24, 8.0
KILL = Path(__file__).parents[1] / "benchmarks" / "kill.py"


def _load_kill():
    spec = importlib.util.spec_from_file_location("kill", KILL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


differences = _load_kill().differences


class Killed(BaseException):
    """Ends a run at once: nothing that catches errors catches it."""


class Killer(Silence):
    """Ends a run at a given epoch or note since it listens."""

    def __init__(self, *, epoch=None, note=None, with_=Killed):
        self.left, self.words, self.death, self.stages = epoch, note, with_, []

    def epoch(self, record):
        self.stages.append(record.stage)
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise self.death

    def note(self, text):
        if self.words is not None and self.words in text:
            raise self.death


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    """Runs of a few seconds that pass through everything: it does not matter here what they find."""
    monkeypatch.setattr(explore_grid, "_EPOCHS", 2)
    monkeypatch.setattr(explore_grid, "_BATCHES", 2)
    monkeypatch.setattr(explore_heads, "_EPOCHS", 2)
    monkeypatch.setattr(grid, "_FINEST_STEP_DEG", 30.0)
    monkeypatch.setattr(stages, "_CONVINCING", 0.0)
    monkeypatch.setattr(stages, "_CLEAR_IMAGES", 0.0)
    monkeypatch.setattr(stages, "COMPETITORS", 60)
    monkeypatch.setattr(stages, "_ENLISTED", 40)
    monkeypatch.setattr(refine.Refinement, "epochs", 4)
    monkeypatch.setattr(checkpoints, "SHARE", float("inf"))
    # Figures take longer than everything else together.
    monkeypatch.setattr("cryospin.report.page.write_report", lambda run: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    density = density_from_source("phantom", BOX, PIXEL, seed=1)
    simulate(density, PIXEL, COUNT, out, ImagingConditions(snr=0.3, shift_sd=1.0), seed=3)
    return out


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Runs that nothing stopped, by what they explored with; made when first asked for."""
    made = {}

    def run(proposals):
        if proposals not in made:
            made[proposals] = tmp_path_factory.mktemp("runs") / proposals
            reconstruct(settings(data, made[proposals], proposals))
        return made[proposals]

    return run


def settings(data, out, proposals="both", **more):
    return Settings(
        particles=data / "particles.star",
        out=out,
        proposals=proposals,
        threads=1,
        starts=2,
        truth_poses=data / "truth.star",
        **more,
    )


def begun(data, out, listener):
    """A run that a listener stopped."""
    with pytest.raises(listener.death):
        reconstruct(settings(data, out), listener)
    return out


def arguments(data, out):
    """The same on the command line."""
    return data / "particles.star", "--out", out, "--threads", 1, "--starts", 2, "--truth-poses", data / "truth.star"


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize("proposals", ["both", *(pytest.param(name, marks=pytest.mark.slow) for name in ("heads", "grid"))])
def test_a_run_killed_in_every_epoch_ends_as_one_that_was_not(data, whole, tmp_path, proposals):
    out, killer, deaths, seen = tmp_path / "run", Killer(epoch=2), 0, []
    try:
        reconstruct(settings(data, out, proposals), killer)
    except Killed:
        deaths += 1
    while not (out / "checkpoints" / "finished.json").exists():
        seen += killer.stages
        killer = Killer(epoch=2)
        try:
            resume(out, killer)
        except Killed:
            deaths += 1
    assert set(seen) == {"explore", "compete", "refine"}
    # An epoch that died is done again, and the next one dies; steps without an epoch of their own take one more.
    epochs = len((out / "metrics.jsonl").read_text().splitlines())
    assert epochs // 2 <= deaths < epochs
    assert differences(whole(proposals), out) == []
    assert {p.name for p in (out / "checkpoints").iterdir()} >= {"finished.json", "modes.safetensors"}
    assert list(out.rglob("step-*")) == []


NOTES = ("protein is", "start 1", "start 2", "no start", "switch to", "half-sets", "refinement ends", "done")


@pytest.mark.slow
def test_a_run_killed_between_epochs_ends_as_one_that_was_not(data, whole, tmp_path):
    out = begun(data, tmp_path / "run", Killer(note=NOTES[0]))
    for words in NOTES[1:]:
        with pytest.raises(Killed):
            resume(out, Killer(note=words))
    assert resume(out) is True
    assert differences(whole("both"), out) == []


def test_a_run_killed_while_it_writes_its_results_ends_as_one_that_was_not(data, whole, tmp_path, monkeypatch):
    move, out = Path.replace, begun(data, tmp_path / "run", Killer(note="refinement ends"))
    for what in ("map.mrc", "fsc.csv", "particles.star", "heads.safetensors", "config.toml", "finished.json"):

        def fatal(self, target, what=what):
            if Path(target).name == what:
                raise Killed
            return move(self, target)

        monkeypatch.setattr(Path, "replace", fatal)
        with pytest.raises(Killed):
            resume(out)
    monkeypatch.setattr(Path, "replace", move)
    (out / ".map.mrc.123.part").write_bytes(b"what a kill leaves behind")
    resume(out)
    assert differences(whole("both"), out) == []


def test_epochs_and_seconds_go_on(data, tmp_path):
    out = begun(data, tmp_path / "run", Killer(epoch=4))
    before = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][:3]
    path = max((out / "checkpoints").glob("step-*.json"))
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(kept | {"seconds": 1000.0}))
    resume(out)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert records[:3] == before
    assert [r["epoch"] for r in records] == list(range(1, len(records) + 1))
    assert all(1000 < r["seconds"] < 1100 for r in records[3:])


def test_ctrl_c_saves_and_says_how_to_go_on(data, whole, tmp_path, monkeypatch):
    # A disk so slow that only the first checkpoint would be written.
    monkeypatch.setattr(checkpoints, "SHARE", 0.0)
    killer = Entered(Killer(epoch=5, with_=KeyboardInterrupt))
    monkeypatch.setattr("cryospin.cli.reconstruct.RunListener", lambda progress: killer)
    out = tmp_path / "run"
    result = call("reconstruct", *arguments(data, out))
    assert result.exit_code == 130
    assert result.stderr.strip() == f"cryospin: interrupted; continue with: cryospin resume {out}"
    assert json.loads((out / "checkpoints" / "step-0004.json").read_text())["epoch"] == 4
    result = call("resume", out)
    assert result.exit_code == 0, result.output
    assert "continues after epoch 4" in result.output
    assert differences(whole("both"), out) == []


class Entered:
    """A listener as a context."""

    def __init__(self, listener):
        self.listener = listener

    def __enter__(self):
        return self.listener

    def __exit__(self, *error):
        return None


def test_a_finished_run_says_so(data, whole):
    result = call("resume", whole("both"))
    assert result.exit_code == 0
    assert "is finished" in result.output


def test_a_folder_without_a_run_is_refused(tmp_path):
    result = call("resume", tmp_path)
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"cryospin: error: {tmp_path}: holds no run. Give the folder that cryospin reconstruct --out wrote\n"
    )


@pytest.fixture
def stopped(data, tmp_path):
    """A run on its own copy of the data, stopped in its third epoch."""
    own = tmp_path / "data"
    shutil.copytree(data, own)
    return begun(own, tmp_path / "run", Killer(epoch=3))


@pytest.mark.parametrize("name", ["particles.star", "particles.mrcs", "truth.star"])
@pytest.mark.parametrize("harm", ["touched", "grown", "gone"])
def test_input_that_has_changed_is_refused_by_name(stopped, name, harm):
    path = stopped.parent / "data" / name
    if harm == "touched":
        os.utime(path, ns=(1, 1))
    elif harm == "grown":
        path.write_bytes(path.read_bytes() + b"\n")
    else:
        path.unlink()
    with pytest.raises(InputError, match=rf"{name}: .*(has changed since|no such file).* start anew") as caught:
        resume(stopped)
    assert "\n" not in str(caught.value)


def test_settings_that_have_changed_are_refused_by_name(stopped):
    config = stopped / "config.toml"
    config.write_text(config.read_text().replace("seed = 0", "seed = 7"))
    with pytest.raises(InputError, match=r"config\.toml: seed was 0 when the run began and is 7"):
        resume(stopped)


def test_two_processes_do_not_work_on_one_run(stopped):
    code = (
        "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
        "print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, stopped], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match="another process is working on this run"):
            resume(stopped)
        other.kill()


@pytest.mark.parametrize("name", ["threads", "memory"])
def test_none_of_what_is_needed_is_refused(stopped, name):
    with pytest.raises(InputError, match=f"--{name} 0 is not a number of"):
        resume(stopped, **{name: 0})


def test_other_memory_is_taken_and_written_down(stopped):
    resume(stopped, memory=0.001)
    assert "memory = 0.001" in (stopped / "config.toml").read_text()
    assert "are kept in memory" in (stopped / "log.txt").read_text(), "said when it began"


def test_other_threads_are_taken_and_written_down(stopped):
    resume(stopped, threads=2)
    assert "threads = 2" in (stopped / "config.toml").read_text()


def test_a_run_resumed_with_other_threads_may_be_killed_again_while_it_writes(stopped, monkeypatch):
    move = Path.replace

    def fatal(self, target):
        if Path(target).name == "finished.json":
            raise Killed
        return move(self, target)

    monkeypatch.setattr(Path, "replace", fatal)
    with pytest.raises(Killed):
        resume(stopped, threads=2)
    monkeypatch.setattr(Path, "replace", move)
    assert resume(stopped) is True


def test_a_run_whose_stacks_lie_in_the_current_folder_goes_on_from_any_other(data, tmp_path, monkeypatch):
    project, table = tmp_path / "project", tmp_path / "tables" / "particles.star"
    shutil.copytree(data, project)
    table.parent.mkdir()
    (project / "particles.star").rename(table)
    monkeypatch.chdir(project)
    with pytest.raises(Killed):
        reconstruct(replace(settings(project, tmp_path / "run"), particles=table), Killer(epoch=3))
    monkeypatch.chdir(tmp_path)
    assert resume(tmp_path / "run") is True


def test_bad_input_leaves_no_folder(data, tmp_path):
    with pytest.raises(InputError):
        reconstruct(replace(settings(data, tmp_path / "run"), box=400))
    assert not (tmp_path / "run").exists()


def _with_small_files(limit):
    def before():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return before


def command(*arguments, **options):
    """A command in a process of its own."""
    line = [sys.executable, "-c", "from cryospin.cli import main; main()", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)


def test_a_full_disk_ends_with_one_line_and_a_run_that_resumes(data, whole, tmp_path, monkeypatch):
    """No file may grow beyond what the first checkpoints take, so one with trained heads does not fit."""
    out, write = tmp_path / "run", checkpoints._write_through

    def full(path, content):
        if len(content) > 2_000_000:
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(checkpoints, "_write_through", full)
    result = call("reconstruct", *arguments(data, out))
    assert result.exit_code == 2
    assert re.fullmatch(
        rf"cryospin: error: .*step-\d+\.safetensors: No space left on device; once that is fixed, "
        rf"continue with: cryospin resume {re.escape(str(out))}\n",
        result.stderr,
    )
    monkeypatch.setattr(checkpoints, "_write_through", write)
    assert resume(out) is True
    assert differences(whole("both"), out) == []


def test_a_folder_that_may_not_be_written_to_ends_with_one_line_and_a_run_that_resumes(data, whole, tmp_path, as_somebody):
    out = begun(data, tmp_path / "run", Killer(epoch=3))
    with as_somebody(out):
        result = call("resume", out)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "Permission denied; once that is fixed, continue with: cryospin resume" in result.stderr
    assert resume(out) is True
    assert differences(whole("both"), out) == []


@pytest.fixture
def as_somebody(tmp_path):
    """Makes a folder read-only and the process somebody who has to heed that: root does not."""

    @contextmanager
    def taken_away(folder):
        inside = [folder, *folder.rglob("*")]
        closed = [path for path in (tmp_path, *tmp_path.parents) if not path.stat().st_mode & stat.S_IXOTH]
        modes = {path: path.stat().st_mode for path in (*inside, *closed)}
        root = os.geteuid() == 0
        for path in modes:
            path.chmod(0o555 if path in inside else 0o755)
        try:
            if root:
                os.seteuid(65534)
            yield
        finally:
            if root:
                os.seteuid(0)
            for path, mode in modes.items():
                path.chmod(mode)

    return taken_away


@pytest.mark.slow
def test_files_that_really_may_not_grow_end_with_one_line_and_a_run_that_resumes(tmp_path):
    data, out, whole = tmp_path / "data", tmp_path / "run", tmp_path / "whole"
    command("simulate", "--out", data, "--n", COUNT, "--box", BOX, "--pixel-size", PIXEL)
    start = ("reconstruct", data / "particles.star", "--threads", 1, "--proposals", "both", "--out")
    assert command(*start, whole).returncode == 0
    result = command(*start, out, preexec_fn=_with_small_files(2_000_000))
    assert result.returncode == 2
    assert re.fullmatch(r"cryospin: error: .*: File too large; once that is fixed, continue with: .*\n", result.stderr)
    assert command("resume", out).returncode == 0
    assert differences(whole, out) == []


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_with_the_same_files():
    result = subprocess.run(
        [sys.executable, KILL, "--kills", "3", "--seed", "5"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 of 3 runs" in result.stdout
