"""Add images to a volume's sums: the adjoint of slicing, by atomic additions.

The order of those additions is the device's, so sums repeat to rounding and not to the last bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.kernels.cuda.interpolation import locate, parts, phase
from cryospin.kernels.cuda.launch import BLOCK, blocks, columns, floats, hypotheses, launch, words
from cryospin.kernels.types import Observations, Poses


def insert(
    numerator: Tensor,
    denominator: Tensor,
    grid: FourierGrid,
    observations: Observations,
    poses: Poses,
    responsibility: Tensor,
) -> None:
    """Add images to a volume's sums at their poses; see `reference.insert`."""
    o = observations
    data = (*columns(o), *hypotheses(poses), floats(responsibility), float(o.box), len(o.disc))
    programs = len(poses.image), blocks(len(o.disc))
    launch(_insert_kernel, programs, *_sums(numerator, denominator), grid.half, grid.padding, *data, BLOCK=BLOCK)


def insert_values(
    numerator: Tensor,
    denominator: Tensor,
    grid: FourierGrid,
    rotations: Tensor,
    disc: HalfDisc,
    values: Tensor,
    weights: Tensor,
) -> None:
    """Spread slices over a volume's sums with trilinear weights; see `reference.insert_values`."""
    spread(numerator, denominator, grid, rotations, disc, values, weights)


def spread(
    numerator: Tensor,
    denominator: Tensor | None,
    grid: FourierGrid,
    rotations: Tensor,
    disc: HalfDisc,
    values: Tensor,
    weights: Tensor | None,
) -> None:
    """`insert_values` that leaves the denominator out where there is none."""
    data = floats(rotations), floats(disc.kx), floats(disc.ky), len(disc), words(values.contiguous())
    weighted = denominator is not None and weights is not None
    # Without weights no pointer to them is followed; any stands in for it.
    share = floats(weights) if weights is not None else numerator.real
    programs = len(rotations), blocks(len(disc))
    sums = _sums(numerator, denominator)
    launch(_spread_kernel, programs, *sums, grid.half, grid.padding, *data, share, WEIGHTED=weighted, BLOCK=BLOCK)


def _sums(numerator: Tensor, denominator: Tensor | None) -> tuple[Tensor, Tensor]:
    """The memory that is added to; copies would be lost."""
    pairs = torch.view_as_real(numerator)
    denominator = pairs if denominator is None else denominator
    if not (pairs.is_contiguous() and denominator.is_contiguous()):
        raise ValueError("a volume's sums must be contiguous to be added to")
    return pairs, denominator


@triton.jit
def _insert_kernel(
    numerator,
    denominator,
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
    responsibility,
    box,
    count,
    BLOCK: tl.constexpr,
):
    j = tl.program_id(0).to(tl.int64)
    i = tl.load(image + j)
    p = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = p < count
    u, v = tl.load(kx + p, mask=inside, other=0.0), tl.load(ky + p, mask=inside, other=0.0)
    h = tl.load(ctf + i * ctf_stride + p, mask=inside, other=0.0) * tl.load(scale + i)
    w = tl.load(weight + tl.load(group + i) * weight_stride + p, mask=inside, other=0.0)
    g = h * w * tl.load(responsibility + j)
    real, imaginary = parts(tl.load(images + i * image_stride + p, mask=inside, other=0))
    sine, cosine = phase(shifts + 2 * j, box, u, v)
    re, im = g * (real * cosine - imaginary * sine), g * (real * sine + imaginary * cosine)
    cell, fx, fy, fz, sign = locate(rotations + 9 * j, half, padding, u, v)
    _deposit(numerator, denominator, half, cell, fx, fy, fz, re, im * sign, g * h, inside, True)


@triton.jit
def _spread_kernel(
    numerator,
    denominator,
    half,
    padding,
    rotations,
    kx,
    ky,
    count,
    values,
    weights,
    WEIGHTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    j = tl.program_id(0).to(tl.int64)
    p = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = p < count
    u, v = tl.load(kx + p, mask=inside, other=0.0), tl.load(ky + p, mask=inside, other=0.0)
    re, im = parts(tl.load(values + j * count + p, mask=inside, other=0))
    w = re
    if WEIGHTED:
        w = tl.load(weights + j * count + p, mask=inside, other=0.0)
    cell, fx, fy, fz, sign = locate(rotations + 9 * j, half, padding, u, v)
    _deposit(numerator, denominator, half, cell, fx, fy, fz, re, im * sign, w, inside, WEIGHTED)


@triton.jit
def _deposit(numerator, denominator, half, cell, fx, fy, fz, re, im, w, inside, WEIGHTED: tl.constexpr):
    """Add weighted complex values to the eight lattice points about each point of a slice."""
    row = half + 2
    plane = row * (2 * half + 1)
    for corner in tl.static_range(8):
        at, share = cell, re * 0 + 1
        if corner & 1:
            at, share = at + 1, share * fx
        else:
            share = share * (1 - fx)
        if corner & 2:
            at, share = at + row, share * fy
        else:
            share = share * (1 - fy)
        if corner & 4:
            at, share = at + plane, share * fz
        else:
            share = share * (1 - fz)
        tl.atomic_add(numerator + 2 * at, share * re, mask=inside, sem="relaxed")
        tl.atomic_add(numerator + 2 * at + 1, share * im, mask=inside, sem="relaxed")
        if WEIGHTED:
            tl.atomic_add(denominator + at, share * w, mask=inside, sem="relaxed")
