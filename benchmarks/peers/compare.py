"""cryospin and other programs on one set of images: what they cost and how good they are.

The set is a folder as `cryospin simulate` makes it: particles.star of one stack particles.mrcs, truth.star, truth.mrc.
Programs that are missing are installed. Those measured already are not run again, so that a comparison may be made in
pieces:

    python -m benchmarks.peers.compare FOLDER --out RESULTS --limit 600
    python -m benchmarks.peers.compare FOLDER --out RESULTS --limit 600 --programs relion

A program that is not done after --limit seconds is stopped and judged by the last iteration it wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from types import ModuleType

from benchmarks.measuring import QUALITY_COLUMNS, Cost, evaluate, markdown, quality, reconstruct, store, stored
from benchmarks.peers import cryodrgn, relion

PEERS: dict[str, ModuleType] = {"relion": relion, "cryodrgn": cryodrgn}
COLUMNS = (
    ("program", "{name}"),
    ("", "{ending}"),
    ("time s", "{seconds:.0f}"),
    ("CPU s", "{cpu_seconds:.0f}"),
    ("GiB", "{memory_GiB:.1f}"),
    *QUALITY_COLUMNS,
)
NOTHING = dict.fromkeys(("rotation", "within_10", "shift_px", "fsc_0_5", "true_poses", "ratio"), float("nan"))


def main() -> None:
    a = parse()
    a.out.mkdir(parents=True, exist_ok=True)
    path = a.out / "results.json"
    for program in a.programs:
        results = stored(path)
        if program in [r["program"] for r in results]:
            continue
        results.append({"program": program, "date": date.today().isoformat(), **one_program(program, a, results)})
        store(path, results)
    table = markdown(COLUMNS, stored(path))
    (a.out / "table.md").write_text(table + "\n")
    print(table)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with particles.star, particles.mrcs, truth.star and truth.mrc")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and runs; added to")
    parser.add_argument("--programs", nargs="+", choices=["cryospin", *PEERS], default=["cryospin", *PEERS])
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each of the other programs")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="cores for each")
    parser.add_argument("--environments", type=Path, default=Path(".peers"), help="folder for the programs themselves")
    parser.add_argument("--symmetry", default="C1")
    return parser.parse_args()


def one_program(program: str, a: argparse.Namespace, results: list[dict]) -> dict:
    """Run a program and compare what it found with the truth."""
    work, found = a.out / program, a.out / f"{program}-result"
    if program == "cryospin":
        cost = run_once(work, lambda: reconstruct(a.data, work, ["--threads", a.threads]))
        return described("cryospin", "finished", cost, quality(evaluate(work, a.data, a.symmetry)))
    peer, environment = PEERS[program], a.environments.resolve() / program
    peer.install(environment)
    cost = run_once(work, lambda: peer.run(a.data, work, environment, a.limit, a.threads))
    stage = peer.collect(a.data, work, environment, found)
    ending = "finished" if cost.finished else f"stopped after {cost.seconds:.0f} s, {stage or 'nothing found yet'}"
    # The best that any poses could give is that of cryospin's own run, which comes first.
    ceiling = next((r["true_poses"] for r in results if r["program"] == "cryospin"), float("nan"))
    figures = quality(evaluate(found, a.data, a.symmetry, ceiling=False), ceiling) if stage else NOTHING
    return described(peer.NAME, ending, cost, figures)


def run_once(work: Path, run: Callable[[], Cost]) -> Cost:
    """The cost of a run that ended, from its folder, or else of a new one; what an interrupted one left is removed."""
    record = work / "cost.json"
    if record.exists():
        return Cost(**json.loads(record.read_text()))
    shutil.rmtree(work, ignore_errors=True)
    cost = run()
    record.write_text(json.dumps(asdict(cost)))
    return cost


def described(name: str, ending: str, cost: Cost, found: dict) -> dict:
    """A row of the table."""
    return {"name": name, "ending": ending, **asdict(cost), **found}


if __name__ == "__main__":
    main()
