"""Which point groups a run says that its map may have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryospin.errors import InputError


@dataclass(frozen=True)
class Candidate:
    """A point group's best axes in a map.

    score: correlation of the map with itself turned by the group; 1 is perfect
    between: the same for turns about the main axis half-way between the group's own
    random: the same for axes at random, mean and standard deviation
    main_axis: (x, y, z) in the map, of length 1
    """

    name: str
    score: float
    between: float
    random: tuple[float, float]
    main_axis: tuple[float, float, float]

    @classmethod
    def of(cls, table: dict[str, Any]) -> Candidate:
        """One of the candidates in `symmetry.json`."""
        x, y, z = (float(a) for a in table["main_axis"])
        return cls(
            name=str(table["name"]),
            score=float(table["score"]),
            between=float(table["score_between"]),
            random=(float(table["score_random_mean"]), float(table["score_random_sd"])),
            main_axis=(x, y, z),
        )


@dataclass(frozen=True)
class SymmetryFound:
    """The verdict on a map's symmetry, and what it was chosen from.

    name: the largest group that the map has, C1 for none
    expected: score of a true symmetry in a map of this quality
    last_shell: up to which the map was compared with itself, cycles per box
    candidates: best score first
    """

    name: str
    expected: float
    last_shell: int
    candidates: tuple[Candidate, ...]


def read_symmetry(path: Path) -> SymmetryFound | None:
    """What a run wrote to `symmetry.json`; None where it did not look. Raises `InputError` for a damaged file."""
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        candidates = tuple(Candidate.of(c) for c in table["candidates"])
        return SymmetryFound(str(table["symmetry"]), float(table["expected_score"]), int(table["last_shell"]), candidates)
    except (ValueError, TypeError, KeyError) as error:
        remedy = "Remove it; the report then does without"
        raise InputError(f"cannot be read ({type(error).__name__}: {error})", where=path, remedy=remedy) from error
