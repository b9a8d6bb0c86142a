"""Make the comparisons of the CryoSPIN paper: presets, structures and seeds side by side, as figures and a table.

Each data set is a folder as `cryospin simulate` makes it: particles.star, truth.star, truth.mrc. Runs stay in the folder
given with --out; what is in its results.json already is not repeated, so an interrupted comparison goes on where it stopped:

    python -m benchmarks.paper --out compare --box 32 --shifts none ribosome=data/ribosome spike=data/spike:C3
    python -m benchmarks.paper --out compare --table
"""

from __future__ import annotations

import argparse
import shutil
from datetime import date
from pathlib import Path

import torch

from benchmarks.measuring import evaluate, markdown, reconstruct, seeds, store, stored
from cryospin.engine.trace import Trace
from cryospin.evaluation.pose_error import pose_errors
from cryospin.evaluation.traces import TraceErrors, trace_errors, view_posterior
from cryospin.formats.star import read_poses
from cryospin.formats.volume import read_map
from cryospin.fourier import FourierGrid, map_to_grid, resample_map
from cryospin.geometry.symmetry import point_group
from cryospin.maps.alignment import align_maps, apply_alignment
from cryospin.maps.fsc import fourier_shell_correlation, resolution
from cryospin.noise import weighted
from cryospin.preparation import prepare
from cryospin.presets.learned import MAP_FROM_POSES, TRACE
from cryospin.report.comparison import (
    plot_error_distribution,
    plot_error_over_epochs,
    plot_maps,
    plot_resolution_over_time,
)
from cryospin.report.contents import read_records
from cryospin.report.figures import plot_fsc
from cryospin.report.head_views import ImageViews, plot_head_errors, plot_view_posteriors
from cryospin.report.progress import plot_heads
from cryospin.settings import Settings

SYSTEMS: dict[str, list[str]] = {
    "cryospin": ["--preset", "cryospin"],
    "search": ["--preset", "search"],
    "paper": ["--preset", "paper"],
    "paper, amortized": ["--preset", "paper", "--set", "decoding_epochs=0"],
    "paper, one head": ["--preset", "paper", "--set", "heads=1"],
    "cryoai": ["--preset", "cryoai"],
    "cryoai, Hartley": ["--preset", "cryoai", "--set", "volume=hartley", "--set", "volume_rate=0.005"],
}
"""What is compared. `paper, amortized` gets the epochs of both stages for its only one."""

LEARNED = ("paper", "cryoai")
DECODING_EPOCHS = 13
COLUMNS = (
    ("data", "{name}"),
    ("system", "{system}"),
    ("seed", "{seed}"),
    ("time s", "{seconds:.0f}"),
    ("mean °", "{rotation_mean:.1f}"),
    ("median °", "{rotation_median:.1f}"),
    ("< 10°, %", "{within_10:.1f}"),
    ("FSC 0.5 Å", "{fsc_0_5:.1f}"),
    ("from its poses Å", "{from_poses:.1f}"),
    ("true poses Å", "{true_poses:.1f}"),
)
VIEW_IMAGES = 4
VIEW_STEP_DEG = 7.5
POSTERIOR_SHELL = 12


def main() -> None:
    arguments = parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "results.json"
    results = stored(file)
    for seed in arguments.seeds:
        for item in arguments.data:
            name, _, place = item.partition("=")
            folder, _, symmetry = place.partition(":")
            for system in arguments.systems:
                if any((r["name"], r["system"], r["seed"]) == (name, system, seed) for r in results):
                    continue
                # The same images at their true poses give the same map whatever the system.
                known = next((r for r in results if r["name"] == name), None)
                results.append(one_run(arguments, name, Path(folder), symmetry or "C1", system, seed, known))
                store(file, results)
                print(markdown(COLUMNS, results[-1:]).splitlines()[-1], flush=True)
    for name in sorted({r["name"] for r in results}) if not arguments.no_figures else ():
        draw([r for r in results if r["name"] == name], arguments.out, arguments.out / "figures" / name)
    if arguments.table:
        print(markdown(COLUMNS, sorted(results, key=lambda r: (r["name"], list(SYSTEMS).index(r["system"]), r["seed"]))))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", metavar="NAME=FOLDER[:SYMMETRY]")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, results.json and figures; added to")
    parser.add_argument("--systems", type=systems, default=list(SYSTEMS), help=f"of {'; '.join(SYSTEMS)}; separated by ;")
    parser.add_argument("--seeds", type=seeds, default=[0], help="such as 0-4")
    parser.add_argument("--box", type=int, help="pixels to crop images to")
    parser.add_argument("--first", type=int, help="use only so many images")
    parser.add_argument("--shifts", default="estimated", choices=["estimated", "none"], help="for paper and cryoai")
    parser.add_argument("--epochs", type=int, default=7, help="of auto-encoding: 7 of 50,000 images, more of fewer")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="for paper and cryoai")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--no-figures", action="store_true")
    parser.add_argument("--table", action="store_true", help="print all results as a table")
    return parser.parse_args()


