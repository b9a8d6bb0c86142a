"""How figures look, and how they reach the disk."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from cryospin.formats.whole import whole

BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7",
)  # fmt: skip
"""Okabe and Ito's colours, which people with any kind of colour vision tell apart."""

INK, FAINT = "#333333", "#999999"
_DPI = 150


def new_figure(width: float, height: float, *, arrange: bool = True) -> Figure:
    """An empty figure, sides in inches, that belongs to no window and no global state.

    arrange: find places for its parts when it is drawn; a figure that has them laid out by hand is drawn in half the time
    """
    figure = Figure(figsize=(width, height), layout="constrained" if arrange else None, facecolor="white")
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
        # Its parts have found their places; drawn again, they need not look for them.
        figure.set_layout_engine("none")
    return figure


def as_data_uri(figure: Figure, kind: str = "svg") -> str:
    """A figure as an address that holds it: `data:image/...`. Text becomes outlines, so that it looks the same everywhere.

    kind: `svg` for lines, `png` for pictures
    """
    buffer = BytesIO()
    extra: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
    figure.savefig(buffer, format=kind, dpi=_DPI, **extra)
    return data_uri(buffer.getvalue(), "image/svg+xml" if kind == "svg" else f"image/{kind}")


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of a kind (MIME type) as an address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(image: np.ndarray) -> str:
    """A grey image `(h, w)` as the address of a PNG, y upwards, without the few most extreme pixels."""
    least, most = np.quantile(image, [0.005, 0.998])
    grey = np.clip((image.astype(float) - least) / max(most - least, 1e-12), 0, 1)
    buffer = BytesIO()
    Image.fromarray((grey[::-1] * 255).round().astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")
