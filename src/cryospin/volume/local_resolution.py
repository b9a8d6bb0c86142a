"""Resolution from place to place: the FSC of two half maps within a window that slides over them.

In each band of frequencies the local FSC is `G * (a b) / sqrt((G * a^2) (G * b^2))`, with the half maps `a` and `b` filtered
to the band and a Gaussian window `G` some wavelengths wide (after Cardone et al., J. Struct. Biol. 2013). The averages vary
slowly, so they are kept on a coarse grid, and each band is worked on with no more voxels than it needs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from scipy.fft import next_fast_len
from torch import Tensor

from cryospin.maps.fsc import GOLD_STANDARD

_COARSE = 32
_WAVELENGTHS, _NARROWEST, _WIDEST = 2.0, 0.04, 0.08
"""Standard deviation of the window: wavelengths, within bounds that are fractions of the box."""

_BAND = 1.0
"""Half width of a band at half height, shells."""

_FIRST_SHELL = 3
_EMPTY = 1e-3
"""A place with less than this share of the greatest local power holds nothing to correlate."""


def local_resolution(halves: tuple[Tensor, Tensor], mask: Tensor, pixel_size: float, last_shell: int) -> Tensor:
    """Resolution in Å at every voxel, where the local FSC first falls below 0.143.

    halves: unfiltered half maps, `(d, d, d)` each; mask: `(d, d, d)`; pixel_size: Å
    last_shell: last band to look at
    returns: float32 `(d, d, d)`, between the sizes of the first band's details (a third of the box) and the last one's
    """
    box = mask.shape[-1]
    last = min(last_shell, box // 2 - 1)
    spectra = [torch.fft.rfftn((h * mask).float()) for h in halves]
    crossing = torch.full((_COARSE,) * 3, float(_FIRST_SHELL))
    before = torch.ones_like(crossing)
    alive = torch.ones_like(crossing, dtype=torch.bool)
    for shell in range(_FIRST_SHELL, last + 1):
        fsc = _local_fsc(spectra, box, shell)
        falls = alive & (fsc < GOLD_STANDARD)
        part = (before - GOLD_STANDARD) / (before - fsc).clamp_min(1e-6)
        crossing = torch.where(falls, shell - 1 + part, torch.where(alive, float(shell), crossing))
        alive, before = alive & ~falls, fsc
        if not alive.any():
            break
    return box * pixel_size / _on_voxels(crossing.clamp_min(_FIRST_SHELL), box)


def _local_fsc(spectra: list[Tensor], box: int, shell: int) -> Tensor:
    """Windowed correlation of two maps in one band, on the coarse grid."""
    a, b = (_band(s, box, shell) for s in spectra)
    cross, first, second = (_windowed(product, shell) for product in (a * b, a * a, b * b))
    power = (first.clamp_min(0) * second.clamp_min(0)).sqrt()
    return cross / power.clamp_min(_EMPTY * float(power.max()) + 1e-30)


def _band(spectrum: Tensor, box: int, shell: int) -> Tensor:
    """A map filtered to a band, on as many voxels as keep squares of it free of aliases where the window looks."""
    reach = min(shell + math.ceil(2 * _BAND), (box - 1) // 2)
    size = max(_COARSE, next_fast_len(2 * reach + _COARSE // 2, real=True))
    k = torch.arange(-reach, reach + 1)
    z, y, x = k[:, None, None], k[None, :, None], torch.arange(reach + 1)
    distance = (z**2 + y**2 + x**2).float().sqrt()
    weight = torch.exp(-math.log(2) * ((distance - shell) / _BAND) ** 2)
    wide = torch.zeros(size, size, size // 2 + 1, dtype=spectrum.dtype)
    wide[z % size, y % size, x] = spectrum[z % box, y % box, x] * weight
    return torch.fft.irfftn(wide, s=(size,) * 3)


def _windowed(product: Tensor, shell: int) -> Tensor:
    """A product of maps averaged under the Gaussian window, on the coarse grid; in units of its own."""
    size, reach = product.shape[-1], _COARSE // 2 - 1
    width = min(max(_NARROWEST, _WAVELENGTHS / shell), _WIDEST)
    k = torch.arange(-reach, reach + 1)
    z, y, x = k[:, None, None], k[None, :, None], torch.arange(reach + 1)
    window = torch.exp(-2 * (math.pi * width) ** 2 * (z**2 + y**2 + x**2).float())
    narrow = torch.zeros(_COARSE, _COARSE, _COARSE // 2 + 1, dtype=torch.complex64)
    narrow[z % _COARSE, y % _COARSE, x] = torch.fft.rfftn(product)[z % size, y % size, x] * window
    return torch.fft.irfftn(narrow, s=(_COARSE,) * 3)


def _on_voxels(values: Tensor, box: int) -> Tensor:
    """Values of the coarse grid at every voxel, by linear interpolation."""
    place = np.arange(box) * (_COARSE / box)
    at = np.meshgrid(place, place, place, indexing="ij")
    return torch.from_numpy(ndimage.map_coordinates(values.numpy(), at, order=1, mode="grid-wrap"))
