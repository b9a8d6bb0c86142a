"""Image stacks without a table, whose CTF stands in a file of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cryospin.errors import InputError
from cryospin.findings import Findings
from cryospin.formats.new_star import NewStarSource
from cryospin.formats.paths import StackFinder
from cryospin.formats.stack import read_header
from cryospin.formats.table import ImageNames, ParticleTable

_LONGEST_LIST = 1 << 26


def read_bare(path: Path, ctf: ParticleTable, datadir: Path | None = None) -> ParticleTable:
    """Particles of one stack, or of the stacks listed in a text file, line by line.

    ctf: a table whose rows describe the images in their order; what it says of the images' places is not used
    raises: `InputError` where the two do not fit each other
    """
    listed = path.suffix.lower() == ".txt"
    names = _listed(path) if listed else [str(path)]
    finder = StackFinder(path, datadir)
    stacks = [read_header(finder.find(name)) for name in names]
    counts = [stack.count for stack in stacks]
    if sum(counts) != len(ctf):
        raise InputError(
            f"has {len(ctf)} rows, {path.name} {sum(counts)} images",
            where=ctf.path,
            remedy="Give a table with one row for each image, in the same order",
        )
    box = stacks[0].box if len({s.box for s in stacks}) == 1 else 0
    stack = np.repeat(np.arange(len(stacks)), counts)
    position = np.concatenate([np.arange(c) for c in counts])
    return replace(
        ctf,
        path=path,
        format=f"{'list of stacks' if listed else 'MRC stack'} with CTF from {ctf.path.name} ({ctf.format})",
        images=ImageNames(tuple(names), stack, position),
        optics=replace(ctf.optics, groups=tuple(replace(g, box=box) for g in ctf.optics.groups)),
        rows=np.arange(len(ctf)),
        source=NewStarSource(),
        findings=Findings(f for f in ctf.findings if f.column != "rlnImageName"),
    )


def _listed(path: Path) -> list[str]:
    """The stacks that a text file names."""
    if not path.is_file():
        raise InputError("no such file", where=path, remedy="Check the path of the list")
    if path.stat().st_size > _LONGEST_LIST:
        raise InputError("is too long for a list of stacks", where=path, remedy="Give one file name a line")
    lines = (line.strip() for line in path.read_text("utf-8", "surrogateescape").splitlines())
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise InputError("lists no stacks", where=path, remedy="Give one file name a line")
    return names
