"""What reading and checking the input brings to light, collected so that a user hears of everything at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from cryospin.errors import InputError


def _nothing(place: int) -> str:
    return ""


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """A text with RELION's columns by other names."""
    return re.sub(r"\brln\w+", lambda word: names.get(word[0], word[0]), text)


class Severity(StrEnum):
    """How much a finding matters."""

    error = "error"
    """Nothing can be reconstructed before it is corrected."""
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

    def within(self, rows: np.ndarray) -> Finding | None:
        """The same of some of the file's particles only, or None where it is about others."""
        return self

    def by_columns(self, names: Mapping[str, str]) -> Finding:
        """The same with columns by the names that another format has for RELION's."""
        column = self.column and _renamed(self.column, names)
        return replace(self, problem=_renamed(self.problem, names), remedy=_renamed(self.remedy, names), column=column)

    @property
    def full_remedy(self) -> str:
        """The remedy, and for how many more rows it holds."""
        if self.row is None or self.count is None or self.count < 2:
            return self.remedy
        more = f"the same for {self.count - 1} more row{'s' * (self.count > 2)}"
        return f"{self.remedy}; {more}" if self.remedy else more.capitalize()

    def __str__(self) -> str:
        return str(InputError(self.problem, where=self.where, remedy=self.full_remedy))


@dataclass(frozen=True)
class RowsFinding(Finding):
    """A finding about some particles, which knows which.

    template: the problem, with `{row}` and `{value}` for the first of them
    rows: in the file, counted from 0, increasing
    places: where the same rows stood in the table when it was made; value: of a place, for the message
    """

    template: str = ""
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), compare=False, repr=False)
    places: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), compare=False, repr=False)
    value: Callable[[int], str] = field(default=_nothing, compare=False, repr=False)

    @classmethod
    def about(
        cls,
        severity: Severity,
        rows: np.ndarray,
        places: np.ndarray,
        template: str,
        where: Path,
        remedy: str,
        column: str | None,
        value: Callable[[int], str],
    ) -> RowsFinding:
        """A finding about these rows."""
        row, told = int(rows[0]) + 1, value(int(places[0]))
        problem = template.replace("{row}", str(row)).replace("{value}", told)
        return cls(severity, problem, where, remedy, row, column, len(rows), (), template, rows, places, value)

    def plain(self) -> dict[str, object]:
        """For JSON, with all rows, counted from 1."""
        told = {name: value for name, value in vars(self).items() if name not in ("template", "places", "value")}
        return told | {"where": str(self.where), "severity": self.severity.value, "rows": (self.rows + 1).tolist()}

    def by_columns(self, names: Mapping[str, str]) -> Finding:
        """See `Finding.by_columns`."""
        template = _renamed(self.template, names)
        return replace(super().by_columns(names), template=template)  # type: ignore[call-arg]

    def within(self, rows: np.ndarray) -> Finding | None:
        """The same of some of the file's particles only, or None where it is about others."""
        kept = np.isin(self.rows, rows)
        if not kept.any():
            return None
        some = self.rows[kept], self.places[kept]
        return self.about(self.severity, *some, self.template, self.where, self.remedy, self.column, self.value)


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
        self,
        severity: Severity,
        bad: np.ndarray,
        problem: str,
        where: Path,
        remedy: str,
        column: str | None = None,
        *,
        value: Callable[[int], str] = _nothing,
        of_particles: bool = True,
    ) -> None:
        """One finding for all rows where `bad` holds; `{row}` in `problem` becomes the first of them, counted from 1.

        value: what `{value}` in `problem` becomes, for a place in `bad`
        of_particles: whether a row is a particle, or else an optics group
        """
        at = np.flatnonzero(bad)
        if not len(at):
            return
        numbers = at if self.numbers is None or not of_particles else self.numbers[at]
        found = RowsFinding.about(severity, numbers, at, problem, where, remedy, column, value)
        # Optics groups stay when particles are chosen.
        told = (severity, found.problem, where, remedy, found.row, column, found.count)
        self.append(found if of_particles else Finding(*told))

    def within(self, rows: np.ndarray) -> Findings:
        """What remains of them for some of the file's particles, counted from 0."""
        some = Findings(f for finding in self if (f := finding.within(rows)) is not None)
        some.numbers = rows
        return some

    def of(self, severity: Severity) -> list[Finding]:
        """Those of one severity."""
        return [f for f in self if f.severity is severity]

    def refuse_errors(self) -> None:
        """Raise `InputError` for the first error, and say how many more there are."""
        errors = self.of(Severity.error)
        if not errors:
            return
        first, more = errors[0], len(errors) - 1
        remedy = first.full_remedy
        if more:
            remedy = f"{remedy}. cryospin check lists {more} more".removeprefix(". ")
        raise InputError(first.problem, where=first.where, remedy=remedy)
