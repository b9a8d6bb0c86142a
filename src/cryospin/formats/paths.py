"""Find the stacks that a table names, wherever the table was moved to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryospin.errors import InputError

_TWINS = {".mrc": ".mrcs", ".mrcs": ".mrc"}
_LEVELS_UP = 6


def find_stack(name: str, table: Path, datadir: Path | None = None) -> Path:
    """The file a table means by `name`.

    Tried in turn: as given, relative to the table, relative to each folder above it, under `datadir`, and the bare
    name in these places; each also with `.mrc` and `.mrcs` exchanged.

    Raises `InputError` that names the stack and lists the places tried.
    """
    tried: list[Path] = []
    for candidate in _candidates(Path(name), table, datadir):
        if candidate in tried:
            continue
        if candidate.is_file():
            return candidate
        tried.append(candidate)
    places = ", ".join(str(p) for p in dict.fromkeys(p.parent for p in tried))
    raise InputError(
        f"stack {name} not found (looked in {places})", where=table, remedy="Give the folder it is in with --datadir"
    )


def _candidates(name: Path, table: Path, datadir: Path | None) -> Iterator[Path]:
    folder = table.resolve().parent
    roots = [folder, *list(folder.parents)[:_LEVELS_UP]]
    bases = [*([datadir] if datadir else []), Path(), *roots]
    for base in bases:
        yield from _with_twin(base / name)
    for base in [*([datadir] if datadir else []), folder]:
        yield from _with_twin(base / name.name)


def _with_twin(path: Path) -> Iterator[Path]:
    yield path
    if path.suffix in _TWINS:
        yield path.with_suffix(_TWINS[path.suffix])
