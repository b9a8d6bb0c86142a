"""Histograms of what a run found out about its particles."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cryospin.report.style import BLUE, GREEN, INK, ORANGE, VERMILION, new_figure, tidy

_SIZE = (4.8, 3.0)
_MARGINS = {"left": 0.14, "right": 0.97, "bottom": 0.17, "top": 0.96}
_BINS = 40
_OUTLIERS = 0.002
"""Share of the values at either end that an axis need not show."""


def plot_confidence(confidence: np.ndarray) -> Figure:
    """Draw how sure the poses are.

    confidence: posterior probability of each particle's best pose, `(N,)`
    """
    figure, axes = _one()
    axes.hist(confidence, np.linspace(0, 1, _BINS + 1), color=BLUE)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.set_xlim(0, 1)
    _labels(axes, "Probability of the best pose")
    return figure


def plot_defocus(defocus_A: np.ndarray) -> Figure:
    """Draw the defocus of the particles, mean of the two axes, `(N,)` in Å."""
    figure, axes = _one()
    values = defocus_A / 1e4
    axes.hist(values, _edges(values), color=GREEN)
    _labels(axes, "Defocus (µm)")
    return figure


def plot_shifts(shift_A: np.ndarray) -> Figure:
    """Draw how far particles lie from the centre of their boxes, `(N, 2)` (x, y) in Å, with the median."""
    figure, axes = _one()
    values = np.hypot(shift_A[:, 0], shift_A[:, 1])
    axes.hist(values, np.linspace(0, _least_span(0, np.quantile(values, 1 - _OUTLIERS))[1], _BINS + 1), color=ORANGE)
    axes.axvline(np.median(values), color=INK, linewidth=1, linestyle=(0, (4, 3)))
    _labels(axes, f"Distance from the box centre (Å), median {np.median(values):.1f} Å")
    axes.set_xlim(left=0)
    return figure


def plot_shortfall(shortfall: np.ndarray, doubtful: float) -> Figure:
    """Draw by how much images resemble the map less than they should, and from where on they are doubtful.

    shortfall: of each image's contrast, standard errors, `(N,)`
    """
    figure, axes = _one()
    low, high = _least_span(np.quantile(shortfall, _OUTLIERS), max(np.quantile(shortfall, 1 - _OUTLIERS), 1.2 * doubtful))
    edges = np.linspace(low, high, _BINS + 1)
    bars = axes.hist(np.clip(shortfall, low, high), edges, color=BLUE)[2]
    for edge, bar in zip(edges, bars, strict=False):
        if edge >= doubtful:
            bar.set_color(VERMILION)
    axes.axvline(doubtful, color=VERMILION, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    _labels(axes, "Contrast short of the usual (standard errors)")
    return figure


def _one() -> tuple[Figure, Any]:
    figure = new_figure(*_SIZE, arrange=False)
    axes = figure.subplots(gridspec_kw=_MARGINS)
    tidy(axes)
    return figure, axes


def _labels(axes: Any, what: str) -> None:
    axes.set_xlabel(what)
    axes.set_ylabel("Particles")
    axes.xaxis.set_major_locator(MaxNLocator(6))


def _edges(values: np.ndarray) -> np.ndarray:
    """Of bins over all values but the most extreme."""
    return np.linspace(*_least_span(*np.quantile(values, [_OUTLIERS, 1 - _OUTLIERS])), _BINS + 1)


def _least_span(low: float, high: float) -> tuple[float, float]:
    """A range that is not empty."""
    return (low, high) if high - low > 1e-6 * max(1.0, abs(high)) else (low - 0.5, high + 0.5)
