"""Run whole reconstructions over data sets and seeds, and write what they cost and how good they are.

Each data set is a folder as `cryospin simulate` makes it: particles.star, truth.star, truth.mrc. Runs that are in the
results already are not repeated, so an interrupted benchmark goes on where it stopped:

    python -m benchmarks.structures --out results.json --seeds 0-4 ribosome=data/ribosome spike=data/spike:C3
    python -m benchmarks.structures --out results.json --table
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import date
from pathlib import Path

from benchmarks.measuring import QUALITY_COLUMNS, evaluate, markdown, quality, reconstruct, seeds, store, stored

COLUMNS = (
    ("data", "{name}"),
    ("proposals", "{proposals}"),
    ("seed", "{seed}"),
    ("time s", "{seconds:.0f}"),
    ("GiB", "{memory_GiB:.1f}"),
    *QUALITY_COLUMNS,
)


def main() -> None:
    arguments = parse()
    results = stored(arguments.out)
    for seed in arguments.seeds:
        for item in arguments.data:
            name, _, place = item.partition("=")
            folder, _, symmetry = place.partition(":")
            if any((r["name"], r["proposals"], r["seed"]) == (name, arguments.proposals, seed) for r in results):
                continue
            # The same images at their true poses give the same map for every seed.
            ceiling = next((r["true_poses"] for r in results if r["name"] == name), None)
            results.append(one_run(name, Path(folder), symmetry or "C1", arguments.proposals, seed, ceiling))
            store(arguments.out, results)
            print(markdown(COLUMNS, results[-1:]).splitlines()[-1], flush=True)
    if arguments.table:
        print(markdown(COLUMNS, sorted(results, key=lambda r: (r["name"], r["proposals"], r["seed"]))))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", metavar="NAME=FOLDER[:SYMMETRY]")
    parser.add_argument("--out", type=Path, required=True, help="results, JSON; added to")
    parser.add_argument("--seeds", type=seeds, default=[0], help="such as 0-4")
    parser.add_argument("--proposals", default="both", choices=["both", "grid", "heads"])
    parser.add_argument("--table", action="store_true", help="print all results as a table")
    return parser.parse_args()


def one_run(name: str, folder: Path, symmetry: str, proposals: str, seed: int, ceiling: float | None) -> dict:
    """Reconstruct and evaluate once."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        cost = reconstruct(folder, run, ["--seed", seed, "--proposals", proposals])
        figures = evaluate(run, folder, symmetry, ceiling=ceiling is None)
        switch = [line for line in (run / "log.txt").read_text().splitlines() if "start " in line or "switch" in line]
    return {
        "name": name,
        "proposals": proposals,
        "seed": seed,
        "date": date.today().isoformat(),
        "seconds": cost.seconds,
        "memory_GiB": cost.memory_GiB,
        **quality(figures, ceiling),
        "half_map": figures["resolution_A"]["half_map_0_143"],
        "log": switch,
    }


if __name__ == "__main__":
    main()
