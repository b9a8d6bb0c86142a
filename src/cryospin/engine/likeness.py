"""Whether an image shows the particle at the pose it was given, by its contrast.

At the right pose contrasts scatter about the usual one; elsewhere, or where there is another particle, an image may have any
contrast from none to the usual, with the same scatter. How many are of either kind follows from all images by expectation
maximisation, and so does the usual contrast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CONTRAST_SHELL = 12
"""Images' contrasts are measured up to here, cycles per box."""

DOUBTFUL = 4.0
"""An image is doubtful if its contrast falls short of the usual by so many standard errors."""

_ROUNDS = 50
_RANGE, _TRIALS, _TOUCHES = 2.5, 64, 5
"""The usual contrast is looked for within this factor of the expected, at so many values, and the best is touched up."""


def likeness(shortfall: Tensor, reach: Tensor) -> Tensor:
    """Probability that each image shows the particle at its pose, float64 `(n,)`.

    shortfall: standard deviations below the usual contrast, float64 `(n,)`; reach: of an image without contrast, `(n,)`
    """
    # An image above the usual contrast is no less like the map for it.
    return _mixture(shortfall[None], reach[None], most=shortfall.clamp_min(0)[None])[0][0]


def usual_contrast(contrast: Tensor, precision: Tensor, expected: float) -> float:
    """The contrast that images at the right pose have: the likeliest about an expected one.

    contrast: of each image at its pose, float64 `(n,)`; precision: one over its standard deviation, `(n,)`
    """
    usual = expected * torch.logspace(-1, 1, _TRIALS, base=_RANGE, dtype=contrast.dtype)
    _, evidence = _of(usual, contrast, precision)
    best = usual[evidence.argmax()][None]
    for _ in range(_TOUCHES):
        weight = _of(best, contrast, precision)[0] * precision**2
        best = (weight @ contrast) / weight.sum(1).clamp_min(1e-300)
    return float(best.clamp(expected / _RANGE, expected * _RANGE))


def _of(usual: Tensor, contrast: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    return _mixture((usual[:, None] - contrast) * precision, usual[:, None] * precision)


def _mixture(shortfall: Tensor, reach: Tensor, most: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Probability `(c, n)` of the first kind for each of c usual contrasts, and the log-likelihood of all images `(c,)`.

    most: shortfalls that the first kind is judged by, if others
    """
    right = torch.exp(-0.5 * (shortfall if most is None else most) ** 2) / math.sqrt(2 * math.pi)
    wrong = (torch.special.ndtr(shortfall) - torch.special.ndtr(shortfall - reach)) / reach.clamp_min(1)
    share = torch.full_like(reach[:, :1], 0.5)
    probability, total = right, right
    for _ in range(_ROUNDS):
        total = (share * right + (1 - share) * wrong).clamp_min(1e-300)
        probability = share * right / total
        share = probability.mean(1, keepdim=True)
    return probability, total.log().sum(1)