def systems(text: str) -> list[str]:
    """Names of `SYSTEMS`."""
    names = [name.strip() for name in text.split(";")]
    if unknown := set(names) - set(SYSTEMS):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is not among {'; '.join(SYSTEMS)}")
    return names


def command_of(arguments: argparse.Namespace, system: str) -> list[str]:
    """The flags of `cryospin reconstruct` that make a system."""
    flags = []
    for option in ("box", "first", "threads"):
        if (value := getattr(arguments, option)) is not None:
            flags += [f"--{option}", str(value)]
    if SYSTEMS[system][1] in LEARNED:
        amortized = system != "paper" and "one head" not in system
        epochs = arguments.epochs + (DECODING_EPOCHS if amortized else 0)
        flags += ["--shifts", arguments.shifts]
        flags += [part for value in (f"encoding_epochs={epochs}", *arguments.set) for part in ("--set", value)]
    # Of a number set twice the last one counts: a system's own are not to be changed.
    return [*flags, *SYSTEMS[system]]


def one_run(
    arguments: argparse.Namespace, name: str, folder: Path, symmetry: str, system: str, seed: int, known: dict | None
) -> dict:
    """Reconstruct and evaluate once."""
    run = arguments.out / "runs" / f"{name}-{system.replace(', ', '-').replace(' ', '-')}-{seed}"
    if run.exists():
        # It was interrupted: what is finished is in the results.
        shutil.rmtree(run)
    flags = [*command_of(arguments, system), "--seed", seed]
    seconds = reconstruct(folder, run, ["--truth-poses", folder / "truth.star", *flags]).seconds
    figures = evaluate(run, folder, symmetry, ceiling=known is None)
    own = figures["resolution_A"]["fsc_0_5"]
    return {
        "name": name,
        "system": system,
        "seed": seed,
        "symmetry": symmetry,
        "folder": str(folder),
        "run": str(run),
        "command": " ".join(map(str, flags)),
        "date": date.today().isoformat(),
        "seconds": seconds,
        "rotation_mean": figures["rotation_error_deg"]["mean"],
        "rotation_median": figures["rotation_error_deg"]["median"],
        "within_10": figures["rotation_error_deg"]["within_10"],
        "fsc_0_5": own,
        "from_poses": of_map(run / MAP_FROM_POSES, folder)[1] if (run / MAP_FROM_POSES).exists() else own,
        "true_poses": known["true_poses"] if known else figures["true_poses_A"]["fsc_0_5"],
    }


def of_map(path: Path, folder: Path) -> tuple[torch.Tensor, float, torch.Tensor, float]:
    """A map in the frame of the truth, its resolution at FSC 0.5, its FSC and the side of its box in Å."""
    density, pixel_size = read_map(path)
    truth = resample_map(read_map(folder / "truth.mrc")[0], density.shape[0])
    aligned = apply_alignment(density, align_maps(density, truth))
    fsc, side = fourier_shell_correlation(aligned, truth), pixel_size * density.shape[0]
    return aligned, resolution(fsc, 0.5, side), fsc, side


