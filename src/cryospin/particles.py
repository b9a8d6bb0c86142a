"""A set of particles: from images on disk to the packed working set of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryospin.errors import InputError
from cryospin.formats.plausibility import SMALLEST_BOX, check_table
from cryospin.formats.read import read_table
from cryospin.formats.stack import ImageLocation, read_images, unusable
from cryospin.formats.table import ParticleTable
from cryospin.fourier import CPU, HalfDisc, pack
from cryospin.kernels.types import Observations
from cryospin.optics import contrast_transfer, odd_aberration
from cryospin.resampling import Resampler
from cryospin.selection import Selection
from cryospin.transfer import Upload

DEFAULT_BOX = 128
"""Larger boxes are Fourier-cropped to this many pixels unless the user asks otherwise."""

_CHUNK_PIXELS = 1 << 23
_BACKGROUND_RADIUS = 0.45
_SAME_LATTICE = 1e-6


def find_particles(
    path: Path, datadir: Path | None, ctf: Path | None, selection: Selection
) -> tuple[ParticleTable, ImageLocation | None]:
    """Read a particle table, choose from it, find its stacks and check it; what is wrong is in the table's findings.

    returns: None in place of the images where a stack is missing or cannot be read
    raises: `InputError` for what cannot be parsed at all
    """
    table = read_table(path, ctf, datadir)
    rows = selection.rows(len(table), table.path)
    if rows is not None:
        table = table.take(rows)
    images = table.locate(datadir, table.findings)
    check_table(table, images)
    return table, images


@dataclass(frozen=True)
class ParticleSet:
    """N particles whose images stay on disk until they are packed.

    table: metadata
    images: where the images lie
    """

    table: ParticleTable
    images: ImageLocation

    @classmethod
    def load(
        cls,
        path: str | Path,
        datadir: str | Path | None = None,
        ctf: str | Path | None = None,
        selection: Selection | None = None,
    ) -> ParticleSet:
        """Read a particle table and find its images.

        path: a RELION `.star`, a cryoSPARC `.cs`, or an image stack together with `ctf`
        raises: `InputError` that says what is wrong, how much more is, and what to do
        """
        table, images = find_particles(
            Path(path), Path(datadir) if datadir else None, Path(ctf) if ctf else None, selection or Selection()
        )
        table.findings.refuse_errors()
        assert images is not None, "a stack that is missing is an error"
        return cls(table, images)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def size_angstrom(self) -> float:
        """Physical side of the box, Å; what frequencies in cycles per box refer to. The largest, where sets are mixed."""
        return float((self.images.boxes * self.table.optics.of_group("pixel_size").numpy()).max())

    @property
    def box(self) -> int:
        """Pixels along a side of the images; of the coarsest pixels, where sets are mixed."""
        return int(self.size_angstrom / self.table.pixel_size + _SAME_LATTICE)

    @property
    def pixel_size(self) -> float:
        """Å per pixel at that box."""
        return self.size_angstrom / self.box

    def working_box(self, box: int | None = None) -> int:
        """The box a run uses: what the user asked for, or the images' own up to `DEFAULT_BOX`; always even."""
        if box is None:
            return min(self.box, DEFAULT_BOX) // 2 * 2
        if not SMALLEST_BOX <= box <= self.box or box % 2:
            raise InputError(
                f"--box {box} does not fit images of {self.box} pixels",
                remedy=f"Give an even number from {SMALLEST_BOX} to {self.box // 2 * 2}",
            )
        return box

    def pack(
        self,
        box: int,
        *,
        invert: bool | None = None,
        recentre: bool = False,
        progress: Callable[[int], None] = lambda n: None,
        device: torch.device = CPU,
    ) -> Packed:
        """Normalise all images on their background, Fourier-crop them to `box` pixels and pack them.

        Beam tilt and other odd aberrations are undone, and so is anisotropic magnification.

        invert: multiply by -1 (protein is dark in the images); None decides by looking
        recentre: move the particles by the displacements that the table knows of
        progress: called with the number of images done since the last call
        device: where the packed images shall be; each chunk moves there while the next is read
        raises: `InputError` for NaN pixels and for images without any variation
        """
        disc, size = HalfDisc.build(box // 2 - 1), self.size_angstrom
        upload = Upload(torch.empty(len(self), len(disc), dtype=torch.complex64, device=device))
        centre = self._centres(recentre)
        for lattice in self._lattices(disc):
            outside = background(lattice.box)
            for rows in chunks(lattice.rows, _CHUNK_PIXELS // lattice.box**2):
                chunk = read_images(self.images, rows)
                self._refuse_broken(chunk, rows)
                packed = lattice.transform(_normalise(chunk, outside))
                if lattice.aberration is not None:
                    packed *= lattice.aberration.conj()
                if recentre:
                    packed *= disc.shift_phase((centre[rows] / size).float(), box=1).conj()
                upload.put(torch.from_numpy(rows), packed)
                progress(len(rows))
        images, disc = upload.finish(), HalfDisc.build(disc.radius, device)
        if self.table.sign is not None and bool((self.table.sign != self.table.sign[0]).any()):
            images *= self.table.sign[:, None].to(device)
        ctf = contrast_transfer(self.table.optics, HalfDisc.build(disc.radius), box, size / box).to(device)
        dark = _looks_dark(images, ctf, disc)
        inverted = dark if invert is None else invert
        if inverted:
            images.neg_()
        observations = Observations(
            images=images,
            ctf=ctf,
            weight=torch.ones(1, len(disc), device=device),
            group=torch.zeros(len(self), dtype=torch.long, device=device),
            scale=torch.ones(len(self), device=device),
            disc=disc,
            box=box,
        )
        return Packed(observations, size / box, inverted, centre)

    def _lattices(self, disc: HalfDisc) -> Iterator[_Lattice]:
        """The particles, by how their images have to be brought to the disc's frequencies."""
        optics, size = self.table.optics, self.size_angstrom
        kinds, of_row = np.unique(np.stack([optics.group.numpy(), self.images.boxes], axis=1), axis=0, return_inverse=True)
        frequencies = torch.stack([disc.kx, disc.ky], dim=1).double()
        for number, (group, side) in enumerate(kinds.tolist()):
            conditions = optics.groups[group]
            # A frequency k of the particle, in cycles per common box, lies at M^-1 k on the image's lattice.
            warp = torch.linalg.inv(conditions.distortion) * (side * conditions.pixel_size / size)
            same = torch.allclose(warp, torch.eye(2, dtype=torch.float64), atol=_SAME_LATTICE, rtol=0)
            transform = partial(pack, disc=disc) if same else Resampler(side, frequencies @ warp.T)
            rows = np.flatnonzero(of_row.reshape(-1) == number)
            rows = rows[self.images.reading_order(rows)]
            yield _Lattice(rows, side, transform, odd_aberration(conditions, disc, size))

    def _centres(self, recentre: bool) -> Tensor:
        """Displacements to undo, Å."""
        if not recentre:
            return torch.zeros(len(self), 2, dtype=torch.float64)
        if self.table.shift is None:
            raise InputError(
                "has no shifts to centre the particles by", where=self.table.path, remedy="Drop --recentre, or align first"
            )
        return self.table.shift

    def _refuse_broken(self, images: Tensor, rows: np.ndarray) -> None:
        """Name the first image that cannot be used."""
        flat = images.flatten(1)
        for bad, what in ((unusable(images), "NaN or infinite pixels"), (flat.amax(1) == flat.amin(1), "no contrast")):
            if bad.any():
                row, name = int(rows[int(bad.nonzero()[0])]), self.table.path.name
                raise InputError(
                    f"image {self.images.slice[row] + 1} (row {self.table.rows[row] + 1} of {name}) has {what}",
                    where=self.images.stacks[self.images.stack[row]].path,
                    remedy="Remove the particle from the table; cryospin check --deep lists all such images",
                )


@dataclass(frozen=True)
class Packed:
    """The working set of a run.

    observations: packed images and CTFs, weights still 1
    pixel_size: Å per pixel at the run's box
    inverted: whether the images' contrast was turned over on load
    centre: displacements of the particles that were undone on load, float64 `(N, 2)`, Å
    """

    observations: Observations
    pixel_size: float
    inverted: bool
    centre: Tensor


@dataclass(frozen=True)
class _Lattice:
    """Particles whose images are sampled alike.

    rows: of the particle set; box: pixels
    transform: images to coefficients at the frequencies of the run's half-disc
    aberration: factor on those coefficients that the microscope left, or None
    """

    rows: np.ndarray
    box: int
    transform: Callable[[Tensor], Tensor]
    aberration: Tensor | None


def chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Rows one part after another, at most `size` at a time."""
    for start in range(0, len(rows), max(1, size)):
        yield rows[start : start + max(1, size)]


def background(box: int) -> Tensor:
    """Pixels that no particle should reach: outside 90 % of the box, bool `(box, box)`."""
    k = torch.arange(box) - box // 2
    return torch.hypot(k[:, None].float(), k.float()) > _BACKGROUND_RADIUS * box


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
