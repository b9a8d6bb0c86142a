"""Posterior of images over a grid of rotations and shifts, a few images at a time so that scores stay in cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cryospin.kernels.cpu.arithmetic import exponential
from cryospin.kernels.cpu.compile import F, array, compiled
from cryospin.kernels.threads import for_each_part
from cryospin.kernels.types import GridExpectation, GridScores, Observations

_SCORES_AT_ONCE = 1 << 20


def grid_scores(slices: Tensor, observations: Observations, shifts: Tensor, log_prior: Tensor) -> GridScores:
    """Best log-likelihood of each image at each rotation over all shifts; see `reference.grid_scores`."""
    size = len(observations.images), 2, len(slices)
    best = torch.empty(size)
    which = torch.empty(size, dtype=torch.int16)
    prior = array(log_prior)
    for block in _blocks(slices, observations, shifts):
        _each_image(_best_part, block, prior, best[block.rows], which[block.rows])
    return GridScores(best.flatten(1), which.flatten(1).long())


def grid_entropies(
    slices: Tensor, observations: Observations, shifts: Tensor, log_prior: Tensor, sharpness: Tensor
) -> Tensor:
    """Entropy of each image's posterior at several sharpnesses, float32 `(n, len(sharpness))`, nats."""
    out = torch.empty(len(observations.images), len(sharpness))
    prior, beta = array(log_prior), array(sharpness)
    for block in _blocks(slices, observations, shifts):
        _each_image(_entropy_part, block, prior, beta, out[block.rows])
    return out


def grid_expectation(
    slices: Tensor, observations: Observations, shifts: Tensor, log_prior: Tensor, sharpness: float
) -> GridExpectation:
    """Images averaged over their posterior on the grid; see `reference.grid_expectation`."""
    turns, count = slices.shape
    numerator = torch.zeros(2, turns, count)
    denominator = torch.zeros(turns, count)
    best = torch.empty(len(observations.images), dtype=torch.long)
    prior = array(log_prior)
    for block in _blocks(slices, observations, shifts):
        marginal, inverse = torch.empty_like(block.penalty), torch.empty(len(block.penalty))
        _each_image(_posterior_part, block, prior, F(sharpness), marginal, inverse, best[block.rows])
        # There are far fewer data than cells: the posterior becomes one of sum 1 by way of what it weighs.
        block.moved.unflatten(1, (len(inverse), -1)).mul_(inverse[:, None, None])
        with _coarse_products():
            for part in range(2):
                numerator[part].addmm_(block.scores[part].T, block.moved[part])
            denominator.addmm_(marginal.T, block.power * inverse[:, None])
    return GridExpectation(torch.complex(*numerator), denominator, best)


class _Block(NamedTuple):
    """A few images against the whole grid.

    rows: which images
    moved: CTF-multiplied, weighted, shifted data `(2, m * S, P)`, real and imaginary parts
    power: weighted squared CTF `(m, P)`
    scores: products of the real and of the imaginary parts of data and slices `(2, m * S, G)`
    penalty: the model's power `(m, G)`
    """

    rows: slice
    moved: Tensor
    power: Tensor
    scores: Tensor
    penalty: Tensor


