"""How often a run finds the structure, how honest its confidence is, and whether it tells junk from particles.

Every structure of a folder (`*_C3.pdb`, `*_D7.mrc` and so on: the point group is the end of the name) is imaged at
every signal-to-noise ratio, with shifts, coloured noise and junk, by a simulator that shares no code with cryospin, and
reconstructed from several seeds, without symmetry and with its own. A run succeeds whose FSC with the truth falls
below 0.5 within 10 % of the resolution that the true poses of the same images give. Results are written after each run, and
runs that are in them are not repeated:

    python -m benchmarks.success structures/ --simulator simulator.py --data sets/ --out success.json --seeds 0-4
    python -m benchmarks.success --out success.json --figures docs/images

The simulator is called as `simulator.py SOURCE --out DIR --n N --box B --pixel-size P --snr S --shift-sd 2 --coloured 0.5
--junk 0.05 --seed 1`, and writes particles.star, truth.star, truth.mrc and truth.npz (`junk`: a boolean for each particle).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np

from benchmarks.measuring import evaluate, markdown, quality, reconstruct, seeds, store, stored

WITHIN = 1.1
DEFAULT_VOXEL = 5.0
"""Å, of a map whose header has none."""

EDGE, CURVE_POINTS = 1 / 3, 200
LEAST_FALSE = 1e-3
PARTICLE_SHARE = 0.62
"""Diameter of an atomic model, as a fraction of the box it is put in."""

COLUMNS = (
    ("structure", "{name}"),
    ("symmetry", "{symmetry}"),
    ("proposals", "{proposals}"),
    ("SNR", "{snr:g}"),
    ("runs", "{runs}"),
    ("success, %", "{success:.0f}"),
    ("rotation °", "{rotation:.2f}"),
    ("ratio", "{ratio:.3f}"),
    ("time s", "{seconds:.0f}"),
    ("ECE", "{ece:.3f}"),
    ("junk AUC", "{auc:.3f}"),
)


def main() -> None:
    arguments = parse()
    results = stored(arguments.out)
    for source in sources(arguments.structures):
        group = source.stem.rpartition("_")[2]
        for snr in arguments.snr:
            for symmetry in dict.fromkeys(["C1", group]) if not arguments.c1_only else ["C1"]:
                for seed in arguments.seeds:
                    case = {"name": source.stem, "snr": snr, "box": arguments.box, "symmetry": symmetry}
                    key = case | {"proposals": arguments.proposals, "seed": seed}
                    if any(key.items() <= r.items() for r in results):
                        continue
                    folder = simulated(arguments, source, snr)
                    cores = ["--threads", arguments.threads] if arguments.threads else []
                    options = ["--symmetry", symmetry, "--proposals", arguments.proposals, "--seed", seed, *cores]
                    results.append(key | one_run(folder, group, options))
                    store(arguments.out, results)
                    print(as_table(results[-1:]).splitlines()[-1], flush=True)
    print(as_table(results))
    if arguments.figures:
        draw(results, arguments.figures, arguments.nearly)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structures", nargs="?", type=Path, help="a folder of structures, or one; none to show results only")
    parser.add_argument("--out", type=Path, required=True, help="results, JSON; added to")
    parser.add_argument("--simulator", type=Path, help="a script that images a structure")
    parser.add_argument("--data", type=Path, default=Path("sets"), help="where image sets are kept")
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.03])
    parser.add_argument("--seeds", type=seeds, default=[0, 1, 2, 3, 4], help="such as 0-4")
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--junk", type=float, default=0.05)
    parser.add_argument("--coloured", type=float, default=0.5)
    parser.add_argument("--shift-sd", type=float, default=2.0)
    parser.add_argument("--c1-only", action="store_true", help="impose no symmetry")
    parser.add_argument("--proposals", choices=("both", "grid", "heads"), default="both", help="what explores")
    parser.add_argument("--threads", type=int, help="cores for each run")
    parser.add_argument("--figures", type=Path, help="folder for calibration.png and junk_roc.png")
    nearly = "structures that have their symmetry only nearly: a pose at a mate counts as right, though their runs without "
    nearly += "symmetry have cause to doubt it, so these are left out of calibration.png"
    parser.add_argument("--nearly", nargs="*", default=[], help=nearly)
    return parser.parse_args()


def sources(path: Path | None) -> list[Path]:
    """Structures of a folder, or the one that was named."""
    if path is None or path.is_file():
        return [path] if path else []
    return sorted(p for p in path.iterdir() if p.suffix in (".mrc", ".pdb", ".cif"))


def simulated(arguments: argparse.Namespace, source: Path, snr: float) -> Path:
    """The folder of an image set, made if it is not there."""
    folder = arguments.data / f"{source.stem}-{arguments.box}-{snr:g}-{arguments.n}"
    if (folder / "truth.npz").is_file():
        return folder
    options = {
        "out": folder,
        "n": arguments.n,
        "box": arguments.box,
        "pixel-size": f"{side_of(source) / arguments.box:.4f}",
        "snr": snr,
        "shift-sd": arguments.shift_sd,
        "coloured": arguments.coloured,
        "junk": arguments.junk,
        "seed": 1,
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, str(arguments.simulator), str(source), *words], check=True, stdout=subprocess.DEVNULL)
    return folder


def side_of(source: Path) -> float:
    """Side in Å of a box that suits a structure: a map's own, or one that an atomic model fills to three fifths."""
    if source.suffix == ".mrc":
        import mrcfile

        with mrcfile.open(source, header_only=True, permissive=True) as handle:
            return float(handle.header.nx) * (float(handle.voxel_size.x) or DEFAULT_VOXEL)
    import gemmi

    model = gemmi.read_structure(str(source))[0]
    atoms = np.array([a.pos.tolist() for chain in model for residue in chain for a in residue])
    return 2 * float(np.linalg.norm(atoms - atoms.mean(0), axis=1).max()) / PARTICLE_SHARE


