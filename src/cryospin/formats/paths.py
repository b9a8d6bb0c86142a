"""Find the stacks that a table names, wherever the table was moved to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryospin.errors import InputError

_TWINS = {".mrc": ".mrcs", ".mrcs": ".mrc"}
_LEVELS_UP = 6


class StackFinder:
    """Looks for stacks in the places they are usually left.

    Tried in turn: as given, relative to the table, relative to each folder above it, under `datadir`, under it without
    the first folders of the name, and the bare name beside the table; each also with `.mrc` and `.mrcs` exchanged. The
    place that had the last one comes first after `datadir`, so that thousands of stacks cost one look each.
    """

    def __init__(self, table: Path, datadir: Path | None = None) -> None:
        if datadir is not None and not datadir.is_dir():
            raise InputError("is not a folder", where=datadir, remedy="Check --datadir")
        self.table = table
        folder = table.resolve().parent
        self._first = [datadir] if datadir else []
        self._bases = [Path(), folder, *list(folder.parents)[:_LEVELS_UP]]
        self._folder = folder

    def find(self, name: str) -> Path:
        """The file that the table means by `name`.

        Raises `InputError` that names the stack and lists the places tried.
        """
        tried: dict[Path, None] = {}
        for base, candidate in self._candidates(Path(name)):
            if candidate in tried:
                continue
            if _is_file(candidate):
                self._prefer(base)
                return candidate
            tried[candidate] = None
        places = ", ".join(str(p) for p in dict.fromkeys(p.parent for p in tried))
        raise InputError(
            f"stack {name} not found (looked in {places})",
            where=self.table,
            remedy="Give the folder it is in with --datadir",
        )

    def _candidates(self, name: Path) -> Iterator[tuple[Path | None, Path]]:
        for base in (*self._first, *self._bases):
            for path in _with_twin(base / name):
                yield base, path
        for base in (*self._first, self._folder):
            for first in range(1, len(name.parts)):
                for path in _with_twin(base / Path(*name.parts[first:])):
                    yield None, path

    def _prefer(self, base: Path | None) -> None:
        if base in self._bases[1:]:
            self._bases.remove(base)
            self._bases.insert(0, base)


def _is_file(path: Path) -> bool:
    """Whether there is such a file; names that no file system takes are not there."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _with_twin(path: Path) -> Iterator[Path]:
    yield path
    if path.suffix in _TWINS:
        yield path.with_suffix(_TWINS[path.suffix])
