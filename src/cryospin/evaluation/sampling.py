"""How evenly the views of a data set fill Fourier space."""

from __future__ import annotations

from dataclasses import dataclass

import healpix
import numpy as np
import torch
from torch import Tensor

_NSIDE = 16
_IMAGES_A_DIRECTION = 20
"""A shell is chosen small enough that so many images are expected to cross each of its directions: what is left of
counting noise lowers the factor by a few per cent at most."""

_SMALLEST_SHELL = 3
_LEAST = 0.02
"""Sampling, relative to even, that a direction has at least, so that one that no image crosses does not decide alone."""

_CHUNK = 4096


@dataclass(frozen=True)
class Sampling:
    """How evenly a shell of Fourier space is sampled.

    compensation: the sampling compensation factor, 1 for even views, towards 0 where directions are missing
    missing: fraction of the directions that no image samples
    shell: the shell it was evaluated on, cycles per box
    """

    compensation: float
    missing: float
    shell: int


def fourier_sampling(rotations: Tensor, shell: float, group: Tensor | None = None) -> Sampling:
    """Sampling compensation factor of views: `SCF = 1 / mean(1 / s)` over directions.

    Baldwin and Lyumkis, Progress in Biophysics and Molecular Biology 150 (2020). A slice one frequency thick covers the
    directions `n` of shell `r` with `|n.b| < 1 / 2r`, `b` being the beam; `s(n)` is the number of slices that cover `n`
    over what even views would give. An SSNR is lower by this factor than that of as many even views: 1 for even views,
    `8 / pi^2 = 0.81` for views all round one axis. A direction that is covered less than a fiftieth of what is even, or
    not at all, counts as covered a fiftieth.

    rotations: `(N, 3, 3)`; the third row of each is the beam in the particle's frame
    shell: cycles per box; a smaller one is taken where there are too few images to tell
    group: rotations of the particle's point group, `(order, 3, 3)`
    """
    beams = rotations[:, 2].float()
    if group is not None:
        beams = (beams[None] @ group.float()).flatten(0, 1)
    count = len(beams)
    radius = max(_SMALLEST_SHELL, round(min(shell, count / (2 * _IMAGES_A_DIRECTION))))
    x, y, z = healpix.pix2vec(_NSIDE, np.arange(healpix.nside2npix(_NSIDE) // 2))
    directions = torch.from_numpy(np.stack([x, y, z], axis=1)).float()
    crossed = torch.zeros(len(directions), dtype=torch.long)
    for some in beams.split(_CHUNK):
        crossed += ((some @ directions.T).abs() < 0.5 / radius).sum(0)
    relative = (crossed.double() * (2 * radius / count)).clamp_min(_LEAST)
    return Sampling(float(1 / (1 / relative).mean()), float((crossed == 0).double().mean()), radius)
