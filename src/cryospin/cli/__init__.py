"""The command line: each command parses, calls the library and prints."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cryospin.cli import assign, check, doctor, evaluate, reconstruct, report, resume, simulate, watch
from cryospin.cli.failing import told_in_one_line

# Threads that wait for work should sleep: spinning ones steal the cores from this program's own kernels and from whatever
# else runs on the machine. Must be said before PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class _Commands(TyperGroup):
    """The commands, with what users can fix said in one line and no traceback."""

    def invoke(self, ctx: Any) -> Any:
        with told_in_one_line():
            return super().invoke(ctx)


app = typer.Typer(
    name="cryospin",
    cls=_Commands,
    help="Ab-initio reconstruction of single-particle cryo-EM images.",
    no_args_is_help=True,
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
app.command("resume")(resume.resume)
app.command("assign")(assign.assign)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(report.report)
app.command("watch")(watch.watch)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line and leave with its exit status."""
    app()
