"""Fourier coefficients of images between the points of their own lattice.

A non-uniform transform (Kaiser-Bessel interpolation on a lattice twice as fine, Fessler and Sutton 2003): what it takes
to bring images of other pixel sizes, or of anisotropic magnification, to the frequencies all others are compared at.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

_PADDING, _WIDTH = 2, 6
_BETA = math.pi * math.sqrt((_WIDTH / _PADDING) ** 2 * (_PADDING - 0.5) ** 2 - 0.8)
"""Shape of the window that errs least for this width and padding (Beatty et al. 2005)."""


class Resampler:
    """Transforms images of one box at one set of frequencies; errors are below 1e-4 of the image's norm."""

    def __init__(self, box: int, frequencies: Tensor) -> None:
        """box: pixels; frequencies: `(P, 2)` (x, y) in cycles per this box, at most half of it."""
        self.box, self.wide = box, box * _PADDING
        self._weights = self._interpolation(frequencies.double().numpy())
        x = (torch.arange(box) - box // 2) / self.wide
        envelope = _window_transform(x.double()).float()
        self._correction = 1 / (envelope[:, None] * envelope * box)

    def __call__(self, images: Tensor) -> Tensor:
        """Orthonormal coefficients about the box centre of real `(n, D, D)`: complex64 `(n, P)`."""
        before = self.wide // 2 - self.box // 2
        after = self.wide - self.box - before
        padded = torch.nn.functional.pad(images.float() * self._correction, (before, after, before, after))
        spectrum = torch.fft.fft2(torch.fft.ifftshift(padded, dim=(-2, -1))).flatten(1)
        return torch.from_numpy(np.ascontiguousarray((self._weights @ spectrum.T.numpy()).T.astype(np.complex64)))

    def _interpolation(self, frequencies: np.ndarray) -> scipy.sparse.csr_array:
        """Weights of the fine lattice's points for each frequency: `(P, wide^2)`."""
        at = frequencies * _PADDING
        steps = np.arange(_WIDTH)
        first = np.floor(at - _WIDTH / 2).astype(np.int64) + 1
        points = first[:, None, :] + steps[None, :, None]
        weights = _window(at[:, None, :] - points)
        wrapped = points % self.wide
        column = wrapped[:, :, None, 1] * self.wide + wrapped[:, None, :, 0]
        value = weights[:, :, None, 1] * weights[:, None, :, 0]
        row = np.repeat(np.arange(len(at)), _WIDTH * _WIDTH)
        return scipy.sparse.csr_array(
            (value.astype(np.float32).ravel(), (row, column.ravel())), shape=(len(at), self.wide**2)
        )


def _window(u: np.ndarray) -> np.ndarray:
    """Kaiser-Bessel window of a distance in lattice points."""
    inside = np.clip(1 - (2 * u / _WIDTH) ** 2, 0, None)
    return np.i0(_BETA * np.sqrt(inside)) / np.i0(_BETA) * (np.abs(u) <= _WIDTH / 2)


def _window_transform(x: Tensor) -> Tensor:
    """Transform of the window at a place in cycles per lattice point."""
    argument = (_BETA**2 - (math.pi * _WIDTH * x) ** 2).clamp_min(1e-12).sqrt()
    return _WIDTH * torch.sinh(argument) / (argument * float(np.i0(_BETA)))
