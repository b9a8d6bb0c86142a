"""Noise and signal spectra of the images: what decides every weight."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.kernels import cpu as kernels
from cryospin.kernels.types import Observations, Poses

_LEAST_NOISE = 0.05


def shell_mean(values: Tensor, disc: HalfDisc) -> Tensor:
    """Mean over each shell of a quantity `(P,)` on a half-disc: float64 `(radius + 1,)`."""
    total = torch.bincount(disc.shell, values.double(), minlength=disc.radius + 1)
    return total / disc.shell_counts()


class Spectra(NamedTuple):
    """Power of each shell, float64 `(radius + 1,)`: of the images, of their noise, and of the volume before the CTF."""

    total: Tensor
    noise: Tensor
    signal: Tensor


def estimate_spectra(observations: Observations) -> Spectra:
    """Noise and signal power of each shell before any pose is known.

    The CTF modulates the signal and not the noise, so in `|X|^2 = N + S C^2` the defocus spread tells them
    apart: a straight-line fit over all images and coefficients of a shell. Where a shell's CTFs are
    too alike for that (the lowest frequencies), the noise of the first shell that tells is used.
    """
    o = observations
    power = o.images.real**2 + o.images.imag**2
    square = o.ctf**2
    mean_power, mean_square = shell_mean(power.mean(0), o.disc), shell_mean(square.mean(0), o.disc)
    covariance = shell_mean((power * square).mean(0), o.disc) - mean_power * mean_square
    variance = shell_mean((square**2).mean(0), o.disc) - mean_square**2
    signal = (covariance / variance.clamp_min(1e-12)).clamp_min(0)
    noise = mean_power - signal * mean_square
    spread = shell_mean(power.double().square().mean(0), o.disc).sqrt()
    error = spread / (variance.clamp_min(1e-12).sqrt() * (len(power) * o.disc.shell_counts()).sqrt())
    tells = (signal * mean_square > 0) & (error * mean_square < 0.1 * mean_power)
    first = int(tells.nonzero()[0]) if tells.any() else o.disc.radius
    floor = noise[first] if tells.any() else mean_power.min()
    noise[:first] = torch.minimum(floor.expand(first), mean_power[:first])
    noise = torch.maximum(noise, _LEAST_NOISE * mean_power)
    signal = ((mean_power - noise) / mean_square.clamp_min(1e-6)).clamp_min(1e-6 * mean_power)
    return Spectra(mean_power, noise, signal)


def information(observations: Observations, spectra: Spectra) -> Tensor:
    """Nats by which the right pose of an average image beats no particle, up to each shell: `(radius + 1,)`."""
    o = observations
    ratio = spectra.signal * shell_mean((o.ctf**2).mean(0), o.disc) / spectra.noise * o.disc.shell_counts()
    ratio[0] = 0
    return ratio.cumsum(0)


def weighted(observations: Observations, noise: Tensor) -> Observations:
    """Observations weighted with the inverse of a noise spectrum; frequency 0 (the mean) gets no weight."""
    weight = (1 / noise)[observations.disc.shell].float()
    weight[0] = 0
    return observations._replace(weight=weight[None])


def residual_power(volume: Tensor, grid: FourierGrid, observations: Observations, poses: Poses) -> Tensor:
    """Mean squared residual of each shell at given poses, one for each image: float64 `(radius + 1,)`."""
    o = observations
    total = torch.zeros(len(o.disc), dtype=torch.float64)
    for part in torch.arange(len(poses.image)).split(1024):
        some = poses.take(part)
        model = kernels.slices(volume, grid, some.rotation, o.disc)
        model *= o.disc.shift_phase(some.shift, o.box) * (o.ctf[some.image] * o.scale[some.image, None])
        residual = o.images[some.image] - model
        total += (residual.real**2 + residual.imag**2).sum(0)
    return shell_mean(total / len(poses.image), o.disc)
