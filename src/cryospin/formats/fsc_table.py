"""`fsc.csv`: how well half maps agree, shell by shell."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cryospin.errors import InputError
from cryospin.formats.whole import whole
from cryospin.maps.fsc import GOLD_STANDARD, never_falls, resolution

_CURVES = {
    "fsc_corrected": "corrected",
    "fsc_masked": "masked",
    "fsc_unmasked": "unmasked",
    "fsc_randomised": "masked, phases randomised",
}
"""Columns by what figures call them; the curve that counts comes first."""


@dataclass(frozen=True)
class FscTable:
    """FSC curves of half maps.

    shells_A: resolution of each shell from the first, Å
    curves: correlation of each shell, by what figures call the curve; the one that counts comes first
    """

    shells_A: list[float]
    curves: dict[str, list[float]]

    @property
    def side_A(self) -> float:
        """Side of the maps' box."""
        return self.shells_A[0]

    @property
    def best_curve(self) -> str:
        """The one that counts: the corrected one where there is one."""
        return next(iter(self.curves))

    def from_zero(self, curve: str | None = None) -> Tensor:
        """A curve, or the best, from shell 0, float64."""
        return torch.tensor([1.0, *self.curves[curve or self.best_curve]], dtype=torch.float64)

    def at(self, curve: str | None = None) -> float | None:
        """Å at which a curve, or the best, first falls below 0.143, between shells; None where it never does."""
        values = self.from_zero(curve)
        if values[1] < GOLD_STANDARD or never_falls(values, GOLD_STANDARD):
            return None
        return resolution(values, GOLD_STANDARD, self.side_A)


def read_fsc(path: Path) -> FscTable:
    """The curves of a run; raises `InputError` for a file that is not such a table."""
    try:
        table = pd.read_csv(path, dtype=float)
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"not a readable table ({error})", where=path) from error
    names = [name for name in _CURVES if name in table]
    if "resolution_A" not in table or not names:
        raise InputError("lacks the columns of an FSC table", where=path, remedy="Expected resolution_A and fsc_unmasked")
    # Frequency 0 has no resolution, and nothing to show.
    table = table[np.isfinite(table["resolution_A"]) & (table["resolution_A"] > 0)]
    if table.empty:
        raise InputError("holds no shell", where=path, remedy="Give the folder of a finished run")
    return FscTable(list(table["resolution_A"]), {_CURVES[name]: list(table[name]) for name in names})


def write_fsc(path: Path, side_A: float, curves: Mapping[str, Tensor]) -> None:
    """Write curves from shell 1, whole or not at all.

    side_A: of the maps' box; curves: from shell 0, `(shells,)` each, by the name that follows `fsc_` in the heading
    """
    with whole(path) as temporary, temporary.open("w", newline="") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(["resolution_A", *(f"fsc_{name}" for name in curves)])
        for shell, values in enumerate(zip(*(c.tolist() for c in curves.values()), strict=True)):
            if shell > 0:
                table.writerow([f"{side_A / shell:.4f}", *(f"{value:.6f}" for value in values)])
