"""Look at the images themselves: broken ones, duplicates, background, contrast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from cryospin.errors import InputError
from cryospin.evenly import evenly_spaced
from cryospin.findings import Severity
from cryospin.formats.plausibility import repeated
from cryospin.formats.stack import read_images, unusable
from cryospin.packing import CLEAR, background, chunks, constant, masked
from cryospin.particles import ParticleSet

_SAMPLE = 200
_FEW = 20
_CHUNK_PIXELS = 1 << 22
_NORMALISED = (0.2, 0.25)


@dataclass(frozen=True)
class PixelFacts:
    """What the images look like.

    looked_at: how many were read
    background_mean, background_sd: medians over images
    normalised: whether backgrounds have mean 0 and deviation 1
    dark: whether protein is dark, None where the images looked at do not tell
    """

    looked_at: int
    background_mean: float
    background_sd: float
    normalised: bool
    dark: bool | None


def look_at_pixels(
    particles: ParticleSet,
    *,
    deep: bool = False,
    reading: Callable[[int], Callable[[int], None]] = lambda total: lambda n: None,
) -> PixelFacts | None:
    """Read a sample of the images, or all of them, and add to the table's findings what is wrong with them.

    reading: called with the number of images; what it returns is called with the number read since the last call
    """
    table, findings = particles.table, particles.table.findings
    count = len(particles)
    rows = np.arange(count) if deep else evenly_spaced(count, _SAMPLE).numpy()
    broken, flat, bare, mean, sd, digest = (np.zeros(len(rows), t) for t in (bool, bool, bool, float, float, np.int64))
    progress = reading(len(rows))
    try:
        for at, images in _parts(particles, rows):
            _measure(images, at, broken, flat, bare, mean, sd, digest)
            progress(len(at))
    except InputError as error:
        findings.error(error.problem, Path(error.where or table.path), error.remedy)
        return None
    named = np.zeros((4, count), bool)
    named[0, rows], named[1, rows] = broken, flat & ~broken
    bare &= ~(broken | flat)
    named[2, rows], named[3, rows] = bare, repeated(digest) & ~broken & ~flat
    said = (
        (Severity.error, "row {row}: the image has NaN or infinite pixels", "Remove the particle"),
        (Severity.error, "row {row}: the image is constant", "Remove the particle, or extract it again"),
        (
            Severity.error,
            "row {row}: the image has no noise about the particle: it was masked",
            "Extract the particles again without a mask",
        ),
        (Severity.warning, "row {row}: the image equals an earlier one, pixel by pixel", "Remove duplicates"),
    )
    for bad, (severity, problem, remedy) in zip(named, said, strict=True):
        findings.rows(severity, bad, problem, table.path, remedy, "rlnImageName")
    good = ~(broken | flat | bare)
    if not good.any():
        return None
    middle, spread = float(np.median(mean[good])), float(np.median(sd[good]))
    normalised = abs(middle) < _NORMALISED[0] * max(spread, 1e-30) and abs(spread - 1) < _NORMALISED[1]
    return PixelFacts(len(rows), middle, spread, normalised, _dark(particles, rows[good]))


def _parts(particles: ParticleSet, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Images of one box at a time: places in `rows`, and the images."""
    boxes = particles.images.boxes[rows]
    for side in np.unique(boxes):
        here = np.flatnonzero(boxes == side)
        for at in chunks(here, _CHUNK_PIXELS // int(side) ** 2):
            yield at, read_images(particles.images, rows[at])


def _measure(
    images: Tensor,
    at: np.ndarray,
    broken: np.ndarray,
    flat: np.ndarray,
    bare: np.ndarray,
    mean: np.ndarray,
    sd: np.ndarray,
    digest: np.ndarray,
) -> None:
    """Fill in what is to be known of some images."""
    broken[at], flat[at], bare[at] = unusable(images).numpy(), constant(images).numpy(), masked(images).numpy()
    pixels = images.flatten(1).numpy()
    with np.errstate(all="ignore"):
        outside = images[:, background(images.shape[-1])].double().numpy()
        mean[at], sd[at] = outside.mean(1), outside.std(1)
    digest[at] = [hash(image.tobytes()) for image in pixels]


def _dark(particles: ParticleSet, rows: np.ndarray) -> bool | None:
    """Whether protein is dark, by the average of a sample."""
    if len(rows) < _FEW:
        return None
    some = rows[evenly_spaced(len(rows), 1000).numpy()]
    part = particles.take(some)
    dark = part.darkness(min(32, part.working_box()))
    return dark > 0 if abs(dark) >= CLEAR else None
