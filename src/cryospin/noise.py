"""Noise and signal spectra of the images: what decides every weight."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.kernels import dispatch as kernels
from cryospin.kernels.types import Observations, Poses

_LEAST_NOISE = 0.05
_CHUNK_COEFFICIENTS = 1 << 22
_ENOUGH_IMAGES, _CHUNK_IMAGES = 2000, 500


def shell_mean(values: Tensor, disc: HalfDisc) -> Tensor:
    """Mean over each shell of a quantity `(P,)` on a half-disc: float64 `(radius + 1,)`."""
    total = torch.bincount(disc.shell, values.double(), minlength=disc.radius + 1)
    return total / disc.shell_counts()


class Spectra(NamedTuple):
    """Averages over images in each shell, float64 `(radius + 1,)`.

    total, noise: power of the images, and of their noise
    signal: power of the volume, before the CTF
    modulation: squared CTF
    """

    total: Tensor
    noise: Tensor
    signal: Tensor
    modulation: Tensor


def estimate_spectra(observations: Observations) -> Spectra:
    """Noise and signal power of each shell before any pose is known.

    The CTF modulates the signal and not the noise, so in `|X|^2 = N + S C^2` the defocus spread tells them
    apart: a straight-line fit over all images and coefficients of a shell. Where a shell's CTFs are
    too alike for that (the lowest frequencies), the noise of the first shell that tells is used.
    """
    disc, count = observations.disc, len(observations.images)
    total, square, product, fourth, spread = _moments(observations)
    covariance, variance = product - total * square, fourth - square**2
    signal = (covariance / variance.clamp_min(1e-12)).clamp_min(0)
    noise = total - signal * square
    error = spread.sqrt() / (variance.clamp_min(1e-12).sqrt() * (count * disc.shell_counts()).sqrt())
    tells = (signal * square > 0) & (error * square < 0.1 * total)
    first = int(tells.nonzero()[0]) if tells.any() else disc.radius
    floor = noise[first] if tells.any() else total.min()
    noise[:first] = torch.minimum(floor.expand(first), total[:first])
    noise = torch.maximum(noise, _LEAST_NOISE * total)
    signal = ((total - noise) / square.clamp_min(1e-6)).clamp_min(1e-6 * total)
    return Spectra(total, noise, signal, square)


def _moments(observations: Observations) -> list[Tensor]:
    """Means over images and shells of `p = |X|^2`, `s = C^2`, `p s`, `s^2`, and of the squared mean of p over images.

    returns: float64 `(radius + 1,)` each
    """
    o, count = observations, len(observations.images)
    sums = torch.zeros(4, len(o.disc), dtype=torch.float64, device=o.device)
    for rows in torch.arange(count).split(max(1, _CHUNK_COEFFICIENTS // len(o.disc))):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        images, ctf = o.images[part].to(o.device), o.ctf[part].to(o.device)
        power, square = images.real**2 + images.imag**2, ctf**2
        for total, values in zip(sums, (power, square, power * square, square**2), strict=True):
            total += values.sum(0)
    means = sums / count
    return [shell_mean(m, o.disc) for m in (*means, means[0] ** 2)]


def information(observations: Observations, spectra: Spectra) -> Tensor:
    """Nats by which the right pose of an average image beats no particle, up to each shell: `(radius + 1,)`."""
    ratio = spectra.signal * spectra.modulation / spectra.noise * observations.disc.shell_counts()
    ratio[0] = 0
    return ratio.cumsum(0)


def weighted(observations: Observations, noise: Tensor) -> Observations:
    """Observations weighted with the inverse of a noise spectrum; frequency 0 (the mean) gets no weight."""
    weight = (1 / noise)[observations.disc.shell].float()
    weight[0] = 0
    return observations._replace(weight=weight[None])


def residual_power(volume: Tensor, grid: FourierGrid, observations: Observations, poses: Poses) -> Tensor:
    """Mean squared residual of each shell at given poses, one for each image: float64 `(radius + 1,)`.

    Of many images, some of all of them are looked at: more would not change the mean.
    """
    o, count = observations, len(poses.image)
    total = torch.zeros(len(o.disc), dtype=torch.float64, device=o.device)
    seen = min(count, _ENOUGH_IMAGES)
    for part in torch.linspace(0, count - 1, seen).long().to(o.device).split(_CHUNK_IMAGES):
        some = poses.take(part)
        few = o.take(some.image)
        model = kernels.slices(volume, grid, some.rotation, o.disc)
        model *= o.disc.shift_phase(some.shift, o.box) * (few.ctf * few.scale[:, None])
        residual = few.images - model
        total += (residual.real**2 + residual.imag**2).sum(0)
    return shell_mean(total / seen, o.disc)
