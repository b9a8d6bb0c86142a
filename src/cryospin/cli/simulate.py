"""`cryospin simulate`: particle images of known pose."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cryospin.cli.progress import say, steps

_PARTICLE, _MICROSCOPE, _NOISE = "Particles", "Microscope", "Noise"


class Noise(StrEnum):
    """How noise is spread over frequencies."""

    white = "white"
    coloured = "coloured"


def simulate(
    out: Annotated[Path, typer.Option(help="Folder for the images, their table and the truth.", show_default=False)],
    source: Annotated[
        str,
        typer.Option(
            metavar="phantom|FILE",
            help="What to image: [bold]phantom[/], a made-up molecule; an atomic model (.pdb, .cif); or a map (.mrc).",
            rich_help_panel=_PARTICLE,
        ),
    ] = "phantom",
    n: Annotated[int, typer.Option("--n", help="Number of images.", rich_help_panel=_PARTICLE)] = 3000,
    box: Annotated[
        int,
        typer.Option(
            help="Side of the images in pixels; even, and about 1.5 times the particle.", rich_help_panel=_PARTICLE
        ),
    ] = 64,
    pixel_size: Annotated[
        float,
        typer.Option(help="Å per pixel. No detail finer than twice this survives.", rich_help_panel=_PARTICLE),
    ] = 5.0,
    shift_sd: Annotated[
        float,
        typer.Option(
            help="How far off centre particles are picked: standard deviation in x and in y, pixels.",
            rich_help_panel=_PARTICLE,
        ),
    ] = 1.5,
    junk: Annotated[
        float, typer.Option(help="Fraction of the images that hold no particle, 0 to 1.", rich_help_panel=_PARTICLE)
    ] = 0.0,
    defocus: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="MIN MAX",
            help="Range of underfocus in Å; images are spread evenly over it, so that images fill each other's CTF zeros.",
            rich_help_panel=_MICROSCOPE,
        ),
    ] = (10000.0, 25000.0),
    astigmatism: Annotated[
        float,
        typer.Option(help="Largest difference between the two defoci of an image, Å.", rich_help_panel=_MICROSCOPE),
    ] = 500.0,
    snr: Annotated[
        float,
        typer.Option(
            help="Variance of the signal (after the CTF) over that of the noise, over whole images. "
            "Typical micrographs have 0.01 to 0.1.",
            rich_help_panel=_NOISE,
        ),
    ] = 0.1,
    noise: Annotated[
        Noise,
        typer.Option(
            help="[bold]white[/]: the same at all frequencies; [bold]coloured[/]: stronger at low ones, as ice and "
            "carbon make it.",
            rich_help_panel=_NOISE,
        ),
    ] = Noise.white,
    seed: Annotated[int, typer.Option(help="The same seed gives the same images, and the same phantom.")] = 0,
) -> None:
    """Simulate particle images of known pose.

    Writes particles.star and particles.mrcs to reconstruct from, and truth.star and truth.mrc to compare with.
    """
    from cryospin.simulation import ImagingConditions, density_from_source
    from cryospin.simulation import simulate as make_images

    conditions = ImagingConditions(
        snr=snr, shift_sd=shift_sd, defocus=defocus, astigmatism=astigmatism, coloured=noise is Noise.coloured, junk=junk
    )
    density = density_from_source(source, box, pixel_size, seed)
    with steps("Simulating images", n) as advance:
        make_images(density, pixel_size, n, out, conditions, seed, advance)
    say(_summary(out, n, box, pixel_size))


def _summary(out: Path, n: int, box: int, pixel_size: float) -> str:
    """What was written, a line a file."""
    return "\n".join(
        [
            f"Wrote to {out}:",
            f"  particles.star  {n:,} particles without poses: what to reconstruct from",
            f"  particles.mrcs  their images, {box} x {box} pixels of {pixel_size:g} Å",
            "  truth.star      the same particles with their true poses",
            "  truth.mrc       the map they are images of",
        ]
    )
