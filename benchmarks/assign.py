"""How fast and how well `cryospin assign` poses images that a run has not seen.

    python -m benchmarks.assign --out assign.json
    python -m benchmarks.assign --data FOLDER --known 2000

Takes a folder with particles.star and truth.star, or simulates images; reconstructs from the first of them, assigns poses to
the rest, and reconstructs from all of them to see what a full run makes of the same rest. Every command is a process of its
own; its time is from start to end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.measuring import COMMAND
from cryospin.evaluation.pose_error import pose_errors
from cryospin.formats.star import read_poses
from cryospin.formats.table import GivenPoses
from cryospin.run import ParticlePoses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="phantom")
    parser.add_argument("--data", type=Path, help="folder with images of known pose, instead of simulated ones")
    parser.add_argument("--known", type=int, default=3000)
    parser.add_argument("--held-out", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments)
    print(json.dumps(figures, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1))


def measure(folder: Path, arguments: argparse.Namespace) -> dict:
    """Errors and times."""
    data, known, threads = arguments.data or folder / "data", arguments.known, ("--threads", arguments.threads)
    if arguments.data is None:
        count = ("--n", known + arguments.held_out, "--seed", 1, "--source", arguments.source)
        cryospin("simulate", "--out", data, "--box", 64, "--pixel-size", 5, "--snr", 0.1, *count)
    true = read_poses(data / "truth.star")
    particles, rest, total = data / "particles.star", folder / "rest.txt", len(true.rotation)
    rest.write_text("\n".join(str(i) for i in range(known, total)))
    figures = {
        "run": {"seconds": cryospin("reconstruct", particles, "--out", folder / "run", "--first", known, *threads)[0]}
    }
    figures["full run"] = {"seconds": cryospin("reconstruct", particles, "--out", folder / "full", *threads)[0]}
    figures["run"] |= errors(folder / "run", true, range(known))
    figures["full run"] |= errors(folder / "full", true, range(known, total))
    for proposals in ("both", "heads", "grid"):
        out = folder / proposals
        line = ("assign", folder / "run", particles, "--out", out, "--particles-index", rest, "--proposals", proposals)
        seconds, told = cryospin(*line, *threads)
        rate = float(told.split("(")[1].split(" images")[0].replace(",", ""))
        figures[f"assign, {proposals}"] = {"seconds": seconds, "images a second": rate} | errors(
            out, true, range(known, total)
        )
    return figures


def errors(folder: Path, true: GivenPoses, rows: range) -> dict:
    """Of some images of the table, after one global turn, and the mean confidence in their poses."""
    own = read_poses(folder / "particles.star")
    confidence = ParticlePoses.of_table(folder / "particles.star").confidence
    at = torch.arange(rows.start, rows.stop)
    mine = at if len(own.rotation) == len(true.rotation) else torch.arange(len(rows))
    found = pose_errors(own.rotation[mine], own.shift[mine], true.rotation[at], true.shift[at])
    summary = {key: round(value, 3) for key, value in found.summary().items()}
    return {
        "rotation_deg": summary,
        "shift_A": round(float(found.shift.median()), 3),
        "confidence": round(float(confidence[mine].mean()), 3),
    }


def cryospin(*arguments: object) -> tuple[float, str]:
    """Seconds a command took, and what it printed last."""
    line = [*COMMAND, *map(str, arguments)]
    started = time.monotonic()
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    lines = [text for text in done.stdout.splitlines() if "images a second" in text] or [""]
    return round(time.monotonic() - started, 2), lines[0]


if __name__ == "__main__":
    main()
