"""Noise and signal spectra of the images: what decides every weight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cryospin.evenly import evenly_spaced
from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.kernels import dispatch as kernels
from cryospin.kernels.types import Observations, Poses

_LEAST_NOISE = 0.05
_CHUNK_COEFFICIENTS = 1 << 22
_ENOUGH_IMAGES, _CHUNK_IMAGES = 2000, 500
"""Images whose residuals are looked at, so many for each group, and how many at a time."""

_GROUP_IMAGES = 200
"""An optics group of fewer shares its spectrum with all others that are as small."""

_MOST_GROUPS = 100
"""The largest; more would take memory for little."""

_HELD_IMAGES = 100
"""So many images' worth of belief that a group's noise differs from the others' as it did before."""


def noise_groups(optics_group: Tensor) -> Tensor:
    """Which images share a noise spectrum: an optics group's own, and those of all small groups; int64 `(N,)`, 0, 1, ...

    optics_group: any numbers, int64 `(N,)`
    """
    _, number, count = optics_group.unique(return_inverse=True, return_counts=True)
    small = count < _GROUP_IMAGES
    small[count.argsort(descending=True, stable=True)[_MOST_GROUPS:]] = True
    number[small[number]] = -1
    return number.unique(return_inverse=True)[1]


def shell_mean(values: Tensor, disc: HalfDisc) -> Tensor:
    """Mean over each shell of a quantity `(P,)` on a half-disc: float64 `(radius + 1,)`."""
    total = torch.bincount(disc.shell, values.double(), minlength=disc.radius + 1)
    return total / disc.shell_counts()


class Spectra(NamedTuple):
    """Averages over images in each shell, float64.

    total, noise: power of each noise group's images, and of their noise `(G, radius + 1)`
    modulation: their squared CTF `(G, radius + 1)`
    signal: power of the volume, before the CTF `(radius + 1,)`
    """

    total: Tensor
    noise: Tensor
    modulation: Tensor
    signal: Tensor


def estimate_spectra(observations: Observations) -> Spectra:
    """Noise and signal power of each shell before any pose is known.

    The CTF modulates the signal and not the noise, so in `|X|^2 = N + S C^2` the defocus spread tells them
    apart: a straight-line fit over all images and coefficients of a shell, with an intercept for each noise group. Where a
    shell's CTFs are too alike for that (the lowest frequencies), the noise of the first shell that tells is used.
    """
    disc, count = observations.disc, len(observations.images)
    totals, squares, products, fourths, spreads = _moments(observations)
    covariance = in_the_mean(products - totals * squares, observations)
    variance = in_the_mean(fourths - squares**2, observations)
    total, square, spread = (in_the_mean(x, observations) for x in (totals, squares, spreads))
    signal = (covariance / variance.clamp_min(1e-12)).clamp_min(0)
    noise = totals - signal * squares
    error = spread.sqrt() / (variance.clamp_min(1e-12).sqrt() * (count * disc.shell_counts()).sqrt())
    tells = (signal * square > 0) & (error * square < 0.1 * total)
    first = int(tells.nonzero()[0]) if tells.any() else disc.radius
    floor = noise[:, first] if tells.any() else totals.amin(1)
    noise[:, :first] = torch.minimum(floor[:, None], totals[:, :first])
    noise = torch.maximum(noise, _LEAST_NOISE * totals)
    signal = ((total - in_the_mean(noise, observations)) / square.clamp_min(1e-6)).clamp_min(1e-6 * total)
    return Spectra(totals, noise, squares, signal)


def _moments(observations: Observations) -> list[Tensor]:
    """Means over images and shells of `p = |X|^2`, `s = C^2`, `p s`, `s^2`, and of the squared mean of p over images.

    returns: float64 `(G, radius + 1)` each
    """
    o = observations
    sums = torch.zeros(4, len(o.weight), len(o.disc), dtype=torch.float64, device=o.device)
    for part, power in _powers(o):
        square = o.ctf[part].to(o.device) ** 2
        for total, values in zip(sums, (power, square, power * square, square**2), strict=True):
            total += _sum_of_each_group(values, o.group[part], len(total))
    means = sums / _images_of_each_group(o).clamp_min(1)[:, None]
    return [_shell_means(m, o.disc) for m in (*means, means[0] ** 2)]


