"""Write files whole or not at all, and none over another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryospin.errors import InputError


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well and vanishes when it does not.

    raises: `OSError` that names `path` where the system says only what is wrong, as when a disk is full
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        # An error without a number is not the system's: its words are all it has, and a name would hide them.
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def refuse_to_replace(folder: Path, names: Iterable[str]) -> None:
    """Raise `InputError` where a folder for results is a file, or holds something under a name that will be written."""
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file, not a folder", where=folder, remedy="Give another --out")
    for path in map(folder.joinpath, names):
        if path.is_dir() and not any(path.iterdir()):
            continue
        if path.exists() or path.is_symlink():
            raise InputError("is there already", where=path, remedy="Give another --out: nothing is written over")
