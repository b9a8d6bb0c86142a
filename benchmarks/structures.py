"""Run whole reconstructions over data sets and seeds, and write what they cost and how good they are.

Each data set is a folder as `cryospin simulate` makes it: particles.star, truth.star, truth.mrc. Runs that are in the
results already are not repeated, so an interrupted benchmark goes on where it stopped:

    python benchmarks/structures.py --out results.json --seeds 0-4 ribosome=data/ribosome spike=data/spike:C3
    python benchmarks/structures.py --out results.json --table
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

COMMAND = [sys.executable, "-c", "from cryospin.cli import main; main()"]
COLUMNS = (
    ("data", "{name}"),
    ("proposals", "{proposals}"),
    ("seed", "{seed}"),
    ("time s", "{seconds:.0f}"),
    ("GiB", "{memory_GiB:.1f}"),
    ("rotation °", "{rotation:.2f}"),
    ("< 10°, %", "{within_10:.1f}"),
    ("shift px", "{shift_px:.2f}"),
    ("FSC 0.5 Å", "{fsc_0_5:.2f}"),
    ("true poses Å", "{true_poses:.2f}"),
    ("ratio", "{ratio:.3f}"),
)


def main() -> None:
    arguments = parse()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    for seed in arguments.seeds:
        for item in arguments.data:
            name, _, place = item.partition("=")
            folder, _, symmetry = place.partition(":")
            if any((r["name"], r["proposals"], r["seed"]) == (name, arguments.proposals, seed) for r in results):
                continue
            # The same images at their true poses give the same map for every seed.
            ceiling = next((r["true_poses"] for r in results if r["name"] == name), None)
            results.append(one_run(name, Path(folder), symmetry or "C1", arguments.proposals, seed, ceiling))
            arguments.out.write_text(json.dumps(results, indent=1))
            print(as_table(results[-1:]).splitlines()[-1], flush=True)
    if arguments.table:
        print(as_table(sorted(results, key=lambda r: (r["name"], r["proposals"], r["seed"]))))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", metavar="NAME=FOLDER[:SYMMETRY]")
    parser.add_argument("--out", type=Path, required=True, help="results, JSON; added to")
    parser.add_argument("--seeds", type=seeds, default=[0], help="such as 0-4")
    parser.add_argument("--proposals", default="both", choices=["both", "grid", "heads"])
    parser.add_argument("--table", action="store_true", help="print all results as a table")
    return parser.parse_args()


def seeds(text: str) -> list[int]:
    """`3` or `0-4`."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def one_run(name: str, folder: Path, symmetry: str, proposals: str, seed: int, ceiling: float | None) -> dict:
    """Reconstruct and evaluate once."""
    with tempfile.TemporaryDirectory() as scratch:
        run, figures = Path(scratch) / "run", Path(scratch) / "figures.json"
        reconstruct = ["reconstruct", folder / "particles.star", "--out", run, "--seed", seed, "--proposals", proposals]
        seconds, memory = timed(reconstruct)
        truth = ["--truth-map", folder / "truth.mrc", "--truth-poses", folder / "truth.star"]
        skip = ["--no-ceiling"] if ceiling else []
        timed(["evaluate", run, *truth, "--symmetry", symmetry, "--json", figures, *skip])
        measured = json.loads(figures.read_text())
        switch = [line for line in (run / "log.txt").read_text().splitlines() if "start " in line or "switch" in line]
    resolution = measured["resolution_A"]["fsc_0_5"]
    ceiling = ceiling or measured["true_poses_A"]["fsc_0_5"]
    return {
        "name": name,
        "proposals": proposals,
        "seed": seed,
        "date": date.today().isoformat(),
        "seconds": seconds,
        "memory_GiB": memory,
        "rotation": measured["rotation_error_deg"]["median"],
        "within_10": measured["rotation_error_deg"]["within_10"],
        "shift_px": measured["shift_error_A"]["median_px"],
        "fsc_0_5": resolution,
        "true_poses": ceiling,
        "ratio": resolution / ceiling,
        "half_map": measured["resolution_A"]["half_map_0_143"],
        "log": switch,
    }


def timed(arguments: list) -> tuple[float, float]:
    """Seconds and peak memory (GiB) of one command; its output is shown only if it fails."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - start
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(map(str, arguments))} failed:\n{output.read()}")
    return seconds, usage.ru_maxrss / 2**20


def as_table(results: list[dict]) -> str:
    """Markdown."""
    lines = [[title for title, _ in COLUMNS], ["---"] * len(COLUMNS)]
    lines += [[form.format(**r) for _, form in COLUMNS] for r in results]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
