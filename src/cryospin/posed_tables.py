"""The particle tables that results come as: with poses, and once more without the doubtful particles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryospin.engine.likeness import DOUBTFUL
from cryospin.formats.table import AssignedPoses, ParticleTable
from cryospin.formats.whole import whole

_GOOD, _ROWS = "particles_good", "good_rows.txt"

TABLES = (*(f"{stem}.{kind}" for stem in ("particles", _GOOD) for kind in ("star", "cs")), _ROWS)
"""What `write_tables` leaves, by the kind of the input."""


def write_tables(folder: Path, table: ParticleTable, found: AssignedPoses, shortfall: np.ndarray) -> None:
    """Write a table with what was found for its particles, the same without the doubtful ones, and the rows of the others.

    shortfall: standard errors by which each image's contrast falls short of the usual, `(N,)`
    """
    table.source.write(folder, table, found)
    good = np.flatnonzero(shortfall < DOUBTFUL)
    of_good = table.take(good)
    of_good.source.write(folder, of_good, found.take(good), _GOOD)
    with whole(folder / _ROWS) as temporary:
        temporary.write_text("".join(f"{row}\n" for row in of_good.rows))
