"""Soft masks: a ball before the shape is known, the particle's own outline after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from cryospin.fourier import CPU

EDGE = 0.06
"""Width of a mask's soft edge, as a fraction of the box."""

WIDE = 1 / 6
"""An edge, as a fraction of the box, so wide that the outline's own shape says nothing about the particle's symmetry."""

_SMOOTHING = 0.015
_LEVELS = (0.1, 0.25)
"""Of the highest amplitude: where a particle ends in maps without noise, and in the noisiest."""

_NOISES = 4.0
"""Between the two, what stands out of the noise so many times is particle."""

_SMALLEST_PART = 0.1


@lru_cache(maxsize=64)
def spherical_mask(box: int, diameter: float, edge: float = EDGE, device: torch.device = CPU) -> Tensor:
    """A ball about the box centre with a raised-cosine edge outside it.

    diameter, edge: fractions of the box; returns: float32 `(box, box, box)` from 0 to 1
    """
    x = (torch.arange(box, device=device) - box // 2) / box
    distance = (x[:, None, None] ** 2 + x[None, :, None] ** 2 + x**2).sqrt()
    return _falling((distance - diameter / 2) / edge)


def outline_mask(maps: Sequence[Tensor], diameter: float, detail: float) -> Tensor:
    """The outline of what two half maps share, with a soft edge as wide as the finest detail, within a ball.

    Their product, smoothed, is the local power of the signal, and noise does not raise it; where its root is above a
    quarter of its highest there is particle, and where it is fainter but stands out of the noise. Density would not do: of
    a map that was sharpened or high-passed, half of the signal lies in what is darker than the solvent. Specks are dropped
    and holes filled. A blurred map swells by about what its details measure, so an edge of that width needs no margin, and
    it tightens as the maps sharpen. Whatever else is let in is noise that poses are fitted to.

    maps: two half maps `(d, d, d)`, filtered; or one map, whose noise is not known
    diameter: of the ball, fraction of the box
    detail: the maps' resolution, fraction of the box
    returns: float32 `(d, d, d)` from 0 to 1
    """
    first, second = maps[0], maps[-1]
    box = first.shape[-1]
    ball = spherical_mask(box, diameter, device=first.device)
    power = ndimage.gaussian_filter((first * second * ball.square()).cpu().numpy(), max(0.7, _SMOOTHING * box))
    amplitude = np.sqrt(power.clip(0))
    highest = float(np.quantile(amplitude, 0.999))
    least, most = (level * highest for level in _LEVELS)
    noise = float(((first - second) * ball).norm() / ball.norm()) / math.sqrt(2) if len(maps) == 2 else math.inf
    inside = amplitude > min(most, max(least, _NOISES * noise))
    labels, count = ndimage.label(inside)
    if count == 0:
        return ball
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    solid = ndimage.binary_fill_holes(np.isin(labels, np.flatnonzero(sizes >= _SMALLEST_PART * sizes.max())))
    distance = torch.from_numpy(ndimage.distance_transform_edt(~solid)).float().to(ball.device) / box
    return _falling(distance / detail) * ball


def _falling(x: Tensor) -> Tensor:
    """1 below 0, 0 above 1, a raised cosine between."""
    return 0.5 + 0.5 * torch.cos(math.pi * x.clamp(0, 1))