def draw(results: list[dict], out: Path, figures: Path) -> None:
    """All figures of one data set, from its runs of the first seed; times and resolutions of all seeds."""
    figures.mkdir(parents=True, exist_ok=True)
    folder, first = Path(results[0]["folder"]), min(r["seed"] for r in results)
    runs = {s: Path(r["run"]) for s in SYSTEMS for r in results if (r["system"], r["seed"]) == (s, first)}
    draw_maps(runs, folder, figures)
    points = {s: [(r["seconds"], r["fsc_0_5"]) for r in results if r["system"] == s] for s in runs}
    plot_resolution_over_time(points, figures / "resolution_over_time.png", ceiling_A=results[0]["true_poses"])
    group = point_group(results[0]["symmetry"])
    plot_error_distribution({s: final_errors(run, folder, group) for s, run in runs.items()}, figures / "errors.png")
    traces = {s: Trace.load(run / TRACE) for s, run in runs.items() if (run / TRACE).exists()}
    measured = {s: trace_errors(t, true_rotations(runs[s], folder)[t.rows], group) for s, t in traces.items()}
    if measured:
        curves = {s: e.of_epochs.mean(1).tolist() for s, e in measured.items()}
        switches = {s: len(t.guesses) for s, t in traces.items() if t.poses}
        plot_error_over_epochs(curves, figures / "error_over_epochs.png", switches=switches)
    for system, errors in measured.items():
        draw_heads(runs[system], folder, traces[system], errors, figures, system.replace(", ", "-").replace(" ", "-"))


def draw_maps(runs: dict[str, Path], folder: Path, figures: Path) -> None:
    """Maps and FSC curves of all systems."""
    maps, curves, side = {}, {}, 0.0
    for system, run in runs.items():
        maps[system], _, fsc, side = of_map(run / "map.mrc", folder)
        curves[system] = fsc[1:].tolist()
    box = len(next(iter(maps.values())))
    truth = resample_map(read_map(folder / "truth.mrc")[0], box)
    plot_maps({"truth": truth} | maps, figures / "maps.png")
    shells = range(1, len(next(iter(curves.values()))) + 1)
    ceiling = ceiling_curve(next(iter(runs.values())), folder, truth)
    plot_fsc([side / s for s in shells], {"true poses": ceiling} | curves, figures / "fsc.png", resolution_A=None)


def ceiling_curve(run: Path, folder: Path, truth: torch.Tensor) -> list[float]:
    """FSC with the truth of a map from a run's images at their true poses."""
    from cryospin.evaluation.ceiling import maps_from_poses

    best = maps_from_poses(run, read_poses(folder / "truth.star").take(torch.arange(count_of(run)).numpy()))
    return fourier_shell_correlation(best.map, truth)[1:].tolist()


def count_of(run: Path) -> int:
    return len(read_poses(run / "particles.star").rotation)


def true_rotations(run: Path, folder: Path) -> torch.Tensor:
    """Of the images a run used, which are the first of the table."""
    return read_poses(folder / "truth.star").rotation[: count_of(run)]


def final_errors(run: Path, folder: Path, group: torch.Tensor) -> torch.Tensor:
    """Rotation error of every image, degrees."""
    own = read_poses(run / "particles.star").rotation
    none = torch.zeros(len(own), 2)
    return pose_errors(own, none, true_rotations(run, folder), none, group).rotation_deg


def draw_heads(run: Path, folder: Path, trace: Trace, errors: TraceErrors, figures: Path, system: str) -> None:
    """Winners per head, each head's errors over the sphere, and the posteriors of a few images with the heads' guesses."""
    records = [r for r in read_records(run / "metrics.jsonl") if r.get("winners")]
    plot_heads(records, figures / f"winners-{system}.png")
    true = true_rotations(run, folder)[trace.rows]
    plot_head_errors(errors.of_heads, true[:, 2], figures / f"head_errors-{system}.png")
    settings = Settings(
        particles=folder / "particles.star", out=run, box=len(read_map(run / "map.mrc")[0]), first=count_of(run)
    )
    _, _, problem = prepare(settings)
    radius = min(POSTERIOR_SHELL, problem.last_shell)
    density = of_map(run / MAP_FROM_POSES, folder)[0]
    grid = FourierGrid(radius)
    chosen = torch.linspace(0, len(trace.rows) - 1, VIEW_IMAGES + 2).long()[1:-1]
    some = weighted(problem.observations.up_to(radius).take(trace.rows[chosen]), problem.noise)
    views, posterior = view_posterior(map_to_grid(density, grid), grid, some, VIEW_STEP_DEG)
    images = [
        ImageViews(
            name=f"image {int(trace.rows[i]) + 1}",
            views=views,
            log_posterior=posterior[number],
            heads=errors.heads[:, i, :, 2],
            true=true[i, 2],
        )
        for number, i in enumerate(chosen.tolist())
    ]
    plot_view_posteriors(images, figures / f"posteriors-{system}.png")


if __name__ == "__main__":
    main()
