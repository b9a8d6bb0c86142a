"""Posterior of images over a grid of rotations and shifts, a few images at a time so that scores stay in cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
    count, turns = len(observations.images), len(slices)
    best = torch.empty(count, turns)
    which = torch.empty(count, turns, dtype=torch.int16)
    prior = array(log_prior)
    for start, stop, scores, _, penalty in _blocks(slices, observations, shifts):
        _each_image(_best_part, stop - start, scores.numpy(), penalty.numpy(), prior, best[start:stop], which[start:stop])
    return GridScores(best, which.long())


def grid_entropies(
    slices: Tensor, observations: Observations, shifts: Tensor, log_prior: Tensor, sharpness: Tensor
) -> Tensor:
    """Entropy of each image's posterior at several sharpnesses, float32 `(n, len(sharpness))`, nats."""
    out = torch.empty(len(observations.images), len(sharpness))
    prior, beta = array(log_prior), array(sharpness)
    for start, stop, scores, _, penalty in _blocks(slices, observations, shifts):
        _each_image(_entropy_part, stop - start, scores.numpy(), penalty.numpy(), prior, beta, out[start:stop])
    return out


def grid_expectation(
    slices: Tensor, observations: Observations, shifts: Tensor, log_prior: Tensor, sharpness: float
) -> GridExpectation:
    """Images averaged over their posterior on the grid; see `reference.grid_expectation`."""
    o = observations
    turns, count = slices.shape
    numerator = torch.zeros(turns, 2 * count)
    denominator = torch.zeros(turns, count)
    best = torch.empty(len(o.images), dtype=torch.long)
    power = (o.ctf * o.scale[:, None]) ** 2 * o.weight[o.group]
    marginal = torch.empty(len(o.images), turns)
    prior = array(log_prior)
    for start, stop, scores, moved, penalty in _blocks(slices, o, shifts):
        _each_image(
            _posterior_part,
            stop - start,
            scores.numpy(),
            penalty.numpy(),
            prior,
            F(sharpness),
            marginal[start:stop],
            best[start:stop],
        )
        with _coarse_products():
            numerator.addmm_(scores.T, moved)
            denominator.addmm_(marginal[start:stop].T, power[start:stop])
    return GridExpectation(torch.view_as_complex(numerator.view(turns, count, 2)), denominator, best)


def _blocks(slices: Tensor, o: Observations, shifts: Tensor):
    """For a few images at a time: their range, cross terms `(n * S, G)`, shifted data `(n * S, 2P)`, model power."""
    phase = o.disc.shift_phase(shifts, o.box).conj()
    weight = o.weight[o.group] * o.scale[:, None]
    data = o.images * o.ctf * weight
    power = o.ctf**2 * weight * o.scale[:, None]
    basis = torch.view_as_real(slices).flatten(1).T.contiguous()
    strength = (slices.real**2 + slices.imag**2).T.contiguous()
    step = max(1, _SCORES_AT_ONCE // (len(shifts) * len(slices)))
    scores, penalty = torch.empty(step * len(shifts), len(slices)), torch.empty(step, len(slices))
    for start in range(0, len(data), step):
        stop = min(start + step, len(data))
        moved = torch.view_as_real(data[start:stop, None] * phase).flatten(2).flatten(0, 1)
        # Fresh memory for every block would cost more than the product that fills it.
        some, own = scores[: len(moved)], penalty[: stop - start]
        with _coarse_products():
            torch.mm(moved, basis, out=some)
            torch.mm(power[start:stop], strength, out=own)
        yield start, stop, some, moved, own


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


def _each_image(part, count: int, *arguments) -> None:
    """Run a kernel over images split between the threads."""
    plain = [a.numpy() if isinstance(a, Tensor) else a for a in arguments]
    for_each_part(lambda _, a, b: part(a, b, *plain), count)


@compiled
def _log_posterior(scores, penalty, prior, i):
    """Turn an image's cross terms into log-posteriors in place; returns the largest and its shift."""
    shifts = prior.size
    top = F(-np.inf)
    where = 0
    for s in range(shifts):
        row = scores[i * shifts + s]
        own = prior[s]
        highest = F(-np.inf)
        for g in range(row.size):
            value = F(2) * row[g] - penalty[i, g] + own
            row[g] = value
            highest = max(highest, value)
        if highest > top:
            top = highest
            where = s
    return top, where


@compiled
def _best_part(start, stop, scores, penalty, prior, best, which):
    shifts = prior.size
    for i in range(start, stop):
        _log_posterior(scores, penalty, prior, i)
        best[i] = scores[i * shifts]
        which[i] = 0
        for s in range(1, shifts):
            row = scores[i * shifts + s]
            for g in range(row.size):
                better = row[g] > best[i, g]
                best[i, g] = row[g] if better else best[i, g]
                which[i, g] = s if better else which[i, g]


@compiled
def _entropy_part(start, stop, scores, penalty, prior, sharpness, out):
    shifts = prior.size
    for i in range(start, stop):
        top, _ = _log_posterior(scores, penalty, prior, i)
        for b in range(sharpness.size):
            total = F(0)
            first = F(0)
            for s in range(shifts):
                row = scores[i * shifts + s]
                for g in range(row.size):
                    x = sharpness[b] * (row[g] - top)
                    e = exponential(x)
                    total += e
                    first += e * x
            out[i, b] = np.log(total) - first / total


@compiled
def _posterior_part(start, stop, scores, penalty, prior, sharpness, marginal, best):
    shifts = prior.size
    for i in range(start, stop):
        top, where = _log_posterior(scores, penalty, prior, i)
        row = scores[i * shifts + where]
        for g in range(row.size):
            if row[g] == top:
                best[i] = where * row.size + g
        total = F(0)
        for s in range(shifts):
            row = scores[i * shifts + s]
            for g in range(row.size):
                e = exponential(sharpness * (row[g] - top))
                row[g] = e
                total += e
        inverse = F(1) / total
        marginal[i] = F(0)
        for s in range(shifts):
            row = scores[i * shifts + s]
            for g in range(row.size):
                p = row[g] * inverse
                row[g] = p
                marginal[i, g] += p
