"""Find the stacks that a table names, wherever the table was moved to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryospin.errors import InputError

_TWINS = {".mrc": ".mrcs", ".mrcs": ".mrc"}
_LEVELS_UP = 6


class StackFinder:
    """Looks for stacks in the places they are usually left.

    Tried in turn: under `datadir`, relative to the table, relative to each folder above it (as RELION's names are, from
    the project's folder), relative to the current folder, then under `datadir` and beside the table without the first
    folders of the name; each also with `.mrc` and `.mrcs` exchanged. What belongs to the table thus comes before what
    happens to lie where the command is given. The place that had the last one comes first after `datadir`, so that
    thousands of stacks cost one look each.

    rivals: stacks found, with another file that the same name means from the current folder; looked for once a place
    mixed_up: two names that lead to one file although their folders differ, and that file: one of the two is missing
    """

    def __init__(self, table: Path, datadir: Path | None = None) -> None:
        if datadir is not None and not datadir.is_dir():
            raise InputError("is not a folder", where=datadir, remedy="Check --datadir")
        self.table = table
        folder = table.resolve().parent
        self._first = [datadir] if datadir else []
        self._bases = [folder, *list(folder.parents)[:_LEVELS_UP], Path()]
        self._folder = folder
        self._last: Path | None = None
        self.rivals: list[tuple[Path, Path]] = []
        self.mixed_up: list[tuple[str, str, Path]] = []
        self._cut_short: dict[Path, str] = {}
        self._in_full: dict[Path, str] = {}

    def find(self, name: str) -> Path:
        """The file that the table means by `name`.

        Raises `InputError` that names the stack and lists the places tried.
        """
        tried: dict[Path, None] = {}
        for base, candidate in self._candidates(Path(name)):
            if candidate in tried:
                continue
            if _is_file(candidate):
                if base is not None and base != self._last:
                    self._note_rival(candidate, Path(name))
                    self._prefer(base)
                self._note_mixture(candidate, name, self._cut_short if base is None else self._in_full)
                return candidate
            tried[candidate] = None
        places = ", ".join(str(p) for p in dict.fromkeys(p.parent for p in tried))
        raise InputError(
            f"stack {name} not found (looked in {places})",
            where=self.table,
            remedy="Give the folder it is in with --datadir",
        )

    def _candidates(self, name: Path) -> Iterator[tuple[Path | None, Path]]:
        if name == self.table:
            # A stack that was given in place of a table.
            yield None, name
        for base in (*self._first, *self._bases):
            for path in _with_twin(base / name):
                yield base, path
        for base in (*self._first, self._folder):
            for first in range(1, len(name.parts)):
                for path in _with_twin(base / Path(*name.parts[first:])):
                    yield None, path

    def _prefer(self, base: Path) -> None:
        self._last = base
        if base in self._bases:
            self._bases.remove(base)
            self._bases.insert(0, base)

    def _note_mixture(self, found: Path, name: str, among: dict[Path, str]) -> None:
        """Keep in mind where names of different folders lead to one file, one of them at least without its folders."""
        others = [self._cut_short] if among is self._in_full else [self._cut_short, self._in_full]
        for other in (names[found] for names in others if found in names):
            if not _may_be_same(Path(other), Path(name)):
                self.mixed_up.append((other, name, found))
        among.setdefault(found, name)

    def _note_rival(self, found: Path, name: Path) -> None:
        """Keep in mind where the current folder has another file of this name."""
        if _is_file(name) and not name.samefile(found):
            self.rivals.append((found, name.absolute()))


def _is_file(path: Path) -> bool:
    """Whether there is such a file; names that no file system takes are not there."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _may_be_same(one: Path, other: Path) -> bool:
    """Whether one name is the other without its first folders."""
    return all(a == b for a, b in zip(reversed(one.parts), reversed(other.parts), strict=False))


def _with_twin(path: Path) -> Iterator[Path]:
    yield path
    if path.suffix in _TWINS:
        yield path.with_suffix(_TWINS[path.suffix])
