"""A set of particles: from images on disk to the packed working set of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryospin.errors import InputError
from cryospin.formats.stack import check_locations, read_images
from cryospin.formats.star import read_star
from cryospin.formats.table import ParticleTable
from cryospin.fourier import HalfDisc, pack
from cryospin.kernels.types import Observations
from cryospin.optics import contrast_transfer

DEFAULT_BOX = 128
"""Larger boxes are Fourier-cropped to this many pixels unless the user asks otherwise."""

_CHUNK_PIXELS = 1 << 23
_BACKGROUND_RADIUS = 0.45


@dataclass(frozen=True)
class ParticleSet:
    """N particles whose images stay on disk until they are packed.

    table: metadata
    box: pixels along a side of the images on disk
    """

    table: ParticleTable
    box: int

    @classmethod
    def load(cls, path: str | Path, datadir: str | Path | None = None) -> ParticleSet:
        """Read a particle table and find its images; `InputError` says what is wrong and what to do."""
        path = Path(path)
        if path.suffix != ".star":
            raise InputError(
                "unknown kind of particle table", where=path, remedy="Give a RELION .star file (version 3.1 or later)"
            )
        table = read_star(path, Path(datadir) if datadir else None)
        box = check_locations(table.images, path)
        if box < 16:
            raise InputError(f"images of {box} pixels are too small to reconstruct", where=path)
        return cls(table, box)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def pixel_size(self) -> float:
        """Å per pixel of the images on disk."""
        return self.table.pixel_size

    @property
    def size_angstrom(self) -> float:
        """Physical side of the box, Å; what frequencies in cycles per box refer to."""
        return self.box * self.pixel_size

    def working_box(self, box: int | None = None) -> int:
        """The box a run uses: what the user asked for, or the images' own up to `DEFAULT_BOX`; always even."""
        if box is None:
            return min(self.box, DEFAULT_BOX) // 2 * 2
        if not 16 <= box <= self.box or box % 2:
            raise InputError(
                f"--box {box} does not fit images of {self.box} pixels",
                remedy=f"Give an even number from 16 to {self.box // 2 * 2}",
            )
        return box

    def pack(self, box: int, *, invert: bool | None = None, progress: Callable[[int], None] = lambda n: None) -> Packed:
        """Normalise all images on their background, Fourier-crop them to `box` pixels and pack them.

        invert: multiply by -1 (protein is dark in the images); None decides by looking
        progress: called with the number of images done since the last call
        raises: `InputError` for NaN pixels and for images without any variation
        """
        disc = HalfDisc.build(box // 2 - 1)
        images = torch.empty(len(self), len(disc), dtype=torch.complex64)
        outside = _outside_circle(self.box, _BACKGROUND_RADIUS * self.box)
        for rows in _chunks(len(self), _CHUNK_PIXELS // self.box**2):
            chunk = read_images(self.table.images, rows)
            self._refuse_broken(chunk, rows)
            images[rows[0] : rows[-1] + 1] = pack(_normalise(chunk, outside), disc)
            progress(len(rows))
        ctf = contrast_transfer(self.table.optics, disc, box, self.size_angstrom / box)
        dark = _looks_dark(images, ctf, disc)
        inverted = dark if invert is None else invert
        if inverted:
            images.neg_()
        observations = Observations(
            images=images,
            ctf=ctf,
            weight=torch.ones(1, len(disc)),
            group=torch.zeros(len(self), dtype=torch.long),
            scale=torch.ones(len(self)),
            disc=disc,
            box=box,
        )
        return Packed(observations, self.size_angstrom / box, inverted)

    def _refuse_broken(self, images: Tensor, rows: np.ndarray) -> None:
        """Name the first image that cannot be used."""
        flat = images.flatten(1)
        for bad, what in ((~torch.isfinite(flat).all(1), "NaN or infinite pixels"), (flat.std(1) == 0, "no contrast")):
            if bad.any():
                row = int(rows[int(bad.nonzero()[0])])
                where = self.table.images
                raise InputError(
                    f"image {where.slice[row] + 1} (row {row + 1} of {self.table.path.name}) has {what}",
                    where=where.files[where.stack[row]],
                    remedy="Remove the particle from the table",
                )


@dataclass(frozen=True)
class Packed:
    """The working set of a run.

    observations: packed images and CTFs, weights still 1
    pixel_size: Å per pixel at the run's box
    inverted: whether the images' contrast was turned over on load
    """

    observations: Observations
    pixel_size: float
    inverted: bool


def _chunks(count: int, size: int) -> Iterator[np.ndarray]:
    """Consecutive row numbers, at most `size` at a time."""
    for start in range(0, count, max(1, size)):
        yield np.arange(start, min(start + max(1, size), count))


def _outside_circle(box: int, radius: float) -> Tensor:
    """Pixels farther than `radius` from the centre, bool `(box, box)`."""
    k = torch.arange(box) - box // 2
    return torch.hypot(k[:, None].float(), k.float()) > radius


def _normalise(images: Tensor, outside: Tensor) -> Tensor:
    """Images with mean 0 and variance 1 in the background."""
    background = images[:, outside]
    variance, mean = torch.var_mean(background, dim=1, keepdim=True)
    return (images - mean[..., None]) / variance.clamp_min(1e-20).sqrt()[..., None]


def _looks_dark(images: Tensor, ctf: Tensor, disc: HalfDisc) -> bool:
    """Whether the average particle, its CTF undone, is darker than its surroundings.

    The rotational average of any compact density is a blob at the centre, whose transform is positive at
    the lowest frequencies: its sign there is the contrast's.
    """
    low = (disc.shell >= 1) & (disc.shell <= 3)
    return bool((images[:, low].real * ctf[:, low]).mean() < 0)
