"""Misfit of pose hypotheses and its derivatives: slice, CTF, phase, residual, Jacobian and their sums in one kernel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cryospin.fourier import FourierGrid
from cryospin.kernels.cuda.interpolation import locate, parts, phase, read_gradient
from cryospin.kernels.cuda.launch import BLOCK, columns, hypotheses, lattice, launch
from cryospin.kernels.types import NormalEquations, Observations, Poses

_UPPER = torch.triu_indices(5, 5)


def normal_equations(volume: Tensor, grid: FourierGrid, observations: Observations, poses: Poses) -> NormalEquations:
    """Misfit of each pose hypothesis with its derivatives; see `reference.normal_equations`."""
    o = observations
    out = torch.empty(len(poses.image), 22, device=volume.device)
    data = (*lattice(volume, grid), *columns(o), *hypotheses(poses), float(o.box), len(o.disc))
    launch(_normal_kernel, (len(out),), *data, out, BLOCK=BLOCK)
    values = out.double()
    matrix = values.new_empty(len(values), 5, 5)
    row, column = _UPPER.to(values.device)
    matrix[:, row, column] = matrix[:, column, row] = values[:, 7:]
    return NormalEquations(values[:, 0], values[:, 1], values[:, 2:7], matrix)


@triton.jit
def _normal_kernel(
    volume,
    half,
    padding,
    images,
    image_stride,
    ctf,
    ctf_stride,
    weight,
    weight_stride,
    group,
    scale,
    kx,
    ky,
    image,
    rotations,
    shifts,
    box,
    count,
    out,
    BLOCK: tl.constexpr,
):
    """Sums over the slice of one hypothesis, in the frame where the shift's phase is taken off the image.

    With g the volume's gradient in the lab frame and k = (u, v, 0), a turn w changes the slice by
    `g . (k x w)`, and a shift t by `-i turn (k . t)` times the slice. Each thread keeps sums of its own; they meet once,
    at the end, in an order that is always the same.
    """
    j = tl.program_id(0).to(tl.int64)
    i = tl.load(image + j)
    images += i * image_stride
    ctf += i * ctf_stride
    weight += tl.load(group + i) * weight_stride
    contrast = tl.load(scale + i)
    r = rotations + 9 * j
    ax, ay, az = tl.load(r) * padding, tl.load(r + 1) * padding, tl.load(r + 2) * padding
    bx, by, bz = tl.load(r + 3) * padding, tl.load(r + 4) * padding, tl.load(r + 5) * padding
    cx, cy, cz = tl.load(r + 6) * padding, tl.load(r + 7) * padding, tl.load(r + 8) * padding
    turn = 6.283185307179586 / box
    zero = tl.zeros([BLOCK], tl.float32)
    cross, power = zero, zero
    g0, g1, g2, g3, g4 = zero, zero, zero, zero, zero
    h00, h01, h02, h03, h04 = zero, zero, zero, zero, zero
    h11, h12, h13, h14 = zero, zero, zero, zero
    h22, h23, h24, h33, h34, h44 = zero, zero, zero, zero, zero, zero
    for start in range(0, count, BLOCK):
        p = start + tl.arange(0, BLOCK)
        inside = p < count
        u, v = tl.load(kx + p, mask=inside, other=0.0), tl.load(ky + p, mask=inside, other=0.0)
        cell, fx, fy, fz, sign = locate(r, half, padding, u, v)
        sr, si, xr, xi, yr, yi, zr, zi = read_gradient(volume, half, cell, fx, fy, fz, sign)
        gxr, gxi = ax * xr + ay * yr + az * zr, ax * xi + ay * yi + az * zi
        gyr, gyi = bx * xr + by * yr + bz * zr, bx * xi + by * yi + bz * zi
        gzr, gzi = cx * xr + cy * yr + cz * zr, cx * xi + cy * yi + cz * zi
        j0r, j0i = -v * gzr, -v * gzi
        j1r, j1i = u * gzr, u * gzi
        j2r, j2i = v * gxr - u * gyr, v * gxi - u * gyi
        j3r, j3i = turn * u * si, -turn * u * sr
        j4r, j4i = turn * v * si, -turn * v * sr
        sine, cosine = phase(shifts + 2 * j, box, u, v)
        h = tl.load(ctf + p, mask=inside, other=0.0) * contrast
        wh = tl.load(weight + p, mask=inside, other=0.0) * h
        w = wh * h
        re, im = parts(tl.load(images + p, mask=inside, other=0))
        dr, di = wh * (re * cosine - im * sine), wh * (im * cosine + re * sine)
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
    out += 22 * j
    # Contrast enters the data term once and the model term twice; callers ask for both at contrast 1.
    tl.store(out, tl.sum(cross, 0) / contrast)
    tl.store(out + 1, tl.sum(power, 0) / (contrast * contrast))
    _put(out + 2, g0, g1, g2, g3, g4)
    _put(out + 7, h00, h01, h02, h03, h04)
    _put(out + 12, h11, h12, h13, h14, h22)
    _put(out + 17, h23, h24, h33, h34, h44)


@triton.jit
def _put(out, a, b, c, d, e):
    """Five sums side by side."""
    tl.store(out, tl.sum(a, 0))
    tl.store(out + 1, tl.sum(b, 0))
    tl.store(out + 2, tl.sum(c, 0))
    tl.store(out + 3, tl.sum(d, 0))
    tl.store(out + 4, tl.sum(e, 0))
