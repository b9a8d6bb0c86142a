"""Numbers out of the text of a table, with what is wrong in them collected rather than raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryospin.findings import Findings, Severity


@dataclass(frozen=True)
class Columns:
    """Some columns of one block of a table.

    where: the file; block: what to call the block in messages
    text: label to values
    count: rows
    """

    where: Path
    block: str
    text: dict[str, list[str]]
    count: int
    findings: Findings

    @property
    def of_particles(self) -> bool:
        """Whether a row is a particle, or else an optics group."""
        return self.block == "particles"

    def __contains__(self, label: str) -> bool:
        return label in self.text

    def numbers(self, label: str, default: float | None = None, remedy: str = "") -> np.ndarray:
        """A column as float64 `(count,)`.

        default: fills a column that is not there; without it, that is an error. Values that are no finite numbers
        are errors, too; they come back as 0, and nothing is to be made of the table.
        """
        if label not in self.text:
            if default is None:
                self.missing(label, remedy)
            return np.full(self.count, default or 0.0)
        values = _as_numbers(self.text[label])
        bad = ~np.isfinite(values)
        if bad.any():
            text = self.text[label]
            self.findings.rows(
                Severity.error,
                bad,
                f"row {{row}} of the {self.block} block: {label} is {{value}}, not a number",
                self.where,
                "Correct or remove the row",
                label,
                value=lambda i: repr(text[i]),
                of_particles=self.of_particles,
            )
            values[bad] = 0.0
        return values

    def integers(self, label: str) -> np.ndarray:
        """A column as int64 `(count,)`; anything else is an error."""
        values = self.numbers(label)
        whole = np.clip(values, -(2.0**53), 2.0**53)
        bad = whole != np.rint(whole)
        self.findings.rows(
            Severity.error,
            bad,
            f"row {{row}} of the {self.block} block: {label} is not a whole number",
            self.where,
            "Correct the row",
            label,
            of_particles=self.of_particles,
        )
        return np.rint(whole).astype(np.int64)

    def missing(self, label: str, remedy: str = "") -> None:
        """Say that a column is not there."""
        self.findings.error(
            f"the {self.block} block has no column {label}",
            self.where,
            remedy or f"Add {label} to the table",
            label,
        )


def _as_numbers(values: Sequence[str]) -> np.ndarray:
    """Numbers where there are any, NaN elsewhere."""
    try:
        return np.array(values, dtype=np.float64)
    except (ValueError, OverflowError):
        return np.array([_number(v) for v in values], dtype=np.float64)


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return float("nan")
