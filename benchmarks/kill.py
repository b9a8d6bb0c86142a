"""Kill a run at random moments, resume it, and compare what it ends with with a run that was left alone.

    python -m benchmarks.kill --kills 20 --out kills.json

Moments are spread evenly over the run, each at random within its share, so that every stage is met. The kill is SIGKILL.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import mrcfile

from benchmarks.measuring import COMMAND

TIMED = ("progress.png", "report/about.json", "report.html")
"""What says when a run went, which no two runs share."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--box", type=int, default=32)
    parser.add_argument("--proposals", default="both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trials = kill(Path(folder), arguments)
    equal = sum(not trial["differences"] for trial in trials)
    print(f"{equal} of {len(trials)} runs that were killed ended with the same files as the one that was not")
    print("killed while:", ", ".join(f"{stage} {count}" for stage, count in Counter(t["stage"] for t in trials).items()))
    if arguments.out:
        arguments.out.write_text(json.dumps(trials, indent=1))
    sys.exit(equal != len(trials))


def kill(folder: Path, arguments: argparse.Namespace) -> list[dict]:
    """Trials of one kill each."""
    data, whole = folder / "data", folder / "whole"
    size = ("--n", arguments.n, "--box", arguments.box, "--pixel-size", 8, "--snr", 0.3, "--shift-sd", 1)
    cryospin("simulate", "--out", data, "--seed", 3, *size).wait()
    options = ("--threads", 1, "--proposals", arguments.proposals)
    begin(data, folder / "first", options).wait()  # Compiles the kernels.
    started = time.monotonic()
    begin(data, whole, options).wait()
    seconds, chance, trials = time.monotonic() - started, random.Random(arguments.seed), []
    for number in range(arguments.kills):
        run = folder / f"killed{number}"
        moment = (number + chance.random()) / arguments.kills * seconds
        process = begin(data, run, options)
        time.sleep(moment)
        process.kill()
        process.wait()
        stage = where(run)
        process = cryospin("resume", run) if (run / "config.toml").exists() else begin(data, run, options)
        status = process.wait()
        found = differences(whole, run) if status == 0 else [f"exit status {status}"]
        trials.append({"seconds": round(moment, 2), "stage": stage, "differences": found})
        print(f"killed after {moment:5.1f} s of {seconds:.1f}, {stage}: {', '.join(found) or 'equal'}", flush=True)
    return trials


def begin(data: Path, run: Path, options: tuple) -> subprocess.Popen:
    """Start a run."""
    return cryospin("reconstruct", data / "particles.star", "--out", run, *options)


def cryospin(*arguments: object) -> subprocess.Popen:
    """Start a command in a process of its own."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def where(run: Path) -> str:
    """What a killed run was doing."""
    if not (run / "config.toml").exists():
        return "starting"
    if (run / "checkpoints" / "finished.json").exists():
        return "finished"
    if not (run / "metrics.jsonl").exists():
        return "reading" if not (run / "log.txt").exists() else "exploring"
    if "refinement ends" in (run / "log.txt").read_text():
        return "writing"
    stage = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["stage"]
    return {"explore": "exploring", "compete": "competing", "refine": "refining"}[stage]


def differences(one: Path, other: Path) -> list[str]:
    """Names of files that differ between two runs, time stamps, seconds and the runs' own names aside."""
    files = {p.relative_to(run) for run in (one, other) for p in run.rglob("*") if p.is_file()}
    # TensorBoard's files bear the time and the process in their names.
    names = {str(f) for f in files if f.parts[0] != "tensorboard"} - set(TIMED)
    return sorted(name for name in names if content(one, name) != content(other, name))


def content(run: Path, name: str) -> object:
    """What a file of a run says, but for when, and but for the name of its folder."""
    path = run / name
    if not path.is_file():
        return None
    if path.suffix == ".mrc":
        with mrcfile.open(path) as handle:
            return handle.data.tobytes(), float(handle.voxel_size.x)
    if name == "metrics.jsonl":
        return [{**json.loads(line), "seconds": 0} for line in path.read_text().splitlines()]
    if name == "log.txt":
        return [line[11:] for line in path.read_text().splitlines()]
    if path.suffix == ".star":
        return path.read_text().splitlines()[1:]
    return path.read_bytes().replace(str(run.absolute()).encode(), b"RUN")


if __name__ == "__main__":
    main()
