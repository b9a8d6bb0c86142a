"""What every particle table comes down to, whichever program wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cryospin.formats.stack import ImageLocation
from cryospin.optics import Optics


@dataclass(frozen=True)
class GivenPoses:
    """Poses that came with a table.

    rotation: float64 `(N, 3, 3)`; shift: float64 `(N, 2)`, displacement of the particle (x, y) in Å
    pixel_size: Å, of the images the poses are of
    """

    rotation: Tensor
    shift: Tensor
    pixel_size: float


@dataclass(frozen=True)
class ParticleTable:
    """Metadata of N particles.

    path: the file it came from
    images: where the images lie
    optics: imaging conditions
    pixel_size: Å
    poses: the table's own poses, or None
    source: the table as it was read, for writing it back
    """

    path: Path
    images: ImageLocation
    optics: Optics
    pixel_size: float
    poses: GivenPoses | None
    source: Any

    def __len__(self) -> int:
        return len(self.optics)
