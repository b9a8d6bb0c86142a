"""Which of a table's particles a run uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryospin.errors import InputError
from cryospin.evenly import evenly_spaced


@dataclass(frozen=True)
class Selection:
    """What a user chose.

    first: only so many, from the top; index: only those a text file lists, a row number a line, counted from 0
    sample: only so many of what these two leave, evenly spaced: a table is often in the order of its micrographs
    """

    first: int | None = None
    index: Path | None = None
    sample: int | None = None

    def __post_init__(self) -> None:
        for name in ("first", "sample"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise InputError(f"--{name} {number} is not a number of particles", remedy="Give 1 or more")

    def rows(self, count: int, table: Path) -> np.ndarray | None:
        """Rows to keep out of `count`, in the table's order; None for all.

        raises: `InputError` for row numbers that are not there
        """
        if self.first is None and self.index is None and self.sample is None:
            return None
        rows = np.arange(count) if self.index is None else _listed(self.index, count, table)
        rows = rows[: self.first]
        return rows if self.sample is None else rows[evenly_spaced(len(rows), self.sample).numpy()]


def _listed(path: Path, count: int, table: Path) -> np.ndarray:
    """Row numbers of a text file."""
    if not path.is_file():
        raise InputError("no such file", where=path, remedy="Check the path given with --particles-index")
    try:
        numbers = np.array(path.read_text().split(), dtype=np.float64)
    except ValueError as error:
        raise InputError(
            "is not a list of numbers", where=path, remedy="Give a row number a line, counted from 0"
        ) from error
    if not len(numbers):
        raise InputError("lists no rows", where=path, remedy="Give a row number a line, counted from 0")
    wrong = numbers[~((numbers >= 0) & (numbers < count) & (numbers == np.rint(numbers)))]
    if len(wrong):
        raise InputError(
            f"{wrong[0]:g} is no row of {table.name}, which has {count} particles",
            where=path,
            remedy=f"Give row numbers from 0 to {count - 1}",
        )
    return np.unique(numbers.astype(np.int64))
