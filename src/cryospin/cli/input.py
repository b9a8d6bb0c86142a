"""What commands that read particles ask for in the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Particles = Annotated[
    Path,
    typer.Argument(
        help="Particles: a RELION .star, a cryoSPARC .cs, or an .mrcs stack (or .txt list of stacks) with --ctf.",
        show_default=False,
    ),
]

DATADIR_HELP = "Folder to look for image stacks in first."
CTF_HELP = "For image stacks, a .star or .cs with the CTF of each image; for a .cs, its passthrough file."

INPUT = "Input"

First = Annotated[int | None, typer.Option(help="Use only so many particles, from the top.", rich_help_panel=INPUT)]

Sample = Annotated[
    int | None, typer.Option(help="Use only so many particles, evenly spaced over the table.", rich_help_panel=INPUT)
]

ParticlesIndex = Annotated[
    Path | None,
    typer.Option(
        help="Use only the rows that this text file lists, one number a line, counted from 0.", rich_help_panel=INPUT
    ),
]

Recentre = Annotated[
    bool,
    typer.Option(
        "--recentre",
        help="Centre the particles first by the shifts in the table, of 3D or 2D alignment.",
        rich_help_panel=INPUT,
    ),
]
