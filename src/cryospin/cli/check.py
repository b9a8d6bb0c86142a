"""`cryospin check`: whether the input is fit to be reconstructed from, and what that will cost."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryospin.cli.input import CTF_HELP, DATADIR_HELP, Particles
from cryospin.cli.progress import progress
from cryospin.words import counted, duration

if TYPE_CHECKING:
    from cryospin.preflight import Preflight

_UNFIT = 2
_MOST_LISTED = 12
_HEADINGS = {"error": "Wrong", "warning": "Suspicious", "note": "Worth knowing"}


def check(
    particles: Particles,
    datadir: Annotated[Path | None, typer.Option(help=DATADIR_HELP)] = None,
    ctf: Annotated[Path | None, typer.Option(help=CTF_HELP)] = None,
    first: Annotated[int | None, typer.Option(help="Check only so many particles, from the top.")] = None,
    sample: Annotated[int | None, typer.Option(help="Check only so many particles, evenly spaced.")] = None,
    particles_index: Annotated[
        Path | None, typer.Option(help="Check only the rows that this text file lists, counted from 0.")
    ] = None,
    box: Annotated[int | None, typer.Option(help="Working box to estimate the cost for, pixels.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every image, not a sample of 200.")] = False,
    threads: Annotated[int | None, typer.Option(help="Cores to estimate the cost for; all by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Read a particle table and explain what is in it, what is suspicious and what is wrong.

    Says what a reconstruction will cost here. Exit status 0 where one would start, 2 where something has to be fixed first.
    """
    from cryospin.environment import cores_to_use
    from cryospin.preflight import preflight
    from cryospin.selection import Selection

    selection, cores = Selection(first, particles_index, sample), cores_to_use(threads)
    # A sample is read at once, and JSON stands alone.
    silence = nullcontext(lambda total: lambda n: None)
    with progress.deferred("Reading images") if deep and not as_json else silence as reading:
        found = preflight(
            particles, datadir=datadir, ctf=ctf, selection=selection, box=box, threads=cores, deep=deep, reading=reading
        )
    # Names out of a table need not be UTF-8.
    print(json.dumps(found.plain(), indent=1) if as_json else as_page(found).encode(errors="backslashreplace").decode())
    if not found.fit:
        raise typer.Exit(_UNFIT)


def as_page(found: Preflight) -> str:
    """The findings on one page."""
    lines = [str(found.path)]
    if found.facts:
        lines += _facts(found.facts)
    if found.pixels is not None:
        lines += _pixels(found)
    for severity, heading in _HEADINGS.items():
        some = [f for f in found.findings if f.severity == severity]
        if some:
            lines += ["", heading]
            lines += [f"  - {_without_path(f, found.path)}" for f in some[:_MOST_LISTED]]
        if len(some) > _MOST_LISTED:
            lines.append(f"  - and {len(some) - _MOST_LISTED} more (--json lists all)")
    lines += ["", _verdict(found)]
    return "\n".join(lines)


def _without_path(finding: Any, path: Path) -> str:
    """A finding; the file's name only where it is another file than the one checked."""
    return str(finding).removeprefix(f"{path}: ")


def _facts(facts: dict[str, Any]) -> list[str]:
    """What the table says."""
    groups = facts["optics_groups"]
    rows = [
        ("format", facts["format"]),
        ("particles", f"{facts['particles']:,} in {counted(facts['stacks'], 'stack')}"),
        ("box", ", ".join(f"{b} px" if b else "not said" for b in facts["box_px"])),
        ("pixel size", ", ".join(f"{p:.4g} Å" for p in facts["pixel_size_A"])),
        ("pixel type", ", ".join(facts["pixel_types"]) if "pixel_types" in facts else "not known: stacks are missing"),
        ("poses", facts["poses"]),
        ("defocus", "{:,.0f} to {:,.0f} Å, middle {:,.0f}".format(*_order(facts["defocus_A"]))),
        ("astigmatism", "{:,.0f} to {:,.0f} Å".format(*_order(facts["astigmatism_A"]))),
    ]
    if any(facts["phase_shift_deg"]):
        rows.append(("phase shift", "{:.0f} to {:.0f}°".format(*_order(facts["phase_shift_deg"]))))
    lines = [f"  {name:<14} {value}" for name, value in rows]
    lines.append(f"  {'optics groups':<14} {len(groups)}")
    return lines + [f"    {_group(g)}" for g in groups[:_MOST_LISTED]]


def _order(values: tuple[float, float, float]) -> tuple[float, float, float]:
    """Least, greatest, middle."""
    return values[0], values[2], values[1]


def _group(g: dict[str, Any]) -> str:
    """One optics group on a line."""
    parts = [
        f"{g['name']}: {g['particles']:,} particles",
        f"{g['voltage_kV']:g} kV",
        f"Cs {g['cs_mm']:g} mm",
        f"amplitude contrast {g['amplitude_contrast']:g}",
        f"{g['pixel_size_A']:.4g} Å",
    ]
    if "beam_tilt_mrad" in g:
        parts.append("beam tilt {:.2f}, {:.2f} mrad".format(*g["beam_tilt_mrad"]))
    if "zernike_terms" in g:
        parts.append(f"{g['zernike_terms']} Zernike terms")
    if "magnification" in g:
        parts.append("anisotropic magnification")
    return ", ".join(parts)


def _pixels(found: Preflight) -> list[str]:
    """What the images look like."""
    pixels = found.pixels
    assert pixels is not None, "only told where images were read"
    state = "normalised" if pixels.normalised else "not normalised; cryospin does that on load"
    told = {None: "not clear from these images: say it with --invert or --no-invert", True: "dark; inverted on load"}
    contrast = told.get(pixels.dark, "white")
    return [
        f"  {'images read':<14} {pixels.looked_at:,} of {found.facts['particles']:,}",
        f"  {'background':<14} mean {pixels.background_mean:.3g}, deviation {pixels.background_sd:.3g} ({state})",
        f"  {'protein':<14} {contrast}",
    ]


def _verdict(found: Preflight) -> str:
    """The last line: what will happen."""
    if count := sum(f.severity == "error" for f in found.findings):
        return f"Not fit to reconstruct from: {counted(count, 'thing')} to correct first."
    if not found.fit:
        from cryospin.formats.plausibility import FEWEST

        return f"Nothing wrong, but a reconstruction needs at least {FEWEST} particles."
    cost = found.cost
    assert cost is not None, "a fit table has a cost"
    free = f", {cost.available_gib:.1f} free" if cost.available_gib is not None else ""
    disk = f"; {cost.disk_gib:.1f} GiB of packed images are kept on disk" if cost.disk_gib else ""
    return (
        f"Fit to reconstruct from: about {duration(cost.seconds)} on {counted(cost.threads, 'thread')} (half or twice that, "
        "more for faint images), "
        f"{cost.memory_gib:.1f} GiB of memory{free}{disk}."
    )
