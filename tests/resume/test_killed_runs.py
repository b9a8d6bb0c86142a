"""A run that was stopped ends as one that was not: whatever stopped it, wherever."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from stopped_runs import Killed, Killer, arguments, begun, call, settings

from benchmarks.kill import differences
from cryospin import checkpoints
from cryospin.pipeline import reconstruct, resume

ROOT = Path(__file__).parents[2]


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


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_with_the_same_files():
    line = [sys.executable, "-m", "benchmarks.kill", "--kills", "3", "--seed", "5"]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 of 3 runs" in result.stdout


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
