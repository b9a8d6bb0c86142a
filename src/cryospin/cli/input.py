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
