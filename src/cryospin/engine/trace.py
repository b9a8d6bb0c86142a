"""What became of a few images: every head's guess and loss, then the optimised pose, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cryospin.evenly import evenly_spaced
from cryospin.formats.tensors import read_tensors, write_tensors
from cryospin.fourier import CPU
from cryospin.state import State

_IMAGES = 1000
_FIELDS = ("rows", "guesses", "losses", "poses")


@dataclass
class Trace:
    """Records of the images `rows` `(s,)`.

    guesses: for each epoch with an encoder, rotations `(s, C, 3, 3)`; losses: `(s, C)`
    poses: for each epoch after it, rotations `(s, 3, 3)`
    """

    rows: Tensor
    guesses: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    poses: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, count: int, device: torch.device = CPU) -> Trace:
        """Up to 1,000 of so many images, evenly spread over the table."""
        return cls(evenly_spaced(count, _IMAGES, device))

    def state(self) -> State:
        """Everything, by name."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def restored(cls, state: State) -> Trace:
        """The trace whose state this is."""
        rows, *records = (state[name] for name in _FIELDS)
        # They stay on the CPU wherever a run goes on.
        return cls(rows, *([part.cpu() for part in parts] for parts in records))

    def add_guesses(self, rotation: Tensor, loss: Tensor) -> None:
        """An epoch with an encoder is over."""
        self.guesses.append(rotation.cpu().clone())
        self.losses.append(loss.cpu().clone())

    def add_poses(self, rotation: Tensor) -> None:
        """An epoch without one is over."""
        self.poses.append(rotation.cpu().clone())

    def best(self) -> list[Tensor]:
        """For each epoch, the rotation each image was taken to have, `(s, 3, 3)`."""
        rows = torch.arange(len(self.rows))
        return [g[rows, at.argmin(1)] for g, at in zip(self.guesses, self.losses, strict=True)] + self.poses

    def save(self, path: Path) -> None:
        """Write everything to one file."""
        tensors = {"rows": self.rows.cpu()}
        for name in _FIELDS[1:]:
            if parts := getattr(self, name):
                tensors[name] = torch.stack(parts)
        write_tensors(path, tensors)

    @classmethod
    def load(cls, path: Path) -> Trace:
        """Read what `save` wrote."""
        tensors = read_tensors(path, "Run again with a preset that learns")
        return cls(tensors["rows"], *(list(tensors.get(name, ())) for name in _FIELDS[1:]))
