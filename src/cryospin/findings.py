"""What reading and checking the input brings to light, collected so that a user hears of everything at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from cryospin.errors import InputError


class Severity(StrEnum):
    """How much a finding matters."""

    error = "error"
    """Nothing can be reconstructed before it is mended."""
    warning = "warning"
    """Suspicious: a run goes on, and may come to nothing."""
    note = "note"
    """Worth knowing."""


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed about the input.

    problem: what it is, in one line
    where: the file it is about
    row: first row it is about, counted from 1; column: the column; count: how many rows
    remedy: what to do about it
    names: of files it is about, besides `where`
    """

    severity: Severity
    problem: str
    where: Path
    remedy: str = ""
    row: int | None = None
    column: str | None = None
    count: int | None = None
    names: tuple[str, ...] = ()

    def plain(self) -> dict[str, object]:
        """For JSON; what does not apply is None."""
        return asdict(self) | {"where": str(self.where), "severity": self.severity.value}

    def __str__(self) -> str:
        return str(InputError(self.problem, where=self.where, remedy=self.remedy))


class Findings(list[Finding]):
    """Findings in the order they were made."""

    numbers: np.ndarray | None = None
    """Rows in the file, counted from 0, of the particles that `rows` is told about; None where these are all."""

    def error(self, problem: str, where: Path, remedy: str = "", column: str | None = None) -> None:
        """Something that makes a reconstruction impossible."""
        self.append(Finding(Severity.error, problem, where, remedy, column=column))

    def warn(self, problem: str, where: Path, remedy: str = "", column: str | None = None) -> None:
        """Something suspicious."""
        self.append(Finding(Severity.warning, problem, where, remedy, column=column))

    def note(self, problem: str, where: Path) -> None:
        """Something worth knowing."""
        self.append(Finding(Severity.note, problem, where))

    def rows(
        self, severity: Severity, bad: np.ndarray, problem: str, where: Path, remedy: str, column: str | None = None
    ) -> None:
        """One finding for all rows where `bad` holds; `{row}` in `problem` becomes the first of them, counted from 1."""
        at = np.flatnonzero(bad)
        if not len(at):
            return
        row = int(at[0] if self.numbers is None else self.numbers[at[0]]) + 1
        text = problem.replace("{row}", str(row))
        if len(at) > 1:
            remedy = f"{remedy}; so for {len(at) - 1} more rows" if remedy else f"So for {len(at) - 1} more rows"
        self.append(Finding(severity, text, where, remedy, row, column, len(at)))

    def of(self, severity: Severity) -> list[Finding]:
        """Those of one severity."""
        return [f for f in self if f.severity is severity]

    def refuse_errors(self) -> None:
        """Raise `InputError` for the first error, and say how many more there are."""
        errors = self.of(Severity.error)
        if not errors:
            return
        first, more = errors[0], len(errors) - 1
        remedy = first.remedy
        if more:
            remedy = f"{remedy}. cryospin check lists {more} more problem{'s' * (more > 1)} like this".removeprefix(". ")
        raise InputError(first.problem, where=first.where, remedy=remedy)
