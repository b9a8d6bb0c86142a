"""Misfit of pose hypotheses and its derivatives."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from cryospin.fourier import FourierGrid
from cryospin.kernels.cpu.arithmetic import sine_cosine
from cryospin.kernels.cpu.compile import F, compiled
from cryospin.kernels.cpu.each_pose import each_pose
from cryospin.kernels.cpu.interpolation import interpolate, workspace
from cryospin.kernels.cpu.tiles import BLOCK, tiles
from cryospin.kernels.types import NormalEquations, Observations, Poses

_UPPER = tuple((i, j) for i in range(5) for j in range(i, 5))


def normal_equations(volume: Tensor, grid: FourierGrid, observations: Observations, poses: Poses) -> NormalEquations:
    """Misfit of each pose hypothesis with its derivatives; see `reference.normal_equations`."""
    values = each_pose(_normal_part, 22, volume, grid, observations, poses)
    matrix = values.new_zeros(len(values), 5, 5)
    for column, (i, j) in enumerate(_UPPER):
        matrix[:, i, j] = matrix[:, j, i] = values[:, 7 + column]
    return NormalEquations(values[:, 0], values[:, 1], values[:, 2:7], matrix)


@compiled
def _normal_part(volume, half, padding, images, ctf, weight, group, scale, kx, ky, image, rotations, shifts, box, rows, out):
    space, buffer = workspace(12), np.empty((8, BLOCK), np.float32)
    for n, start, stop in tiles(rows.size, kx.size):
        j, i = rows[n], image[rows[n]]
        some_x, some_y = kx[start:stop], ky[start:stop]
        interpolate(volume, half, padding, rotations[j], some_x, some_y, space, buffer)
        _accumulate(
            buffer,
            rotations[j] * F(padding),
            -shifts[j, 0] / box,
            -shifts[j, 1] / box,
            F(2 * math.pi) / box,
            images[i, 2 * start : 2 * stop],
            ctf[i, start:stop],
            weight[group[i], start:stop],
            scale[i],
            some_x,
            some_y,
            out[j],
        )


@compiled
def _accumulate(buffer, r, tx, ty, turn, image, ctf, weight, scale, kx, ky, out):
    """Add sums over some of a slice for the normal equations, in the frame where the shift's phase is taken off the image.

    With g the volume's gradient in the lab frame and k = (u, v, 0), a turn w changes the slice by
    `g . (k x w)`, and a shift t by `-i turn (k . t)` times the slice.
    """
    ax, ay, az, bx, by, bz = r[0, 0], r[0, 1], r[0, 2], r[1, 0], r[1, 1], r[1, 2]
    cx, cy, cz = r[2, 0], r[2, 1], r[2, 2]
    vr, vi = buffer[0], buffer[1]
    xr, xi, yr, yi, zr, zi = buffer[2], buffer[3], buffer[4], buffer[5], buffer[6], buffer[7]
    cross = power = g0 = g1 = g2 = g3 = g4 = F(0)
    h00 = h01 = h02 = h03 = h04 = h11 = h12 = h13 = F(0)
    h14 = h22 = h23 = h24 = h33 = h34 = h44 = F(0)
    for p in range(kx.size):
        u, v = kx[p], ky[p]
        sr, si = vr[p], vi[p]
        gxr, gxi = ax * xr[p] + ay * yr[p] + az * zr[p], ax * xi[p] + ay * yi[p] + az * zi[p]
        gyr, gyi = bx * xr[p] + by * yr[p] + bz * zr[p], bx * xi[p] + by * yi[p] + bz * zi[p]
        gzr, gzi = cx * xr[p] + cy * yr[p] + cz * zr[p], cx * xi[p] + cy * yi[p] + cz * zi[p]
        j0r, j0i = -v * gzr, -v * gzi
        j1r, j1i = u * gzr, u * gzi
        j2r, j2i = v * gxr - u * gyr, v * gxi - u * gyi
        j3r, j3i = turn * u * si, -turn * u * sr
        j4r, j4i = turn * v * si, -turn * v * sr
        sine, cosine = sine_cosine(tx * u + ty * v)
        h = ctf[p] * scale
        wh = weight[p] * h
        w = wh * h
        re, im = image[2 * p], image[2 * p + 1]
        dr, di = wh * (re * cosine + im * sine), wh * (im * cosine - re * sine)
        cross += dr * sr + di * si
        power += w * (sr * sr + si * si)
        er, ei = w * sr - dr, w * si - di
        g0 += j0r * er + j0i * ei
        g1 += j1r * er + j1i * ei
        g2 += j2r * er + j2i * ei
        g3 += j3r * er + j3i * ei
        g4 += j4r * er + j4i * ei
        h00 += w * (j0r * j0r + j0i * j0i)
        h01 += w * (j0r * j1r + j0i * j1i)
        h02 += w * (j0r * j2r + j0i * j2i)
        h03 += w * (j0r * j3r + j0i * j3i)
        h04 += w * (j0r * j4r + j0i * j4i)
        h11 += w * (j1r * j1r + j1i * j1i)
        h12 += w * (j1r * j2r + j1i * j2i)
        h13 += w * (j1r * j3r + j1i * j3i)
        h14 += w * (j1r * j4r + j1i * j4i)
        h22 += w * (j2r * j2r + j2i * j2i)
        h23 += w * (j2r * j3r + j2i * j3i)
        h24 += w * (j2r * j4r + j2i * j4i)
        h33 += w * (j3r * j3r + j3i * j3i)
        h34 += w * (j3r * j4r + j3i * j4i)
        h44 += w * (j4r * j4r + j4i * j4i)
    # Contrast enters the data term once and the model term twice; callers ask for both at contrast 1.
    first = (cross / scale, power / (scale * scale), g0, g1, g2, g3, g4)
    second = (h00, h01, h02, h03, h04, h11, h12, h13, h14, h22, h23, h24, h33, h34, h44)
    for k, value in enumerate(first + second):
        out[k] += value
