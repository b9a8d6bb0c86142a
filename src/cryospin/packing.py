"""Images on disk to the packed working set of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cryospin.disk_rows import allocate_rows
from cryospin.errors import InputError
from cryospin.formats.stack import ImageLocation, read_images, unusable
from cryospin.fourier import CPU, HalfDisc, pack
from cryospin.kernels.types import Observations
from cryospin.noise import noise_groups
from cryospin.optics import contrast_transfer, odd_aberration
from cryospin.resampling import Resampler
from cryospin.transfer import Upload

if TYPE_CHECKING:
    from cryospin.particles import ParticleSet

_CHUNK_PIXELS = 1 << 23
_BACKGROUND_RADIUS = 0.45
_SAME_LATTICE = 1e-6
_NO_NOISE = 1e-5
"""Range of a background's pixels, over that of its image's, that is no noise's."""

_SQUARED = (1e-12, 1e12)
"""Pixels within can be squared as they are."""

CLEAR = 3.0
"""Standard errors from which on it is clear whether protein is dark."""

_LOOKED_AT = 2000
"""Images that the contrast is told from: their average has hardly any noise left at the lowest frequencies."""


@dataclass(frozen=True)
class Packed:
    """The working set of a run.

    observations: packed images and CTFs, weights still 1
    pixel_size: Å per pixel at the run's box
    inverted: whether the images' contrast was turned over on load
    signed: whether those that the table says are dark, beside white ones, were turned over before
    centre: displacements of the particles that were undone on load, float64 `(N, 2)`, Å
    darkness: by how many standard errors protein looked dark in the images, None where nobody had to look
    """

    observations: Observations
    pixel_size: float
    inverted: bool
    signed: bool
    centre: Tensor
    darkness: float | None = None

    @property
    def where(self) -> str:
        """Where the packed images are kept, in words."""
        if self.observations.resident:
            return "in memory" if self.observations.device == CPU else "on the device"
        if isinstance(self.observations.images, Tensor):
            return "in memory, since the device does not hold them"
        return "on disk, since memory does not hold them"


