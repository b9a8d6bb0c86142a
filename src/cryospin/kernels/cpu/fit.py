"""Misfit of pose hypotheses, without derivatives: a third of the work of the normal equations."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cryospin.fourier import FourierGrid
from cryospin.kernels.cpu.arithmetic import sine_cosine
from cryospin.kernels.cpu.compile import F, compiled
from cryospin.kernels.cpu.each_pose import each_pose
from cryospin.kernels.cpu.interpolation import interpolate_values, workspace
from cryospin.kernels.cpu.tiles import BLOCK, tiles
from cryospin.kernels.types import Fit, Observations, Poses


def fits(volume: Tensor, grid: FourierGrid, observations: Observations, poses: Poses) -> Fit:
    """How each pose hypothesis fits its image; see `reference.fits`."""
    return Fit(*each_pose(_fit_part, 2, volume, grid, observations, poses).unbind(1))


@compiled
def _fit_part(volume, half, padding, images, ctf, weight, group, scale, kx, ky, image, rotations, shifts, box, rows, out):
    space, buffer = workspace(4), np.empty((2, BLOCK), np.float32)
    for n, start, stop in tiles(rows.size, kx.size):
        j, i = rows[n], image[rows[n]]
        some_x, some_y = kx[start:stop], ky[start:stop]
        interpolate_values(volume, half, padding, rotations[j], some_x, some_y, space, buffer)
        _compare(
            buffer,
            -shifts[j, 0] / box,
            -shifts[j, 1] / box,
            images[i, 2 * start : 2 * stop],
            ctf[i, start:stop],
            weight[group[i], start:stop],
            some_x,
            some_y,
            out[j],
        )


@compiled
def _compare(buffer, tx, ty, image, ctf, weight, kx, ky, out):
    """Add cross term and power of some of a slice, in the frame where the shift's phase is taken off the image."""
    vr, vi = buffer[0], buffer[1]
    cross = power = F(0)
    for p in range(kx.size):
        sine, cosine = sine_cosine(tx * kx[p] + ty * ky[p])
        sr, si = vr[p], vi[p]
        h = ctf[p]
        w = weight[p] * h
        re, im = image[2 * p], image[2 * p + 1]
        cross += w * ((re * cosine + im * sine) * sr + (im * cosine - re * sine) * si)
        power += w * h * (sr * sr + si * si)
    out[0] += cross
    out[1] += power
