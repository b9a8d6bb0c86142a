"""How figures look, and how they reach the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cryospin.formats.whole import whole

BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, YELLOW = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442",
)  # fmt: skip
"""Okabe and Ito's colours, which people with any kind of colour vision tell apart."""

INK, FAINT = "#333333", "#999999"
_DPI = 150


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sides in inches, that belongs to no window and no global state."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Any) -> None:
    """Take the frame off the top and right, and lay a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)


def save(figure: Figure, path: str | Path | None) -> Figure:
    """Write a figure as PNG, whole or not at all, if there is a path; returns the figure."""
    if path is not None:
        with whole(path) as temporary:
            figure.savefig(temporary, format="png", dpi=_DPI)
    return figure
