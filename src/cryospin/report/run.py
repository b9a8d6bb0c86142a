"""The figures of a run, from the files it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from cryospin.errors import InputError
from cryospin.formats.star import read_poses
from cryospin.formats.volume import read_map
from cryospin.report.figures import plot_fsc, plot_orientations, plot_slices
from cryospin.report.progress import plot_heads, plot_progress

_NEEDED = ("metrics.jsonl", "fsc.csv", "map.mrc", "particles.star")
_CURVES = {
    "fsc_corrected": "corrected",
    "fsc_masked": "masked",
    "fsc_unmasked": "unmasked",
    "fsc_randomised": "masked, phases randomised",
}
_THRESHOLD = 0.143


def write_figures(run: str | Path) -> list[Path]:
    """Draw every figure that the files of a run allow and return their paths.

    raises: `InputError` for a folder that is not that of a finished run, or whose files were damaged
    """
    run = Path(run)
    _check_run(run)
    records = read_records(run / "metrics.jsonl")
    shells, curves = _read_fsc(run / "fsc.csv")
    density, voxel = read_map(run / "map.mrc")
    rotations = _read_rotations(run / "particles.star")

    written = [run / f"{name}.png" for name in ("fsc", "orientations", "slices", "progress")]
    best = curves.get(_CURVES["fsc_corrected"]) or next(iter(curves.values()))
    plot_fsc(shells, curves, written[0], resolution_A=_crossing(shells, best))
    plot_orientations(rotations, written[1])
    plot_slices(density, voxel, written[2])
    plot_progress(records, written[3])
    if any(r.get("winners") for r in records):
        written.append(run / "heads.png")
        plot_heads(records, written[-1])
    return written


def read_records(path: Path) -> list[dict[str, Any]]:
    """The epochs of a run; raises `InputError` that names the line that cannot be read."""
    records = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            record = json.loads(line) if line.strip() else None
        except json.JSONDecodeError as error:
            raise InputError(f"line {number} is not JSON ({error.msg})", where=path) from error
        if isinstance(record, dict):
            records.append(record)
    if not records:
        raise InputError("holds no epochs", where=path, remedy="Let the run get through its first epoch")
    return records


def _check_run(run: Path) -> None:
    """Raise `InputError` unless the folder holds what the figures are drawn from."""
    if not run.is_dir():
        raise InputError("no such folder", where=run, remedy="Give the folder that cryospin reconstruct --out wrote")
    missing = [name for name in _NEEDED if not (run / name).is_file()]
    if len(missing) == len(_NEEDED):
        raise InputError("not a run folder", where=run, remedy="Give the folder that cryospin reconstruct --out wrote")
    if missing:
        raise InputError(f"lacks {', '.join(missing)}", where=run, remedy="Let the run finish first")


def _read_fsc(path: Path) -> tuple[list[float], dict[str, list[float]]]:
    """Resolutions in Å and the curves by the names they go by in the figure."""
    try:
        table = pd.read_csv(path)
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"not a readable table ({error})", where=path) from error
    names = [name for name in _CURVES if name in table]
    if "resolution_A" not in table or not names:
        raise InputError("lacks the columns of an FSC table", where=path, remedy="Expected resolution_A and fsc_unmasked")
    # Frequency 0 has no resolution, and nothing to show.
    table = table[np.isfinite(table["resolution_A"]) & (table["resolution_A"] > 0)]
    return list(table["resolution_A"]), {_CURVES[name]: list(table[name]) for name in names}


def _read_rotations(path: Path) -> Tensor:
    """Rotations of a particle table `(N, 3, 3)`, without a look at its images."""
    return read_poses(path).rotation


def _crossing(shells: list[float], curve: list[float]) -> float | None:
    """Resolution in Å at which a curve first falls below 0.143, between shells; None where it never does."""
    frequency = 1 / np.asarray(shells, dtype=float)
    below = np.flatnonzero(np.asarray(curve) < _THRESHOLD)
    if len(below) == 0 or below[0] == 0:
        return None
    i = int(below[0])
    share = (curve[i - 1] - _THRESHOLD) / (curve[i - 1] - curve[i])
    return float(1 / (frequency[i - 1] + share * (frequency[i] - frequency[i - 1])))
