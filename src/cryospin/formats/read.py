"""Read particle tables of any kind, told apart by their names."""

from __future__ import annotations

from pathlib import Path

from cryospin.errors import InputError
from cryospin.formats.bare import read_bare
from cryospin.formats.cs import read_cs, read_cs_poses
from cryospin.formats.star import read_poses as read_star_poses
from cryospin.formats.star import read_star
from cryospin.formats.table import GivenPoses, ParticleTable

_COMPRESSED = (".gz", ".bz2")
_STACKS = (".mrc", ".mrcs")


def read_table(path: Path, ctf: Path | None = None, datadir: Path | None = None) -> ParticleTable:
    """Read a particle table; only for bare stacks do its images need to be there.

    path: a RELION `.star`, a cryoSPARC `.cs`, an `.mrcs` or `.mrc` stack, or a `.txt` list of stacks
    ctf: for stacks, the table with their CTF; for a `.cs`, the passthrough file with the fields it lacks
    raises: `InputError` for anything that is none of these, or cannot be parsed
    """
    kind = _kind(path)
    if kind == ".star":
        if ctf is not None:
            raise InputError("a .star table has its own CTF columns", where=path, remedy="Drop --ctf")
        return read_star(path)
    if kind == ".cs":
        return read_cs(path, ctf)
    if kind in (*_STACKS, ".txt"):
        if ctf is None:
            raise InputError(
                "images alone do not say how they were taken",
                where=path,
                remedy="Give --ctf FILE, a .star or .cs with one row for each image, or the particle table itself",
            )
        return read_bare(path, _ctf_table(ctf), datadir)
    raise InputError(
        "unknown kind of particle table",
        where=path,
        remedy="Give a RELION .star, a cryoSPARC .cs, or an .mrcs stack with --ctf",
    )


def read_poses(path: Path) -> GivenPoses:
    """The poses of a RELION `.star` or a cryoSPARC `.cs` alone; it needs no images and no CTF.

    raises: `InputError` where there are none, or where they are broken
    """
    return read_cs_poses(path) if _kind(path) == ".cs" else read_star_poses(path)


def _ctf_table(path: Path) -> ParticleTable:
    kind = _kind(path)
    if kind == ".star":
        return read_star(path)
    if kind == ".cs":
        return read_cs(path)
    remedy = "Give a .star or .cs with the CTF parameters of each image"
    if kind == ".pkl":
        raise InputError("is a pickle, which could run code when it is read and is refused", where=path, remedy=remedy)
    raise InputError("unknown kind of CTF table", where=path, remedy=remedy)


def _kind(path: Path) -> str:
    """The suffix that tells, in lower case; a compression's own is looked past."""
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower()
    return inner if suffix in _COMPRESSED and inner in _STACKS else suffix
