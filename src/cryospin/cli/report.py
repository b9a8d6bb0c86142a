"""`cryospin report`: the figures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that cryospin reconstruct wrote.")],
) -> None:
    """Draw the figures of a run again: resolution, orientations, slices, progress and heads."""
    from cryospin.report import write_figures

    for path in write_figures(run):
        print(f"Wrote {path}")
