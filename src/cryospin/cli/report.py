"""`cryospin report`: the page and the figures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that cryospin reconstruct wrote.", show_default=False)],
) -> None:
    """Write report.html and the figures of a run again, of a run that was stopped from what there is."""
    from cryospin.report.page import write_report

    for path in write_report(run):
        print(f"Wrote {path}")