def one_run(folder: Path, group: str, options: list[object]) -> dict:
    """Reconstruct and evaluate once."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        cost = reconstruct(folder, run, options)
        figures = evaluate(run, folder, group)
        measured = quality(figures)
        half_map = figures["resolution_A"]["half_map_0_143"]
        honesty = judged(run, folder, group, half_map)
        starts = len(re.findall(r"start \d+: misfit", (run / "log.txt").read_text()))
    return {
        "date": date.today().isoformat(),
        "seconds": cost.seconds,
        "memory_GiB": cost.memory_GiB,
        **measured,
        "half_map": half_map,
        "starts": starts,
        "success": measured["ratio"] <= WITHIN,
        **honesty,
    }


def judged(run: Path, folder: Path, group: str, resolution: float) -> dict:
    """Calibration of the confidence over real particles, and the ROC of the likelihood over junk.

    A pose is right when it is within the angular resolution: the angle that moves the edge of the particle, a third of
    the box from its centre, by a detail of the map's resolution.
    """
    import starfile

    from cryospin.evaluation.calibration import reliability, roc
    from cryospin.evaluation.evaluate import errors_of_each
    from cryospin.formats.volume import read_map

    error = errors_of_each(run, folder / "truth.star", folder / "truth.mrc", group).rotation_deg.numpy()
    rows = starfile.read(run / "particles.star", always_dict=True)["particles"]
    junk = np.load(folder / "truth.npz")["junk"].astype(bool)
    density, voxel = read_map(run / "map.mrc")
    angle = float(np.degrees(resolution / (EDGE * density.shape[0] * voxel)))
    confidence = rows["rlnMaxValueProbDistribution"].to_numpy(float)
    curve = reliability(confidence[~junk], error[~junk] <= angle)
    out = {
        "angular_resolution": angle,
        "ece": curve.expected_error,
        "overconfidence": curve.bias,
        "reliability": [rounded(column) for column in curve],
        "auc": None,
    }
    if junk.any():
        found = roc(-rows["rlnLogLikeliContribution"].to_numpy(float), junk)
        thin = np.unique(np.linspace(0, len(found.false_positive) - 1, CURVE_POINTS).astype(int))
        out |= {"auc": found.area, "roc": [rounded(column[thin]) for column in found]}
    return out


def rounded(numbers: np.ndarray) -> list[float]:
    """Digits that a figure can show."""
    return [round(float(x), 5) for x in numbers]


def as_table(results: list[dict]) -> str:
    """Markdown: a line for each structure, symmetry and signal-to-noise ratio, and one for all."""
    cases: dict[tuple, list[dict]] = {}
    for r in sorted(results, key=lambda r: (r["proposals"], -r["snr"], r["name"], r["symmetry"])):
        cases.setdefault((r["name"], r["symmetry"], r["proposals"], r["snr"]), []).append(r)
    rows = [
        {"name": name, "symmetry": symmetry, "proposals": proposals, "snr": snr, "runs": len(runs)} | summary(runs)
        for (name, symmetry, proposals, snr), runs in cases.items()
    ]
    text = markdown(COLUMNS, rows)
    return text + f"\n\n{sum(r['success'] for r in results)} of {len(results)} runs succeed" if len(cases) > 1 else text


def summary(runs: list[dict]) -> dict[str, float]:
    """Medians over runs, and the share that succeeded in percent."""
    medians = {
        k: float(np.median([r[k] if r[k] is not None else np.nan for r in runs]))
        for k in ("rotation", "ratio", "seconds", "ece", "auc")
    }
    return {"success": 100 * float(np.mean([r["success"] for r in runs]))} | medians


def draw(results: list[dict], folder: Path, nearly: list[str]) -> None:
    """Calibration of the confidence, with the particles behind each point, and ROC of junk; of runs as they come."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    ratios = sorted({r["snr"] for r in results}, reverse=True)
    usual = [r for r in results if r["success"] and r["proposals"] == "both"]
    runs = {snr: [r for r in usual if r["snr"] == snr] for snr in ratios}
    figure, axes = pyplot.subplots(figsize=(4.4, 4.4), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for snr, offset in zip(ratios, (-12, 8), strict=False):
        honest = [r for r in runs[snr] if not (r["name"] in nearly and r["symmetry"] == "C1")]
        confidence, right, count = pooled([r["reliability"] for r in honest])
        (line,) = axes.plot(confidence, right, marker=".", label=f"SNR {snr:g}")
        for x, y, n in zip(confidence, right, count, strict=True):
            axes.annotate(
                f"{n:,.0f}", (x, y), xytext=(0, offset), textcoords="offset points", ha="center", fontsize=7,
                color=line.get_color(),
            )  # fmt: skip
    axes.set(xlim=(0, 1.06), ylim=(0, 1.06), xlabel="confidence", ylabel="share of poses within the angular resolution")
    axes.legend(loc="upper left")
    figure.savefig(folder / "calibration.png", dpi=150)
    figure, axes = pyplot.subplots(figsize=(4.4, 4.4), layout="constrained")
    for snr in ratios:
        axes.plot(*averaged([r["roc"] for r in runs[snr] if r.get("roc")]), marker=".", label=f"SNR {snr:g}")
    axes.set(xscale="log", xlim=(LEAST_FALSE, 1), ylim=(0.9, 1.005))
    axes.set(xlabel="particles called junk", ylabel="junk called junk")
    axes.legend(loc="lower right")
    figure.savefig(folder / "junk_roc.png", dpi=150)


def pooled(curves: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reliability of all runs' particles together: confidence, share of right poses and particles in each of ten bins."""
    confidence, right, count = np.concatenate([np.array(c) for c in curves], axis=1)
    bins = np.minimum((confidence * 10).astype(int), 9)
    total = np.bincount(bins, count, minlength=10)
    used = total > 0
    confidence, right = (np.bincount(bins, v * count, minlength=10)[used] / total[used] for v in (confidence, right))
    return confidence, right, total[used]


def averaged(curves: list) -> tuple[np.ndarray, np.ndarray]:
    """Mean over runs of a ROC's true positives at each share of false ones."""
    x = np.geomspace(LEAST_FALSE, 1, 41)
    return x, np.mean([np.interp(x, *c) for c in curves], axis=0)


if __name__ == "__main__":
    main()
