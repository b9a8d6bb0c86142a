"""How time, memory and error of a whole run grow with the number of images and their size.

Structures are imaged with `cryospin simulate`, or folders made by any simulator are taken (particles.star, truth.star,
truth.mrc); fewer images are the first ones of a larger set. What was measured already is not repeated:

    python -m benchmarks.end_to_end --structure hsp=2cg9.pdb:1.5 --n 3000 50000 --box 64 128 --work DATA --out RESULTS
    python -m benchmarks.end_to_end --data ribosome=FOLDER --n 1000 3000 --work DATA --out RESULTS -- --seed 1

Writes results.json, table.md and times.png to --out. Options after `--` go to `cryospin reconstruct`.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
from matplotlib import pyplot

from benchmarks.measuring import (
    COMMAND,
    QUALITY_COLUMNS,
    evaluate,
    markdown,
    measured,
    quality,
    reconstruct,
    store,
    stored,
)
from cryospin.formats.star import read_star

COLUMNS = (
    ("data", "{name}"),
    ("options", "{options}"),
    ("box", "{box}"),
    ("images", "{n:,}"),
    ("time s", "{seconds:.0f}"),
    ("CPU s", "{cpu_seconds:.0f}"),
    ("GiB", "{memory_GiB:.1f}"),
    *QUALITY_COLUMNS,
)
REFERENCE_BOX = 128
SLOPE_FROM = 3000


@dataclass(frozen=True)
class Structure:
    """What to image: the pixel size is at 128 pixels, and boxes of other sizes cover the same field."""

    name: str
    source: Path
    pixel_size: float
    symmetry: str


@dataclass(frozen=True)
class Case:
    """One run to measure: the first `n` particles of a folder."""

    name: str
    folder: Path
    symmetry: str
    box: int
    n: int
    options: str

    def same(self, result: dict) -> bool:
        """Whether a result is of this case."""
        return all(result[key] == getattr(self, key) for key in ("name", "box", "n", "options"))


def main() -> None:
    a = parse()
    a.out.mkdir(parents=True, exist_ok=True)
    results = stored(a.out / "results.json")
    for case in cases(a, results):
        results.append(one_run(case, a.options))
        store(a.out / "results.json", results)
        print(markdown(COLUMNS, results[-1:]).splitlines()[-1], flush=True)
    results.sort(key=lambda r: (r["name"], r["options"], r["box"], r["n"]))
    boxes = sorted({r["box"] for r in results})
    runs = {b: [(r["name"] + r["options"], r["n"], r["seconds"]) for r in results if r["box"] == b] for b in boxes}
    slopes = {box: slope(runs[box]) for box in boxes}
    lines = [in_words(box, slopes[box], share_by_share(runs[box])) for box in boxes]
    table = markdown(COLUMNS, results) + "\n" + "".join(f"\n{line}" for line in lines)
    (a.out / "table.md").write_text(table + "\n")
    draw(results, slopes, a.out / "times.png")
    print(table)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--structure",
        nargs="*",
        type=structure,
        default=[],
        metavar="NAME=FILE:PIXEL[:SYMMETRY]",
        help="atoms or map to image, and its pixel size in Å at 128 pixels",
    )
    parser.add_argument(
        "--data", nargs="*", type=folder, default=[], metavar="NAME=FOLDER[:SYMMETRY]", help="sets there are"
    )
    parser.add_argument("--n", nargs="+", type=int, default=[1000, 3000, 10000, 50000], help="numbers of images")
    parser.add_argument("--box", nargs="+", type=int, default=[64, 128, 256], help="sides of simulated images, pixels")
    parser.add_argument("--snr", type=float, default=0.1, help="of simulated images")
    parser.add_argument("--shift-sd", type=float, default=1.5, help="of simulated images, in pixels at 128")
    parser.add_argument("--work", type=Path, required=True, help="folder for simulated images")
    parser.add_argument("--out", type=Path, required=True, help="folder for results; added to")
    parser.add_argument("options", nargs="*", help="for cryospin reconstruct, after --")
    return parser.parse_args()


def structure(text: str) -> Structure:
    """`NAME=FILE:PIXEL[:SYMMETRY]`."""
    name, _, rest = text.partition("=")
    source, pixel_size, *symmetry = rest.split(":")
    return Structure(name, Path(source), float(pixel_size), *(symmetry or ["C1"]))


def folder(text: str) -> tuple[str, Path, str]:
    """`NAME=FOLDER[:SYMMETRY]`."""
    name, _, rest = text.partition("=")
    place, _, symmetry = rest.partition(":")
    return name, Path(place), symmetry or "C1"


def cases(a: argparse.Namespace, results: list[dict]) -> Iterator[Case]:
    """What is still to be measured, small sets first; images are made when they are first needed."""
    options = " ".join(a.options)
    for name, place, symmetry in a.data:
        table = read_star(place / "particles.star")
        for n in sorted(n for n in a.n if n <= len(table)):
            case = Case(name, place, symmetry, table.optics.groups[0].box, n, options)
            if not any(map(case.same, results)):
                yield case
    for s in a.structure:
        for box in a.box:
            place = a.work / f"{s.name}-{box}-{max(a.n)}"
            for n in sorted(a.n):
                case = Case(s.name, place, s.symmetry, box, n, options)
                if not any(map(case.same, results)):
                    simulate(s, box, max(a.n), a.snr, a.shift_sd, place)
                    yield case


def simulate(s: Structure, box: int, n: int, snr: float, shift_sd: float, place: Path) -> None:
    """Make a set, unless it is there."""
    if (place / "particles.star").exists():
        return
    scale = box / REFERENCE_BOX
    imaging = ["--pixel-size", s.pixel_size / scale, "--snr", snr, "--shift-sd", shift_sd * scale]
    measured([*COMMAND, "simulate", "--source", s.source, "--out", place, "--n", n, "--box", box, *imaging])


def one_run(case: Case, options: list[str]) -> dict:
    """Reconstruct and evaluate once."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        cost = reconstruct(case.folder, run, ["--first", case.n, *options])
        found = quality(evaluate(run, case.folder, case.symmetry))
    described = {"name": case.name, "options": case.options, "box": case.box, "n": case.n}
    return {**described, "date": date.today().isoformat(), **asdict(cost), **found}