def _powers(observations: Observations) -> Iterator[tuple[slice, Tensor]]:
    """Power of every image's coefficients, some images at a time, and which images these are."""
    o = observations
    for rows in torch.arange(len(o.images)).split(max(1, _CHUNK_COEFFICIENTS // len(o.disc))):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        images = o.images[part].to(o.device)
        yield part, images.real**2 + images.imag**2


def _images_of_each_group(observations: Observations) -> Tensor:
    """How many images each noise group has, float64 `(G,)`."""
    return torch.bincount(observations.group, minlength=len(observations.weight)).double()


def _sum_of_each_group(values: Tensor, group: Tensor, count: int) -> Tensor:
    """Sums of `(n, P)` over the images of each group: `(count, P)`."""
    if count == 1:
        return values.sum(0, keepdim=True)
    present, number = group.unique(return_inverse=True)
    # A product with zeros and ones is the same every time on a GPU, where adding at indices is not.
    chosen = number == torch.arange(len(present), device=group.device)[:, None]
    return values.new_zeros(count, values.shape[1]).index_copy_(0, present, chosen.to(values.dtype) @ values)


def _shell_means(values: Tensor, disc: HalfDisc) -> Tensor:
    """`shell_mean` of each row."""
    return torch.stack([shell_mean(row, disc) for row in values])


def in_the_mean(of_groups: Tensor, observations: Observations) -> Tensor:
    """Mean over images of what each noise group has: `(G, ...)` to `(...)`."""
    count = _images_of_each_group(observations)
    return torch.einsum("g,g...->...", (count / count.sum()).to(of_groups.dtype), of_groups)


def information(observations: Observations, spectra: Spectra) -> Tensor:
    """Nats by which the right pose of an average image beats no particle, up to each shell: `(radius + 1,)`."""
    ratio = in_the_mean(spectra.signal * spectra.modulation / spectra.noise, observations)
    ratio = ratio * observations.disc.shell_counts()
    ratio[0] = 0
    return ratio.cumsum(0)


def weighted(observations: Observations, noise: Tensor) -> Observations:
    """Observations weighted with the inverse of a noise spectrum; frequency 0 (the mean) gets no weight.

    noise: of each noise group `(G, >= radius + 1)`, or one for all of them
    """
    weight = (1 / noise.expand(len(observations.weight), -1))[:, observations.disc.shell].float()
    weight[:, 0] = 0
    return observations._replace(weight=weight)


def at_the_level_of(observations: Observations, noise: Tensor, shells: slice) -> Tensor:
    """A noise spectrum brought to the level of other images, group by group: float64 `(G, radius + 1)`.

    Images are normalised by the deviation of their background, which coloured noise makes depend on the size of the pixels
    and on the microscope.

    noise: float64 `(radius + 1,)`; shells: where there is hardly anything but noise
    """
    o, count = observations, _images_of_each_group(observations)
    total = torch.zeros(len(count), len(o.disc), dtype=torch.float64, device=o.device)
    for part, images in _powers(o):
        total += _sum_of_each_group(images, o.group[part], len(count))
    power = _shell_means(total / count.clamp_min(1)[:, None], o.disc)[:, shells]
    numbers = o.disc.shell_counts()[shells]
    level = (power / noise[shells] * numbers).sum(1) / numbers.sum()
    usual = in_the_mean(level, o)
    return noise * (usual + count / (count + _HELD_IMAGES) * (level - usual))[:, None]


def residual_power(volume: Tensor, grid: FourierGrid, observations: Observations, poses: Poses) -> Tensor:
    """Mean squared residual of each shell at given poses, one for each image: float64 `(G, radius + 1)`.

    Of many images, some of all of them are looked at: more would not change the mean. A noise group of few among them is
    held to what all have, in the proportion that their present weights have.

    observations: weighted
    """
    o, groups = observations, len(observations.weight)
    total = torch.zeros(groups, len(o.disc), dtype=torch.float64, device=o.device)
    images = torch.zeros(groups, dtype=torch.float64, device=o.device)
    for part in evenly_spaced(len(poses.image), _ENOUGH_IMAGES * groups, o.device).split(_CHUNK_IMAGES):
        some = poses.take(part)
        few = o.take(some.image)
        model = kernels.slices(volume, grid, some.rotation, o.disc)
        model *= o.disc.shift_phase(some.shift, o.box) * (few.ctf * few.scale[:, None])
        residual = few.images - model
        total += _sum_of_each_group(residual.real**2 + residual.imag**2, few.group, groups)
        images += torch.bincount(few.group, minlength=groups)
    return _held(_shell_means(total / images.clamp_min(1)[:, None], o.disc), images, o)


def _held(power: Tensor, images: Tensor, observations: Observations) -> Tensor:
    """Residuals of each group, drawn to those of all groups.

    power: `(G, radius + 1)` and the images it is the mean of, `(G,)`; observations: weighted
    """
    share = (images / images.sum())[:, None]
    before = 1 / _shell_means(observations.weight.double(), observations.disc).clamp_min(1e-12)
    usual = (share * power).sum(0) * (before / (share * before).sum(0))
    return usual + (images / (images + _HELD_IMAGES))[:, None] * (power - usual)
