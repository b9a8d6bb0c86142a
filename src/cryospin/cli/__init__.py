"""The command line: each command parses, calls the library and prints."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cryospin.cli import check, doctor, evaluate, reconstruct, report, simulate, watch
from cryospin.errors import InputError

# Threads that wait for work should sleep: spinning ones steal the cores from this program's own kernels and from whatever
# else runs on the machine. Must be said before PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

BAD_INPUT, INTERRUPTED = 2, 130
"""Exit statuses; 0 means that the command did all it was asked to."""


class _Commands(TyperGroup):
    """The commands, with what users can mend said in one line and no traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            _complain(f"error: {error}")
            raise typer.Exit(BAD_INPUT) from error
        except KeyboardInterrupt as error:
            _complain("interrupted")
            raise typer.Exit(INTERRUPTED) from error
        except OSError as error:
            if error.strerror is None or error.errno == errno.EPIPE:
                raise
            where = f"{error.filename}: " if error.filename else ""
            _complain(f"error: {where}{error.strerror}")
            raise typer.Exit(BAD_INPUT) from error


def _complain(text: str) -> None:
    """One line on stderr, however the text was laid out and however wide the terminal is."""
    print("cryospin:", *text.splitlines(), file=sys.stderr)


app = typer.Typer(
    name="cryospin",
    cls=_Commands,
    help="Ab-initio reconstruction of single-particle cryo-EM images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        from importlib.metadata import version

        print(f"cryospin {version('cryospin')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that stand before the command."""


app.command("simulate")(simulate.simulate)
app.command("check")(check.check)
app.command("reconstruct")(reconstruct.reconstruct)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(report.report)
app.command("watch")(watch.watch)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line and leave with its exit status."""
    app()
