"""What a run was begun with: nothing of it may have changed where the run is to be continued."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from cryospin.errors import InputError
from cryospin.formats.whole import whole
from cryospin.particles import ParticleSet
from cryospin.settings import Settings

_ANEW = "start anew with another --out"

_MAY_CHANGE = ("out", "threads", "device", "memory")
"""Settings that a run may be continued with another value of."""


@dataclass(frozen=True)
class Origin:
    """Settings and input files of a run as they were when it began.

    settings: as in `config.toml`
    files: size in bytes and time of the last change in ns of every file that was read, by path
    """

    settings: dict[str, Any]
    files: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, settings: Settings, particles: ParticleSet) -> Self:
        """The origin of a run that has just read its particles."""
        tables = (settings.particles, settings.ctf, settings.particles_index, settings.truth_poses)
        paths = [path for path in tables if path is not None] + [stack.path for stack in particles.images.stacks]
        return cls(settings.table(), {str(path.absolute()): _looks(path) for path in paths})

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The origin that `write` wrote; None where the run did not get so far."""
        if not path.is_file():
            return None
        try:
            plain = json.loads(path.read_text())
            return cls(plain["settings"], {name: (size, time) for name, (size, time) in plain["files"].items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"cannot be used ({error})", where=path, remedy=_ANEW.capitalize()) from error

    def write(self, path: Path) -> None:
        """Write it whole."""
        with whole(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1))

    def refuse_changes(self, config: dict[str, Any], where: Path) -> None:
        """Raise `InputError` for settings or files that are not what they were.

        config: the run's `config.toml` as it is now, which may say more than it did; where: that file
        """
        for name, value in self.settings.items():
            if name not in _MAY_CHANGE and config.get(name) != value:
                now = f"{config[name]}" if name in config else "missing"
                raise InputError(
                    f"{name} was {value} when the run began and is {now}", where=where, remedy=f"Put it back, or {_ANEW}"
                )
        for name, looked in self.files.items():
            path = Path(name)
            if not path.is_file():
                raise InputError("no such file, though the run began with it", where=path, remedy=f"Put it back, or {_ANEW}")
            if _looks(path) != looked:
                raise InputError("has changed since the run began", where=path, remedy=f"Put it back, or {_ANEW}")


def _looks(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
