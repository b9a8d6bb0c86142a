"""Posterior of images over a grid of rotations and shifts: matrix products on tensor cores between fused kernels.

A few images at a time, so that memory is bounded and their scores stay in the device's second-level cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from cryospin.kernels.cuda.interpolation import parts, phase
from cryospin.kernels.cuda.launch import BLOCK, blocks, columns, floats, launch
from cryospin.kernels.types import GridExpectation, GridScores, Observations

_SCORES_AT_ONCE = 1 << 23
_ALIGNED = 4
"""Rows of matrices are so many floats or a multiple: 16 bytes, which tensor cores are fed fastest by."""

_CELLS = 1024
"""Scores a program works on at a time."""


def grid_scores(slices: Tensor, observations: Observations, shifts: Tensor, log_prior: Tensor) -> GridScores:
    """Best log-likelihood of each image at each rotation over all shifts; see `reference.grid_scores`."""
    size = len(observations.images), 2 * len(slices)
    best = torch.empty(size, device=slices.device)
    which = torch.empty(size, dtype=torch.long, device=slices.device)
    for part in _parts(slices, observations, shifts, log_prior):
        out = best[part.rows], which[part.rows]
        launch(_best_kernel, (part.size, blocks(len(slices), _CELLS)), *part.scored, *out, CELLS=_CELLS)
    return GridScores(best, which)


def grid_entropies(
    slices: Tensor, observations: Observations, shifts: Tensor, log_prior: Tensor, sharpness: Tensor
) -> Tensor:
    """Entropy of each image's posterior at several sharpnesses, float32 `(n, len(sharpness))`, nats."""
    out = torch.empty(len(observations.images), len(sharpness), device=slices.device)
    beta = floats(sharpness)
    for part in _parts(slices, observations, shifts, log_prior):
        launch(_entropy_kernel, (part.size, len(beta)), *part.scored, beta, out[part.rows], CELLS=_CELLS)
    return out


def grid_expectation(
    slices: Tensor, observations: Observations, shifts: Tensor, log_prior: Tensor, sharpness: float
) -> GridExpectation:
    """Images averaged over their posterior on the grid; see `reference.grid_expectation`."""
    turns, count = slices.shape
    numerator = torch.zeros(2, turns, _aligned(count), device=slices.device)
    denominator = torch.zeros(turns, _aligned(count), device=slices.device)
    best = torch.empty(len(observations.images), dtype=torch.long, device=slices.device)
    for part in _parts(slices, observations, shifts, log_prior):
        top, total = (torch.empty(part.size, device=slices.device) for _ in range(2))
        marginal = torch.empty(part.size, turns, device=slices.device)
        summary = float(sharpness), top, total
        launch(_summary_kernel, (part.size,), *part.scored, *summary, best[part.rows], CELLS=_CELLS)
        programs = part.size, blocks(turns, _CELLS)
        launch(_posterior_kernel, programs, *part.scored, *summary, marginal, CELLS=_CELLS)
        with tensor_cores():
            numerator.baddbmm_(part.scores.mT, part.moved)
            denominator.addmm_(marginal.T, part.power)
    return GridExpectation(torch.complex(*numerator[..., :count]), denominator[:, :count].contiguous(), best)


class _Part(NamedTuple):
    """A few images against the whole grid.

    rows: which images
    moved: CTF-multiplied, weighted, shifted data `(2, m * S, Q)`, real and imaginary parts; Q are P coefficients and
        zeros up to a multiple of `_ALIGNED`
    power: weighted squared CTF `(m, Q)`
    scores: products of the real and of the imaginary parts of data and slices `(2, m * S, G)`
    penalty: the model's power `(m, G)`; prior: of each shift `(S,)`
    """

    rows: slice
    moved: Tensor
    power: Tensor
    scores: Tensor
    penalty: Tensor
    prior: Tensor

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.penalty)

    @property
    def scored(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int]:
        """What kernels make log-posteriors of, with the numbers of shifts and rotations."""
        return *self.scores, self.penalty, self.prior, len(self.prior), self.penalty.shape[1]


