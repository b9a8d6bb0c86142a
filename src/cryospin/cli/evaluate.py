"""`cryospin evaluate`: how good a result is, where the truth is known."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from cryospin.cli.progress import say
from cryospin.errors import InputError


def evaluate(
    result: Annotated[Path, typer.Argument(metavar="RUN|MAP", help="A run's folder, or a map.", show_default=False)],
    truth_map: Annotated[Path | None, typer.Option(help="The true map (.mrc).", show_default=False)] = None,
    truth_poses: Annotated[
        Path | None, typer.Option(help="The true poses (.star, or .cs with alignments3D).", show_default=False)
    ] = None,
    symmetry: Annotated[str, typer.Option(help="The particle's point group, modulo which poses are compared.")] = "C1",
    ceiling: Annotated[
        bool,
        typer.Option(
            help="Also reconstruct from the true poses: the best that any poses could give. Takes a while for large boxes."
        ),
    ] = True,
    json_out: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Also write the figures to this file.", show_default=False)
    ] = None,
    datadir: Annotated[
        Path | None, typer.Option(help="Folder to look for image stacks in first.", show_default=False)
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Cores to use; all by default.", show_default=False)] = None,
) -> None:
    """Compare a map and its poses with the truth, or with another run: rotation, shift and hand are found first.

    Poses are compared after one global turn, modulo the particle's symmetry. A resolution with ≤ is the finest that the box
    can tell: the curve never falls below the threshold. The file of --json lists such ones under at_most.
    """
    import torch

    from cryospin.environment import cores_to_use
    from cryospin.evaluation.evaluate import evaluate as measure
    from cryospin.formats.whole import whole

    if json_out is not None:
        _refuse_no_place(json_out)
    torch.set_num_threads(cores_to_use(threads))
    figures = measure(
        result, truth_map=truth_map, truth_poses=truth_poses, symmetry=symmetry, ceiling=ceiling, datadir=datadir
    )
    if json_out is not None:
        with whole(json_out) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n")
    say(as_table(figures))


def _refuse_no_place(path: Path) -> None:
    """Raise `InputError` for a file that could not be written, before anything is computed."""
    if path.is_dir():
        raise InputError("is a folder", where=path, remedy="Give --json the name of a file")
    if not os.access(path.parent, os.W_OK):
        raise InputError("there is no such folder, or it cannot be written", where=path.parent, remedy="Give another --json")


def as_table(figures: dict) -> str:
    """The figures as a few aligned lines; what was not measured is left out."""
    lines = []
    rotation, shift = figures["rotation_error_deg"], figures["shift_error_A"]
    if rotation:
        lines += [
            ("rotation error", f"median {rotation['median']:.2f}°, mean {rotation['mean']:.2f}°"),
            ("", f"{rotation['within_5']:.1f} % within 5°, {rotation['within_10']:.1f} % within 10°"),
            ("shift error", f"median {shift['median']:.2f} Å ({shift['median_px']:.2f} px)"),
        ]
    resolution, ceiling = figures["resolution_A"], figures["true_poses_A"]
    names = {
        "fsc_0_5": "FSC 0.5 to truth",
        "fsc_0_143": "FSC 0.143 to truth",
        "half_map_0_143": "half maps 0.143",
    }
    for key, name in names.items():
        if resolution[key] is not None:
            best = f"  (true poses: {_angstrom(figures, 'true_poses_A', key)})" if ceiling and ceiling.get(key) else ""
            finest = " (finest of the box)" if key in figures["at_most"]["resolution_A"] else ""
            lines.append((name, f"{_angstrom(figures, 'resolution_A', key)}{finest}{best}"))
    if figures["map_correlation"] is not None:
        lines.append(("map correlation", f"{figures['map_correlation']:.3f}"))
    if figures["hand"]:
        lines.append(("hand", f"{figures['hand']}" + (": see map_other_hand.mrc" if figures["hand"] == "flipped" else "")))
    return "\n".join(f"{name:20s}{value}" for name, value in lines)


def _angstrom(figures: dict, whose: str, key: str) -> str:
    """A resolution, or that it is no worse than the finest of the box where the curve does not tell it."""
    return f"{'≤ ' if key in figures['at_most'][whose] else ''}{figures[whose][key]:.2f} Å"