def slope(runs: Iterable[tuple[str, int, float]], least: int = SLOPE_FROM) -> float | None:
    """Exponent p of `time ~ N^p`, by least squares on logarithms; each set has a factor of its own.

    runs: set, N and seconds; least: the smallest N that counts
    returns: None where no set has two N
    """
    sets = defaultdict(list)
    for name, n, seconds in runs:
        if n >= least:
            sets[name].append((math.log(n), math.log(seconds)))
    over = under = 0.0
    for points in sets.values():
        x0, y0 = (sum(values) / len(points) for values in zip(*points, strict=True))
        over += sum((x - x0) * (y - y0) for x, y in points)
        under += sum((x - x0) ** 2 for x, _ in points)
    return over / under if under else None


def share_by_share(runs: Iterable[tuple[str, int, float]], least: int = SLOPE_FROM) -> tuple[float, float] | None:
    """What a run costs whatever N is, and what an image adds: `time ~ a + b N` by least squares of relative errors, seconds.

    runs, least: as of `slope`; the sets share both numbers
    returns: None for fewer than two N
    """
    some = [(n, seconds) for _, n, seconds in runs if n >= least]
    if len({n for n, _ in some}) < 2:
        return None
    n, seconds = np.array(some, float).T
    fixed, each = np.linalg.lstsq(np.stack([1 / seconds, n / seconds], 1), np.ones(len(n)), rcond=None)[0]
    return float(fixed), float(each)


def in_words(box: int, exponent: float | None, shares: tuple[float, float] | None) -> str:
    """A line for the table."""
    if exponent is None or shares is None:
        return f"- {box} pixels: too few runs of {SLOPE_FROM:,} images and more for a slope"
    fixed, each = shares
    return (
        f"- {box} pixels: time grows as N^{exponent:.2f} from {SLOPE_FROM:,} images on, "
        f"or as {fixed:.0f} s and {1000 * each:.2f} ms an image"
    )


def draw(results: list[dict], slopes: dict[int, float | None], path: Path) -> None:
    """Time against N on logarithmic axes: a colour per box, a line per set."""
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    colours = dict(
        zip(slopes, pyplot.get_cmap("viridis")([i / max(len(slopes), 2) for i in range(len(slopes))]), strict=True)
    )
    lines = defaultdict(list)
    for r in results:
        lines[r["name"], r["options"], r["box"]].append((r["n"], r["seconds"]))
    for (name, options, box), points in lines.items():
        exponent = f", N^{slopes[box]:.2f}" if slopes[box] is not None else ""
        label = " ".join(filter(None, [name, options, f"{box} px{exponent}"]))
        axes.loglog(*zip(*points, strict=True), marker="o", color=colours[box], label=label)
    axes.set(xlabel="images", ylabel="time of the whole command, s")
    axes.grid(True, which="both", linewidth=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