def _parts(slices: Tensor, o: Observations, shifts: Tensor, log_prior: Tensor) -> Iterator[_Part]:
    """Products of all images with the grid, a few images at a time.

    A slice's product with an image is the sum of the two parts' products, that of its conjugate their difference.
    """
    width = _aligned(len(o.disc))
    basis = _widened(torch.stack([slices.real, slices.imag]), width).mT
    strength = (basis**2).sum(0)
    prior, moves, count = floats(log_prior), floats(shifts), len(o.disc)
    step = max(1, _SCORES_AT_ONCE // max(1, 2 * len(shifts) * len(slices)))
    for start in range(0, len(o.images), step):
        rows = slice(start, min(start + step, len(o.images)))
        some = o._replace(images=o.images[rows], ctf=o.ctf[rows], group=o.group[rows], scale=o.scale[rows])
        size = rows.stop - rows.start
        moved = torch.zeros(2, size * len(shifts), width, device=slices.device)
        data = (*columns(some), moves, len(moves), float(o.box), count, width, *moved)
        launch(_move_kernel, (size, blocks(count)), *data, BLOCK=BLOCK)
        power = _widened((some.ctf * some.scale[:, None]) ** 2 * o.weight[some.group], width)
        with tensor_cores():
            scores, penalty = moved @ basis, power @ strength
        yield _Part(rows, moved, power, scores, penalty, prior)


def _aligned(count: int) -> int:
    return blocks(count, _ALIGNED) * _ALIGNED


def _widened(x: Tensor, width: int) -> Tensor:
    """Rows with zeros at their end."""
    return torch.nn.functional.pad(x, (0, width - x.shape[-1]))


@contextmanager
def tensor_cores() -> Iterator[None]:
    """Products of matrices with factors rounded to 11 bits (TF32) and sums in float32, here and nowhere else.

    What the rounding does to a log-posterior is in docs/gpu.md.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@triton.jit
def _move_kernel(
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
    shifts,
    shift_count,
    box,
    count,
    width,
    real,
    imaginary,
    BLOCK: tl.constexpr,
):
    """Weighted, CTF-multiplied data of one image with each shift taken off."""
    i = tl.program_id(0).to(tl.int64)
    p = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = p < count
    u, v = tl.load(kx + p, mask=inside, other=0.0), tl.load(ky + p, mask=inside, other=0.0)
    h = tl.load(ctf + i * ctf_stride + p, mask=inside, other=0.0) * tl.load(scale + i)
    h = h * tl.load(weight + tl.load(group + i) * weight_stride + p, mask=inside, other=0.0)
    re, im = parts(tl.load(images + i * image_stride + p, mask=inside, other=0))
    re, im = re * h, im * h
    for s in range(shift_count):
        sine, cosine = phase(shifts + 2 * s, box, u, v)
        at = (i * shift_count + s) * width + p
        tl.store(real + at, re * cosine - im * sine, mask=inside)
        tl.store(imaginary + at, re * sine + im * cosine, mask=inside)


@triton.jit
def _best_kernel(real, imaginary, penalty, prior, shifts, turns, best, which, CELLS: tl.constexpr):
    i = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1) * CELLS + tl.arange(0, CELLS)
    inside = g < turns
    real += i * shifts * turns
    imaginary += i * shifts * turns
    penalty += i * turns
    top = tl.full([CELLS], float("-inf"), tl.float32)
    turned_top = top
    where = tl.zeros([CELLS], tl.int64)
    turned_where = where
    for s in range(shifts):
        own, turned = _log_posteriors(real, imaginary, penalty, prior, s, g, turns)
        where = tl.where(own > top, s, where)
        turned_where = tl.where(turned > turned_top, s, turned_where)
        top = tl.maximum(top, own)
        turned_top = tl.maximum(turned_top, turned)
    at = i * 2 * turns + g
    tl.store(best + at, top, mask=inside)
    tl.store(best + at + turns, turned_top, mask=inside)
    tl.store(which + at, where, mask=inside)
    tl.store(which + at + turns, turned_where, mask=inside)


@triton.jit
def _log_posteriors(real, imaginary, penalty, prior, s, g, turns):
    """Of cells with shift `s` of one image, at rotations `g` and at their half turns; -inf beyond the last rotation."""
    inside = g < turns
    re = 2 * tl.load(real + s * turns + g, mask=inside, other=0.0)
    im = 2 * tl.load(imaginary + s * turns + g, mask=inside, other=0.0)
    rest = tl.load(prior + s) - tl.load(penalty + g, mask=inside, other=0.0)
    rest = tl.where(inside, rest, float("-inf"))
    return rest + (re + im), rest + (re - im)


@triton.jit
def _highest(real, imaginary, penalty, prior, shifts, turns, CELLS: tl.constexpr):
    """The largest log-posterior of one image and its cell."""
    top = tl.full([CELLS], float("-inf"), tl.float32)
    where = tl.zeros([CELLS], tl.int32)
    for start in range(0, turns, CELLS):
        g = start + tl.arange(0, CELLS)
        for s in range(shifts):
            own, turned = _log_posteriors(real, imaginary, penalty, prior, s, g, turns)
            value = tl.maximum(own, turned)
            cell = 2 * s * turns + g + tl.where(own == value, 0, turns)
            where = tl.where(value > top, cell, where)
            top = tl.maximum(top, value)
    highest = tl.max(top, 0)
    # Of cells that tie, the first.
    return highest, tl.min(tl.where(top == highest, where, 2147483647), 0)


@triton.jit
def _entropy_kernel(real, imaginary, penalty, prior, shifts, turns, sharpness, out, CELLS: tl.constexpr):
    i, b = tl.program_id(0).to(tl.int64), tl.program_id(1)
    real += i * shifts * turns
    imaginary += i * shifts * turns
    penalty += i * turns
    beta = tl.load(sharpness + b)
    top, _ = _highest(real, imaginary, penalty, prior, shifts, turns, CELLS)
    total = tl.zeros([CELLS], tl.float32)
    first = tl.zeros([CELLS], tl.float32)
    for start in range(0, turns, CELLS):
        g = start + tl.arange(0, CELLS)
        for s in range(shifts):
            own, turned = _log_posteriors(real, imaginary, penalty, prior, s, g, turns)
            # Below exp(-80) nothing counts, and minus infinity times nothing would not be a number.
            x, y = tl.maximum(beta * (own - top), -80.0), tl.maximum(beta * (turned - top), -80.0)
            e, f = tl.where(g < turns, tl.exp(x), 0.0), tl.where(g < turns, tl.exp(y), 0.0)
            total += e + f
            first += e * x + f * y
    whole = tl.sum(total, 0)
    tl.store(out + i * tl.num_programs(1) + b, tl.log(whole) - tl.sum(first, 0) / whole)


@triton.jit
def _summary_kernel(real, imaginary, penalty, prior, shifts, turns, sharpness, top, total, best, CELLS: tl.constexpr):
    """Height, cell and mass of one image's posterior."""
    i = tl.program_id(0).to(tl.int64)
    real += i * shifts * turns
    imaginary += i * shifts * turns
    penalty += i * turns
    highest, where = _highest(real, imaginary, penalty, prior, shifts, turns, CELLS)
    mass = tl.zeros([CELLS], tl.float32)
    for start in range(0, turns, CELLS):
        g = start + tl.arange(0, CELLS)
        for s in range(shifts):
            own, turned = _log_posteriors(real, imaginary, penalty, prior, s, g, turns)
            mass += tl.exp(sharpness * (own - highest)) + tl.exp(sharpness * (turned - highest))
    tl.store(top + i, highest)
    tl.store(total + i, tl.sum(mass, 0))
    tl.store(best + i, where.to(tl.int64))


@triton.jit
def _posterior_kernel(real, imaginary, penalty, prior, shifts, turns, sharpness, top, total, marginal, CELLS: tl.constexpr):
    """Turn products into sums and differences of the probabilities of each rotation and of its half turn in place.

    The sums add up over shifts to the marginal.
    """
    i = tl.program_id(0).to(tl.int64)
    real += i * shifts * turns
    imaginary += i * shifts * turns
    penalty += i * turns
    g = tl.program_id(1) * CELLS + tl.arange(0, CELLS)
    highest, mass = tl.load(top + i), tl.load(total + i)
    sum_over_shifts = tl.zeros([CELLS], tl.float32)
    for s in range(shifts):
        own, turned = _log_posteriors(real, imaginary, penalty, prior, s, g, turns)
        p = tl.exp(sharpness * (own - highest)) / mass
        q = tl.exp(sharpness * (turned - highest)) / mass
        tl.store(real + s * turns + g, p + q, mask=g < turns)
        tl.store(imaginary + s * turns + g, p - q, mask=g < turns)
        sum_over_shifts += p + q
    tl.store(marginal + i * turns + g, sum_over_shifts, mask=g < turns)
