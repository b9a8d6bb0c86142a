"""Whole runs of the presets that learn by gradient descent, as small as they can be."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace

import pytest
import starfile
import torch

from cryospin import checkpoints
from cryospin.cli import main
from cryospin.engine.autoencode import AutoEncoding
from cryospin.engine.record import Silence
from cryospin.engine.trace import Trace
from cryospin.errors import InputError
from cryospin.evaluation.evaluate import evaluate
from cryospin.formats.volume import read_map
from cryospin.pipeline import reconstruct, resume
from cryospin.presets import learned
from cryospin.settings import Settings
from cryospin.simulation import ImagingConditions, density_from_source, simulate

COUNT, BOX = 150, 32
TINY = {"channels": (8, 8, 8, 8, 8), "features": (16, 8), "encoding_epochs": 2}
FILES = (
    "map.mrc", "map_other_hand.mrc", "map_from_poses.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "fsc.csv",
    "particles.star", "metrics.jsonl", "config.toml", "log.txt", "fsc.png", "progress.png", "heads.png",
    "checkpoints/trace.safetensors", "checkpoints/heads.safetensors",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    density = density_from_source("phantom", BOX, 8.0, seed=1)
    simulate(density, 8.0, COUNT, out, ImagingConditions(snr=0.3, shift_sd=0.5), seed=3)
    return out


def run(data, out, preset, memory=None, **options):
    settings = {"particles": data / "particles.star", "out": out, "preset": preset, "threads": 1, "memory": memory}
    return reconstruct(Settings(**settings, truth_poses=data / "truth.star", options=TINY | options))


@pytest.mark.parametrize(
    ("preset", "memory", "options", "stages"),
    [
        ("paper", None, {"decoding_epochs": 2, "heads": 3}, ["auto-encode"] * 2 + ["auto-decode"] * 2),
        ("cryoai", None, {"implicit_width": 16}, ["auto-encode"] * 2),
        ("cryoai", 0.001, {"volume": "hartley"}, ["auto-encode"] * 2),
    ],
    ids=["paper", "cryoai", "cryoai, images on disk"],
)
def test_a_run_leaves_everything(data, tmp_path, preset, memory, options, stages):
    out = tmp_path / "run"
    run(data, out, preset, memory, **options)
    assert ("are kept on disk" in (out / "log.txt").read_text()) is (memory is not None)
    assert [name for name in FILES if not (out / name).is_file()] == []
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["stage"] for r in records] == stages
    assert all(r["pose_error_deg"] > 0 and r["pose_error_mean_deg"] > 0 and r["loss"] > 0 for r in records)
    assert all(sum(r["winners"]) == COUNT for r in records if r["stage"] == "auto-encode")
    config = tomllib.loads((out / "config.toml").read_text())
    assert config["preset"] == preset
    assert config["options"]["encoding_epochs"] == 2
    assert config["options"]["encoder_rate"] == 1e-4
    assert "not found independently" in (out / "log.txt").read_text()
    rows = starfile.read(out / "particles.star", always_dict=True)["particles"]
    assert len(rows) == COUNT
    assert rows["rlnMaxValueProbDistribution"].between(0, 1).all()
    assert set(rows["rlnRandomSubset"]) == {1, 2}
    assert len(Trace.load(out / "checkpoints/trace.safetensors").best()) == len(stages)
    figures = evaluate(out, truth_map=data / "truth.mrc", truth_poses=data / "truth.star", ceiling=False)
    assert figures["rotation_error_deg"]["median"] > 0


@pytest.mark.slow
def test_the_seed_decides_everything(data, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = TINY | {"encoding_epochs": 1, "decoding_epochs": 1, "heads": 2}
        reconstruct(
            Settings(
                particles=data / "particles.star", out=tmp_path / name, preset="paper", threads=1, seed=seed, options=options
            )
        )
    a, b, c = (read_map(tmp_path / name / "map.mrc")[0] for name in "abc")
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


class Stopped(BaseException):
    """Ends a run at once."""


class Stopper(Silence):
    """Ends a run as soon as an epoch is done and told."""

    def __init__(self, epoch):
        self.left = epoch

    def epoch(self, record):
        self.left -= 1
        if not self.left:
            raise Stopped


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_a_stopped_run_ends_as_one_that_was_not(data, tmp_path, monkeypatch, epoch):
    monkeypatch.setattr("cryospin.report.page.write_report", lambda run: None)
    monkeypatch.setattr(checkpoints, "SHARE", float("inf"))
    numbers = TINY | {"decoding_epochs": 3, "heads": 2, "batch": 40}
    one = Settings(particles=data / "particles.star", out=tmp_path / "whole", preset="paper", threads=1, options=numbers)
    reconstruct(one)
    with pytest.raises(Stopped):
        reconstruct(replace(one, out=tmp_path / "stopped"), Stopper(epoch))
    assert resume(tmp_path / "stopped")
    for name in ("map.mrc", "map_from_poses.mrc"):
        maps = [read_map(tmp_path / run / name)[0] for run in ("whole", "stopped")]
        assert torch.equal(*maps)
    records = [
        [{**json.loads(line), "seconds": 0} for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "stopped")
    ]
    assert records[0] == records[1]
    traces = [Trace.load(tmp_path / run / "checkpoints/trace.safetensors").best() for run in ("whole", "stopped")]
    assert len(traces[0]) == len(traces[1]) == 5
    assert all(torch.equal(a, b) for a, b in zip(*traces, strict=True))


def test_a_user_changes_numbers_on_the_command_line(data, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    sets = [f"--set={name}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for name, v in TINY.items()]
    arguments = ["cryospin", "reconstruct", str(data / "particles.star"), "--out", str(out), "--preset", "paper"]
    monkeypatch.setattr("sys.argv", [*arguments, "--shifts", "none", "--threads", "1", *sets, "--set", "decoding_epochs=1"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)
    config = tomllib.loads((out / "config.toml").read_text())
    assert config["shifts"] is False
    assert config["options"]["shifts"] == "none"
    assert config["options"]["decoding_epochs"] == 1
    shifts = starfile.read(out / "particles.star", always_dict=True)["particles"][["rlnOriginXAngst", "rlnOriginYAngst"]]
    assert not shifts.to_numpy().any()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--shifts", "no"], "--shifts no is not known"), (["--set", "heads"], "--set heads has no value")],
)
def test_bad_options_end_in_one_line(data, tmp_path, capsys, monkeypatch, arguments, says):
    command = ["cryospin", "reconstruct", str(data / "particles.star"), "--out", str(tmp_path / "run"), "--preset", "paper"]
    monkeypatch.setattr("sys.argv", command + arguments)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "stage"),
    [
        ({"encoder_rate": 1e30}, "auto-encoding"),
        ({"volume_rate": 1e30}, "auto-encoding"),
        ({"decoding_epochs": 1, "rotation_rate": 1e30, "heads": 2}, "auto-decoding"),
    ],
    ids=["encoder", "volume", "poses"],
)
def test_rates_that_are_too_high_end_in_one_line(data, tmp_path, options, stage):
    with pytest.raises(InputError, match=f"{stage} diverged.*Lower the rates"):
        run(data, tmp_path / "run", "paper", **options)


def test_a_head_that_wins_nothing_is_named(data, tmp_path, monkeypatch):
    learn = AutoEncoding._learn

    def without_the_second(self, some):
        losses, winner = learn(self, some)
        return losses, torch.where(winner == 1, 0, winner)

    monkeypatch.setattr(AutoEncoding, "_learn", without_the_second)
    run(data, tmp_path / "run", "paper", decoding_epochs=0, heads=3)
    assert "warning: dead heads: 2 of 3 nearest to the winner" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize("quick", [True, False])
def test_a_processor_that_is_slow_at_bfloat16_is_told(data, tmp_path, monkeypatch, quick):
    monkeypatch.setattr(learned, "quick_at_bfloat16", lambda: quick)
    run(data, tmp_path / "run", "cryoai", volume="hartley", precision="bfloat16", encoding_epochs=1)
    assert ("--set precision=float32" in (tmp_path / "run" / "log.txt").read_text()) is not quick
