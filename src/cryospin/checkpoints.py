"""Checkpoints: where a run stands, as tensors in safetensors and plain values in JSON.

A checkpoint is two files, `step-0012.safetensors` and then `step-0012.json`, each written whole or not at all; without
the second the first does not count. The last two are kept: should the newest prove unreadable, the one before it serves.
Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from cryospin.errors import InputError
from cryospin.formats.whole import whole
from cryospin.state import State, copied, put_together, taken_apart

FORMAT = 2
"""Raised when states change so that older checkpoints cannot be continued."""

SHARE = 0.02
"""Checkpoints may take this share of a run's time; where they would take more, some are left out."""

_KEPT = 2
_NAME = "step-{:04d}"


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stood between two steps.

    step: how many were taken; epoch: the last one in the records; seconds: the run had taken so far
    device: what was computed on
    stage: the name of the one that goes on
    written: bytes that each of the run's records held
    state: of that stage
    """

    step: int
    epoch: int
    seconds: float
    device: str
    stage: str
    written: dict[str, int]
    state: State


class Checkpoints:
    """The checkpoints of one run.

    folder: where they are kept
    share: of the time since this object was made that they may take; infinity keeps one of every step
    """

    def __init__(self, folder: Path, share: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self._clock = folder, clock
        self._share = SHARE if share is None else share
        self._began, self.spent = clock(), 0.0
        self._held: Checkpoint | None = None

    def offer(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint: on disk, or in memory as long as the disk has had its share of the time.

        raises: `OSError` where it cannot be written; those before it are still there
        """
        self._held = checkpoint
        if self.spent <= self._share * (self._clock() - self._began):
            self.flush()
        else:
            # The steps to come work in place.
            self._held = replace(checkpoint, state=copied(checkpoint.state))

    def flush(self) -> None:
        """Write the checkpoint that is in memory only, if there is one."""
        if self._held is None:
            return
        started = self._clock()
        self._write(self._held)
        self._held = None
        for old in self._steps()[:-_KEPT]:
            self._remove(old)
        self.spent += self._clock() - started

    def newest(self) -> Checkpoint | None:
        """The last checkpoint that can be read, or None.

        raises: `InputError` where another version wrote it
        """
        for step in reversed(self._steps()):
            try:
                return self._read(step)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError):
                continue
        return None

    def clear(self) -> None:
        """Remove them all: the run is done."""
        self._held = None
        for step in self._steps():
            self._remove(step)
        for orphan in self.folder.glob("step-*.safetensors"):
            orphan.unlink()

    def _path(self, step: int, suffix: str) -> Path:
        return self.folder / f"{_NAME.format(step)}{suffix}"

    def _steps(self) -> list[int]:
        """Steps that there are checkpoints of, in order."""
        names = [path.stem.rpartition("-")[2] for path in self.folder.glob("step-*.json")]
        return sorted(int(n) for n in names if n.isdecimal())

    def _write(self, checkpoint: Checkpoint) -> None:
        tree, tensors = taken_apart(checkpoint.state)
        plain = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)} | {"state": tree, "format": FORMAT}
        # Python writes the bytes, so that a full disk is an OSError with the file's name.
        _write_through(self._path(checkpoint.step, ".safetensors"), save(tensors))
        _write_through(self._path(checkpoint.step, ".json"), json.dumps(plain, indent=1).encode())

    def _read(self, step: int) -> Checkpoint:
        plain = json.loads(self._path(step, ".json").read_text())
        if plain.pop("format") != FORMAT:
            raise InputError(
                "was written by another version of cryospin",
                where=self._path(step, ".json"),
                remedy="Continue with that version, or start anew with another --out",
            )
        tensors = load_file(self._path(step, ".safetensors"))
        return Checkpoint(**plain | {"state": put_together(plain["state"], tensors)})

    def _remove(self, step: int) -> None:
        for suffix in (".json", ".safetensors"):
            self._path(step, suffix).unlink(missing_ok=True)


def _write_through(path: Path, content: bytes) -> None:
    """Write a file whole, and wait until it would survive a power failure."""
    with whole(path) as temporary, temporary.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