def bytes_packed(count: int, box: int) -> int:
    """What `count` packed images with their CTFs take."""
    return count * len(HalfDisc.build(box // 2 - 1)) * 12


def pack_particles(
    particles: ParticleSet,
    box: int,
    *,
    invert: bool | None,
    recentre: bool,
    folder: Path | None,
    progress: Callable[[int], None],
    device: torch.device,
    resident: bool,
) -> Packed:
    """See `ParticleSet.pack`."""
    work = _Packing.of(particles, box, recentre)
    darkness = work.darkness() if invert is None else None
    inverted = darkness > 0 if darkness is not None else bool(invert)
    disc, count = work.disc, len(particles)
    store = device if resident else CPU
    images = Upload(allocate_rows(count, len(disc), torch.complex64, folder, store))
    ctf = Upload(allocate_rows(count, len(disc), torch.float32, folder, store))
    for rows, packed in work.all():
        at = torch.from_numpy(rows)
        images.put(at, packed.neg_() if inverted else packed)
        ctf.put(at, work.transfer(rows))
        progress(len(rows))
    group = noise_groups(particles.table.optics.group)
    observations = Observations(
        images=images.finish(),
        ctf=ctf.finish(),
        weight=torch.ones(int(group.max()) + 1, len(disc), device=device),
        group=group.to(device),
        scale=torch.ones(count, device=device),
        disc=HalfDisc.build(disc.radius, device),
        box=box,
    )
    signed = particles.table.sign is not None
    return Packed(observations, particles.size_angstrom / box, inverted, signed, work.centre, darkness)


def darkness(particles: ParticleSet, box: int) -> float:
    """See `ParticleSet.darkness`."""
    return _Packing.of(particles, box, recentre=False).darkness()


@dataclass(frozen=True)
class _Packing:
    """How the images of a set become coefficients.

    centre: displacements to undo, float64 `(N, 2)`, Å; 0 where none are
    """

    particles: ParticleSet
    disc: HalfDisc
    box: int
    recentre: bool
    centre: Tensor
    lattices: list[_Lattice]

    @classmethod
    def of(cls, particles: ParticleSet, box: int, recentre: bool) -> _Packing:
        """Sort the particles by how they are sampled."""
        disc = HalfDisc.build(box // 2 - 1)
        return cls(particles, disc, box, recentre, _centres(particles, recentre), list(_lattices(particles, disc)))

    def all(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Every particle's coefficients, some rows at a time."""
        for lattice in self.lattices:
            yield from self._of_lattice(lattice, lattice.rows)

    def transfer(self, rows: np.ndarray) -> Tensor:
        """CTF of some particles, float32 `(n, P)`."""
        optics = self.particles.table.optics.take(torch.from_numpy(rows))
        return contrast_transfer(optics, self.disc, self.box, self.particles.size_angstrom / self.box)

    def darkness(self) -> float:
        """By how many standard errors the average particle, its CTF undone, is darker than its surroundings.

        The rotational average of a density within the box is a blob or a hollow ball at the centre. The transform of
        either is positive at one cycle per box, and of neither for certain beyond: its sign there is the contrast's.
        """
        low = self.disc.shell == 1
        every = max(1, len(self.particles) // _LOOKED_AT)
        dark = []
        for lattice in self.lattices:
            for rows, packed in self._of_lattice(lattice, lattice.rows[::every]):
                dark.append(-(packed[:, low].real * self.transfer(rows)[:, low]).sum(1).double())
        each = torch.cat(dark)
        return float(each.sum() / each.square().sum().sqrt().clamp_min(1e-12))

    def _of_lattice(self, lattice: _Lattice, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Coefficients of some particles of a lattice, one chunk after another."""
        where, outside = self.particles.images, background(lattice.box)
        for part, images in _read_ahead(where, chunks(rows, _CHUNK_PIXELS // lattice.box**2)):
            _refuse_broken(self.particles, images, part)
            packed = lattice.transform(_normalise(images, outside))
            if lattice.aberration is not None:
                packed *= lattice.aberration.conj()
            if self.recentre:
                shift = (self.centre[part] / self.particles.size_angstrom).float()
                packed *= self.disc.shift_phase(shift, box=1).conj()
            if (sign := self.particles.table.sign) is not None:
                packed *= sign[torch.from_numpy(part), None]
            yield part, packed


@dataclass(frozen=True)
class _Lattice:
    """Particles whose images are sampled alike.

    rows: of the particle set, in the order they are best read; box: pixels
    transform: images to coefficients at the frequencies of the run's half-disc
    aberration: factor on those coefficients that the microscope left, or None
    """

    rows: np.ndarray
    box: int
    transform: Callable[[Tensor], Tensor]
    aberration: Tensor | None


def _lattices(particles: ParticleSet, disc: HalfDisc) -> Iterator[_Lattice]:
    """The particles, by how their images have to be brought to the disc's frequencies."""
    optics, size = particles.table.optics, particles.size_angstrom
    kinds, of_row = np.unique(np.stack([optics.group.numpy(), particles.images.boxes], axis=1), axis=0, return_inverse=True)
    frequencies = torch.stack([disc.kx, disc.ky], dim=1).double()
    for number, (group, side) in enumerate(kinds.tolist()):
        conditions = optics.groups[group]
        # A frequency k of the particle, in cycles per common box, lies at M^-1 k on the image's lattice.
        warp = torch.linalg.inv(conditions.distortion) * (side * conditions.pixel_size / size)
        same = torch.allclose(warp, torch.eye(2, dtype=torch.float64), atol=_SAME_LATTICE, rtol=0)
        transform = partial(pack, disc=disc) if same else Resampler(side, frequencies @ warp.T)
        rows = np.flatnonzero(of_row.reshape(-1) == number)
        rows = rows[particles.images.reading_order(rows)]
        yield _Lattice(rows, side, transform, odd_aberration(conditions, disc, size))


def _centres(particles: ParticleSet, recentre: bool) -> Tensor:
    """Displacements to undo, Å."""
    if not recentre:
        return torch.zeros(len(particles), 2, dtype=torch.float64)
    if particles.table.shift is None:
        raise InputError(
            "has no shifts to centre the particles by", where=particles.table.path, remedy="Drop --recentre, or align first"
        )
    return particles.table.shift


def _read_ahead(where: ImageLocation, parts: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Rows with their images, the next part being read while this one is worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix="cryospin-read") as reader:
        before: tuple[np.ndarray, Future[Tensor]] | None = None
        for rows in parts:
            coming = rows, reader.submit(read_images, where, rows)
            if before is not None:
                yield before[0], before[1].result()
            before = coming
        if before is not None:
            yield before[0], before[1].result()


def _refuse_broken(particles: ParticleSet, images: Tensor, rows: np.ndarray) -> None:
    """Name the first image that cannot be used."""
    again = "Remove the particle from the table; cryospin check --deep lists all such images"
    for bad, what, remedy in (
        (unusable(images), "NaN or infinite pixels", again),
        (constant(images), "no contrast", again),
        (masked(images), "no noise about the particle: it was masked", "Extract the particles again without a mask"),
    ):
        if bad.any():
            row, where, table = int(rows[int(bad.nonzero()[0])]), particles.images, particles.table
            raise InputError(
                f"image {where.slice[row] + 1} (row {table.rows[row] + 1} of {table.path.name}) has {what}",
                where=where.stacks[where.stack[row]].path,
                remedy=remedy,
            )


def chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Rows one part after another, at most `size` at a time."""
    for start in range(0, len(rows), max(1, size)):
        yield rows[start : start + max(1, size)]


def background(box: int) -> Tensor:
    """Pixels that no particle should reach: outside 90 % of the box, bool `(box, box)`."""
    k = torch.arange(box) - box // 2
    return torch.hypot(k[:, None].float(), k.float()) > _BACKGROUND_RADIUS * box


def constant(images: Tensor) -> Tensor:
    """Which images are the same everywhere, bool `(n,)`."""
    return _range(images.flatten(1)) == 0


def masked(images: Tensor) -> Tensor:
    """Which images have no noise in the background, which they are normalised by: bool `(n,)`."""
    return _range(images[:, background(images.shape[-1])]) <= _NO_NOISE * _range(images.flatten(1))


def _range(pixels: Tensor) -> Tensor:
    return pixels.amax(1) - pixels.amin(1)


def _normalise(images: Tensor, outside: Tensor) -> Tensor:
    """Images with mean 0 and variance 1 in the background."""
    background = images[:, outside]
    largest = background.abs().amax(1, keepdim=True)
    unit = torch.where((largest > _SQUARED[0]) & (largest < _SQUARED[1]), 1.0, largest)
    variance, mean = torch.var_mean(background / unit, dim=1, keepdim=True)
    return (images - (mean * unit)[..., None]) / (variance.sqrt() * unit)[..., None]
