"""`cryospin watch`: the report of a run in a browser, while the run goes on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from cryospin.errors import InputError


def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.", show_default=False)],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on; 0 takes any that is free.")] = 0,
) -> None:
    """Serve the report of a run to browsers on this computer, or through an SSH tunnel; Ctrl-C ends it.

    The page is read anew each time, and loads itself again while the run goes on.
    """
    from cryospin.report.serve import PageServer

    if not (run / "config.toml").is_file():
        raise InputError("not a run folder", where=run, remedy="Give the folder that cryospin reconstruct --out writes")
    try:
        server = PageServer(run, port)
    except OSError as error:
        raise InputError(
            f"--port {port} cannot be used ({error.strerror})", remedy="Give another, or leave --port out"
        ) from error
    with server:
        print(f"Report of {run} at {server.address}")
        print(f"From another computer, first: {server.tunnel}")
        print("Ctrl-C ends.", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)
    print("Ended.")