def _blocks(slices: Tensor, o: Observations, shifts: Tensor) -> Iterator[_Block]:
    """All images against the grid, a few at a time.

    A slice's product with an image is the sum of the two parts' products, that of its conjugate their difference.
    """
    phase = o.disc.shift_phase(shifts, o.box).conj()
    weight = o.weight[o.group] * o.scale[:, None]
    data = o.images * o.ctf * weight
    power = o.ctf**2 * weight * o.scale[:, None]
    basis = [part.T.contiguous() for part in (slices.real, slices.imag)]
    strength = basis[0] ** 2 + basis[1] ** 2
    step = max(1, _SCORES_AT_ONCE // (2 * len(shifts) * len(slices)))
    scores, penalty = torch.empty(2, step * len(shifts), len(slices)), torch.empty(step, len(slices))
    for start in range(0, len(data), step):
        rows = slice(start, min(start + step, len(data)))
        moved = (data[rows, None] * phase).flatten(0, 1)
        moved = torch.stack([moved.real, moved.imag])
        # Fresh memory for every block would cost more than the product that fills it.
        block = _Block(rows, moved, power[rows], scores[:, : moved.shape[1]], penalty[: rows.stop - start])
        with _coarse_products():
            for part in range(2):
                torch.mm(moved[part], basis[part], out=block.scores[part])
            torch.mm(block.power, strength, out=block.penalty)
        yield block


@contextmanager
def _coarse_products() -> Iterator[None]:
    """Products of matrices rounded to bfloat16 and summed in float32, where the processor has instructions for that.

    Rounding moves a score by a few thousandths of the noise that is in it anyway: about 0.03 nats where the right
    pose has 100.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _each_image(part, block: _Block, *arguments) -> None:
    """Run a kernel over a block's images, split between the threads."""
    tensors = block.scores[0], block.scores[1], block.penalty, *arguments
    plain = [a.numpy() if isinstance(a, Tensor) else a for a in tensors]
    for_each_part(lambda _, a, b: part(a, b, *plain), len(block.penalty))


@compiled
def _log_posterior(upright, turned, penalty, prior, i):
    """Turn an image's products into the log-posteriors of slices and of their conjugates in place.

    Returns the largest and its shift.
    """
    shifts = prior.size
    top = F(-np.inf)
    where = 0
    for s in range(shifts):
        one, other = upright[i * shifts + s], turned[i * shifts + s]
        own = prior[s]
        highest = F(-np.inf)
        for g in range(one.size):
            real, imaginary, rest = F(2) * one[g], F(2) * other[g], own - penalty[i, g]
            plus, minus = rest + (real + imaginary), rest + (real - imaginary)
            one[g] = plus
            other[g] = minus
            highest = max(highest, max(plus, minus))
        if highest > top:
            top = highest
            where = s
    return top, where


@compiled
def _best_part(start, stop, upright, turned, penalty, prior, best, which):
    shifts = prior.size
    for i in range(start, stop):
        _log_posterior(upright, turned, penalty, prior, i)
        _best_shift(upright, shifts, i, best[i, 0], which[i, 0])
        _best_shift(turned, shifts, i, best[i, 1], which[i, 1])


@compiled
def _best_shift(scores, shifts, i, best, which):
    best[:] = scores[i * shifts]
    which[:] = 0
    for s in range(1, shifts):
        row = scores[i * shifts + s]
        for g in range(row.size):
            better = row[g] > best[g]
            best[g] = row[g] if better else best[g]
            which[g] = s if better else which[g]


@compiled
def _entropy_part(start, stop, upright, turned, penalty, prior, sharpness, out):
    shifts = prior.size
    for i in range(start, stop):
        top, _ = _log_posterior(upright, turned, penalty, prior, i)
        for b in range(sharpness.size):
            total = F(0)
            first = F(0)
            for scores in (upright, turned):
                for s in range(shifts):
                    row = scores[i * shifts + s]
                    for g in range(row.size):
                        x = sharpness[b] * (row[g] - top)
                        e = exponential(x)
                        total += e
                        first += e * x
            out[i, b] = np.log(total) - first / total


@compiled
def _posterior_part(start, stop, upright, turned, penalty, prior, sharpness, marginal, inverse, best):
    """Turn products into sums and differences of a slice's and its conjugate's posteriors, up to the factor `inverse`."""
    shifts = prior.size
    for i in range(start, stop):
        top, where = _log_posterior(upright, turned, penalty, prior, i)
        best[i] = _first(upright[i * shifts + where], turned[i * shifts + where], top, where)
        total = F(0)
        marginal[i] = F(0)
        for s in range(shifts):
            one, other = upright[i * shifts + s], turned[i * shifts + s]
            for g in range(one.size):
                plus, minus = exponential(sharpness * (one[g] - top)), exponential(sharpness * (other[g] - top))
                both = plus + minus
                one[g] = both
                other[g] = plus - minus
                marginal[i, g] += both
                total += both
        inverse[i] = F(1) / total


@compiled
def _first(one, other, top, shift):
    """The cell of a shift whose log-posterior is `top`."""
    turns = one.size
    for g in range(turns):
        if one[g] == top:
            return shift * 2 * turns + g
    for g in range(turns):
        if other[g] == top:
            return shift * 2 * turns + turns + g
    return 0
