"""`cryospin reconstruct`: images to maps and poses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryospin.cli.failing import resumable
from cryospin.cli.input import CTF_HELP, DATADIR_HELP, INPUT, First, Particles, ParticlesIndex, Recentre, Sample
from cryospin.cli.listening import RunListener, where_to_look
from cryospin.cli.progress import progress, say
from cryospin.errors import InputError

_PARTICLE, _METHOD, _MACHINE = "Particle", "Method", "Machine"


def reconstruct(
    particles: Particles,
    out: Annotated[Path, typer.Option(help="Folder for the results; must not hold a run yet.", show_default=False)],
    preset: Annotated[
        str,
        typer.Option(
            help="[bold]cryospin[/]: a search over all orientations and a small neural network propose poses; "
            "[bold]search[/]: the same without the network; [bold]paper[/], [bold]cryoai[/]: published methods, to compare "
            "with.",
            rich_help_panel=_METHOD,
        ),
    ] = "cryospin",
    proposals: Annotated[
        str | None,
        typer.Option(
            metavar="heads|grid|both",
            help="What proposes poses: the network, the search, or both, as the preset does by default.",
            rich_help_panel=_METHOD,
        ),
    ] = None,
    box: Annotated[
        int | None,
        typer.Option(
            help="Fourier-crop images to this many pixels; by default their own box, up to 128.", rich_help_panel=_METHOD
        ),
    ] = None,
    max_resolution: Annotated[
        float | None,
        typer.Option(help="Ignore detail finer than this, Å; by default nothing is ignored.", rich_help_panel=_METHOD),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="The same seed and number of threads give the same result.", rich_help_panel=_METHOD)
    ] = 0,
    starts: Annotated[
        int,
        typer.Option(
            help="Start from nothing at most so many times. Another start is made only if the last looks doubtful; if all "
            "do, the one that best fits images kept out of it goes on.",
            rich_help_panel=_METHOD,
        ),
    ] = 3,
    mask_diameter: Annotated[
        float | None,
        typer.Option(
            help="Diameter of a sphere that holds the particle, Å; 84 % of the box by default.", rich_help_panel=_PARTICLE
        ),
    ] = None,
    symmetry: Annotated[
        str,
        typer.Option(
            help="Point group imposed, axes as RELION has them: C1, C3, D7, T, O, I, I1 to I4. [bold]auto[/] imposes none "
            "and says which the map has.",
            rich_help_panel=_PARTICLE,
        ),
    ] = "C1",
    impose: Annotated[
        str,
        typer.Option(
            metavar="refinement|start",
            help="When the point group is imposed: once the structure is found, on the axes it has then, or from the start.",
            rich_help_panel=_PARTICLE,
        ),
    ] = "refinement",
    invert: Annotated[
        bool | None,
        typer.Option(help="Protein is dark (--invert) or white (--no-invert); detected by default.", rich_help_panel=INPUT),
    ] = None,
    datadir: Annotated[Path | None, typer.Option(help=DATADIR_HELP, rich_help_panel=INPUT)] = None,
    ctf: Annotated[
        Path | None,
        typer.Option(
            help=CTF_HELP,
            rich_help_panel=INPUT,
        ),
    ] = None,
    first: First = None,
    sample: Sample = None,
    particles_index: ParticlesIndex = None,
    recentre: Recentre = False,
    truth_poses: Annotated[
        Path | None,
        typer.Option(help="True poses of simulated images, to follow the error in metrics.jsonl.", rich_help_panel=INPUT),
    ] = None,
    shifts: Annotated[
        str,
        typer.Option(
            metavar="estimated|none",
            help="Whether displacements are estimated; [bold]paper[/] and [bold]cryoai[/] can do without.",
            rich_help_panel=_METHOD,
        ),
    ] = "estimated",
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a number of [bold]paper[/] or [bold]cryoai[/], such as heads=15 or encoding_epochs=20.",
            rich_help_panel=_METHOD,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            metavar="auto|cpu|cuda|cuda:N",
            help="What to compute on; auto takes a GPU where there is one.",
            rich_help_panel=_MACHINE,
        ),
    ] = "auto",
    threads: Annotated[int | None, typer.Option(help="Cores to use; all by default.", rich_help_panel=_MACHINE)] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            help="Use at most so many GiB of memory; images that do not fit stay on disk. By default most of what is free.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
) -> None:
    """Reconstruct a map from particle images whose poses nobody knows.

    Writes the map in both hands, two half maps, a mask, the FSC, and the particle table with a pose for every image.
    """
    from cryospin import pipeline
    from cryospin.settings import Settings

    settings = Settings(
        particles=particles,
        out=out,
        preset=preset,
        proposals=proposals,
        box=box,
        mask_diameter=mask_diameter,
        max_resolution=max_resolution,
        symmetry=symmetry,
        impose=impose,
        invert=invert,
        device=device,
        threads=threads,
        memory=memory,
        seed=seed,
        starts=starts,
        datadir=datadir,
        ctf=ctf,
        first=first,
        sample=sample,
        particles_index=particles_index,
        recentre=recentre,
        truth_poses=truth_poses,
        shifts=_yes_or_no(shifts),
        options=dict(_pair(text) for text in options or ()),
    )
    with resumable(out), RunListener(progress) as listener:
        pipeline.reconstruct(settings, listener)
    say(where_to_look(out))


def _yes_or_no(shifts: str) -> bool:
    """What `--shifts` says."""
    if shifts not in ("estimated", "none"):
        raise InputError(f"--shifts {shifts} is not known", remedy="Give estimated or none")
    return shifts == "estimated"


def _pair(text: str) -> tuple[str, str]:
    """Name and value of one `--set`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text} has no value", remedy="Give NAME=VALUE")
    return name.strip(), value.strip()
