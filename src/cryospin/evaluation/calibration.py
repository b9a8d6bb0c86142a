"""Whether a confidence means what it says, and how well a score tells junk from particles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.integrate import trapezoid

_BINS = 10


class Reliability(NamedTuple):
    """Particles sorted into bins of confidence; float64 `(bins,)` each, without empty bins.

    confidence: mean confidence
    right: share of the particles whose pose is right
    particles: how many there are
    """

    confidence: np.ndarray
    right: np.ndarray
    particles: np.ndarray

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean difference of confidence and share of right poses (Naeini et al., AAAI 2015)."""
        return float((np.abs(self.confidence - self.right) * self.particles).sum() / max(self.particles.sum(), 1))

    @property
    def bias(self) -> float:
        """Mean confidence less the share of right poses: positive where a run is too sure."""
        return float(((self.confidence - self.right) * self.particles).sum() / max(self.particles.sum(), 1))


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = _BINS) -> Reliability:
    """Share of right poses against confidence.

    confidence: `(n,)`, 0 to 1; right: bool `(n,)`, whether the pose is within the angular resolution
    bins: of equal width
    raises: `ValueError` for a confidence outside 0 to 1
    """
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("a confidence is a number from 0 to 1")
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    used = count > 0
    mean = np.bincount(which, confidence, minlength=bins)[used] / count[used]
    share = np.bincount(which, right, minlength=bins)[used] / count[used]
    return Reliability(mean, share, count[used].astype(float))


class Roc(NamedTuple):
    """Receiver operating characteristic: what a threshold on a score lets through.

    false_positive, true_positive: float64 `(k,)`, rising from 0 to 1 as the threshold falls
    """

    false_positive: np.ndarray
    true_positive: np.ndarray

    @property
    def area(self) -> float:
        """Area under the curve: the chance that one of those looked for scores higher than one of the others."""
        return float(trapezoid(self.true_positive, self.false_positive))


def roc(score: np.ndarray, positive: np.ndarray) -> Roc:
    """ROC of a score that should be high where `positive`; equal scores count half.

    score: float `(n,)`; positive: bool `(n,)`
    raises: `ValueError` where all are alike
    """
    score, positive = np.asarray(score, float), np.asarray(positive, bool)
    if positive.all() or not positive.any():
        raise ValueError("a ROC needs both those looked for and others")
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], positive[order]
    # Only where the score changes can a threshold lie.
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    hits, misses = np.cumsum(positive)[last], np.cumsum(~positive)[last]
    return Roc(np.append(0, misses / misses[-1]), np.append(0, hits / hits[-1]))
