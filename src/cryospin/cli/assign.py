"""`cryospin assign`: poses for new particles of a structure that is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryospin.cli.input import CTF_HELP, DATADIR_HELP, INPUT, First, Particles, ParticlesIndex, Recentre, Sample
from cryospin.cli.progress import duration, progress, say

if TYPE_CHECKING:
    from cryospin.engine.assign import Trial

_METHOD, _MACHINE = "Method", "Machine"
_AS_USUAL = 0.15


def assign(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.", show_default=False)],
    particles: Particles,
    out: Annotated[Path, typer.Option(help="Folder for the tables with the poses.", show_default=False)],
    proposals: Annotated[
        str,
        typer.Option(
            metavar="heads|grid|both",
            help="What suggests poses: the run's heads, a grid of all poses, or whichever serves by a trial on some images.",
            rich_help_panel=_METHOD,
        ),
    ] = "both",
    invert: Annotated[
        bool | None,
        typer.Option(
            help="Protein is dark (--invert) or white (--no-invert); as in the run by default.", rich_help_panel=INPUT
        ),
    ] = None,
    recentre: Recentre = False,
    datadir: Annotated[Path | None, typer.Option(help=DATADIR_HELP, rich_help_panel=INPUT)] = None,
    ctf: Annotated[Path | None, typer.Option(help=CTF_HELP, rich_help_panel=INPUT)] = None,
    first: First = None,
    sample: Sample = None,
    particles_index: ParticlesIndex = None,
    threads: Annotated[int | None, typer.Option(help="Cores to use; all by default.", rich_help_panel=_MACHINE)] = None,
) -> None:
    """Find poses for new particles in the map of a finished run.

    Takes some milliseconds an image, and writes the tables that a run does. The map stays what it was; half-sets are drawn
    anew.
    """
    from cryospin import assignment
    from cryospin.environment import cores_to_use
    from cryospin.selection import Selection

    with progress.deferred("Assigning poses") as reading:
        found = assignment.assign(
            run,
            particles,
            out,
            proposals=proposals,
            invert=invert,
            recentre=recentre,
            threads=cores_to_use(threads),
            datadir=datadir,
            ctf=ctf,
            selection=Selection(first, particles_index, sample),
            reading=reading,
        )
    for finding in found.findings:
        say(f"{finding.severity}: {finding}")
    if found.trial:
        say(_verdict(found.trial))
    if abs(found.contrast - 1) > _AS_USUAL:
        say(f"the particle's contrast in these images is {found.contrast:.2f} of that in the run's")
    rate = len(found) / max(found.seconds, 1e-9)
    say(f"{len(found):,} poses in {duration(found.seconds)} ({rate:,.0f} images a second), in {out}")
    if found.doubtful:
        share = 100 * found.doubtful / len(found)
        say(f"{found.doubtful:,} images ({share:.1f} %) hardly resemble the map: particles_good.star does without")


def _verdict(trial: Trial) -> str:
    """What became of the heads."""
    serve = "the heads serve, and the grid where they leave doubt" if trial.passed else "the grid serves all"
    return (
        f"of {trial.images} images tried, the heads settle {100 * trial.settled:.0f} %, "
        f"{100 * trial.beaten:.0f} % of those in a wrong mode: {serve}"
    )
