"""Misfit of pose hypotheses, without derivatives."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cryospin.fourier import FourierGrid
from cryospin.kernels.cuda.interpolation import locate, parts, phase, read
from cryospin.kernels.cuda.launch import BLOCK, columns, hypotheses, lattice, launch
from cryospin.kernels.types import Fit, Observations, Poses


def fits(volume: Tensor, grid: FourierGrid, observations: Observations, poses: Poses) -> Fit:
    """How each pose hypothesis fits its image; see `reference.fits`."""
    o = observations
    out = torch.empty(len(poses.image), 2, device=volume.device)
    data = (*lattice(volume, grid), *columns(o), *hypotheses(poses), float(o.box), len(o.disc))
    launch(_fit_kernel, (len(out),), *data, out, BLOCK=BLOCK)
    return Fit(*out.double().unbind(1))


@triton.jit
def _fit_kernel(
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
    """Cross term and power of one hypothesis, in the frame where the shift's phase is taken off the image."""
    j = tl.program_id(0).to(tl.int64)
    i = tl.load(image + j)
    images += i * image_stride
    ctf += i * ctf_stride
    weight += tl.load(group + i) * weight_stride
    cross = tl.zeros([BLOCK], tl.float32)
    power = tl.zeros([BLOCK], tl.float32)
    for start in range(0, count, BLOCK):
        p = start + tl.arange(0, BLOCK)
        inside = p < count
        u, v = tl.load(kx + p, mask=inside, other=0.0), tl.load(ky + p, mask=inside, other=0.0)
        cell, fx, fy, fz, sign = locate(rotations + 9 * j, half, padding, u, v)
        sr, si = read(volume, half, cell, fx, fy, fz, sign)
        sine, cosine = phase(shifts + 2 * j, box, u, v)
        h = tl.load(ctf + p, mask=inside, other=0.0)
        w = tl.load(weight + p, mask=inside, other=0.0) * h
        re, im = parts(tl.load(images + p, mask=inside, other=0))
        cross += w * ((re * cosine - im * sine) * sr + (im * cosine + re * sine) * si)
        power += w * h * (sr * sr + si * si)
    tl.store(out + 2 * j, tl.sum(cross, 0))
    tl.store(out + 2 * j + 1, tl.sum(power, 0))
