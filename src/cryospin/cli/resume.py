"""`cryospin resume`: go on with a run that was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryospin.cli.failing import resumable
from cryospin.cli.listening import RunListener, where_to_look
from cryospin.cli.progress import progress, say


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that cryospin reconstruct --out named.")],
    threads: Annotated[
        int | None,
        typer.Option(help="Cores to use; those the run began with by default. Others may change the last digits."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="auto|cpu|cuda|cuda:N", help="What to compute on; what the run began with by default."),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(help="GiB to get along with; images that do not fit are kept on disk. As the run began by default."),
    ] = None,
) -> None:
    """Continue a run where it stopped, whatever stopped it.

    It ends with the same files as if it had never been stopped. The input files must be what they were.
    """
    from cryospin import pipeline

    with resumable(run), RunListener(progress) as listener:
        went_on = pipeline.resume(run, listener, threads=threads, device=device, memory=memory)
    say(where_to_look(run) if went_on else f"{run} is finished: there is nothing to continue")
