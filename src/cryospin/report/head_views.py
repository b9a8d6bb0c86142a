"""Figures on the sphere of view directions: what one image allows, and what each head knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import healpix
import numpy as np
from matplotlib import colormaps
from torch import Tensor

from cryospin.report.style import INK, VERMILION, new_figure, save

_POINTS = (90, 180)
_SIDE = 4
_WORST_DEG = 90.0
_TRAIL = 16


@dataclass(frozen=True)
class ImageViews:
    """What is drawn of one image.

    name: title
    views: grid of (rot, tilt) in degrees `(V, 2)`, HEALPix in ring order
    log_posterior: nats below the best view, `(V,)`
    heads: view of each head after each epoch, beam directions in the particle's frame `(epochs, M, 3)`
    true: the true view, or None where it is not known, `(3,)`
    """

    name: str
    views: Tensor
    log_posterior: Tensor
    heads: Tensor
    true: Tensor | None = None


def plot_view_posteriors(images: Sequence[ImageViews], path: str | Path, *, depth: float = 60.0) -> None:
    """Draw for each image the log-posterior of its view and how the heads' guesses moved over the epochs.

    depth: nats below the best view at which the scale ends
    """
    columns = min(2, len(images))
    rows = math.ceil(len(images) / columns)
    figure = new_figure(4.6 * columns, 2.7 * rows)
    for number, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, number + 1, projection="mollweide")
        mesh = _paint(axes, image.log_posterior.numpy(), "Greys", (-depth, 0.0))
        colours = colormaps["viridis"](np.linspace(0.08, 0.92, image.heads.shape[1]))
        for head, colour in zip(image.heads.unbind(1), colours, strict=True):
            # Of more epochs a line would cover everything.
            longitude, latitude = _on_map(head[np.linspace(0, len(head) - 1, min(len(head), _TRAIL)).round()])
            # A line across the edge of the map would run all over it.
            breaks = np.flatnonzero(np.abs(np.diff(longitude)) > math.pi) + 1
            trail = (np.insert(x, breaks, np.nan) for x in (longitude, latitude))
            axes.plot(*trail, color=colour, linewidth=0.7, alpha=0.7)
            axes.scatter(longitude[-1:], latitude[-1:], s=26, color=colour, edgecolor="white", linewidth=0.6, zorder=6)
        if image.true is not None:
            longitude, latitude = _on_map(image.true[None])
            axes.scatter(longitude, latitude, s=90, marker="*", color=VERMILION, edgecolor="white", linewidth=0.5, zorder=7)
        axes.set_title(image.name, fontsize=9, color=INK)
    bar = figure.colorbar(mesh, ax=figure.axes, shrink=0.6, pad=0.02)
    bar.set_label("log-posterior of the view (nats)", fontsize=9)
    bar.outline.set_visible(False)
    save(figure, path)


def plot_head_errors(errors: Tensor, views: Tensor, path: str | Path) -> None:
    """Draw each head's mean error over the sphere of true views: who has specialised in what.

    errors: degrees `(s, M)`; views: true beam directions `(s, 3)`
    """
    heads = errors.shape[1]
    columns = min(4, heads)
    rows = math.ceil(heads / columns)
    figure = new_figure(3.0 * columns + 0.6, 1.9 * rows + 0.2)
    count = healpix.nside2npix(_SIDE)
    pixel = healpix.vec2pix(_SIDE, *views.double().numpy().T)
    seen = np.bincount(pixel, minlength=count)
    for head in range(heads):
        axes = figure.add_subplot(rows, columns, head + 1, projection="mollweide")
        total = np.bincount(pixel, errors[:, head].double().numpy(), minlength=count)
        mean = np.where(seen > 0, total / np.maximum(seen, 1), np.nan)
        mesh = _paint(axes, mean, "viridis_r", (0.0, _WORST_DEG))
        axes.set_title(f"head {head + 1}: median {float(errors[:, head].median()):.0f}°", fontsize=8, color=INK)
    bar = figure.colorbar(mesh, ax=figure.axes, shrink=0.7, pad=0.02, extend="max")
    bar.set_label("mean error of the images seen so (°)", fontsize=8)
    bar.outline.set_visible(False)
    save(figure, path)


def _paint(axes: Any, values: np.ndarray, scale: str, limits: tuple[float, float]) -> Any:
    """Fill a Mollweide map with values on the HEALPix sphere of their number, in ring order."""
    latitude = np.linspace(-math.pi / 2, math.pi / 2, _POINTS[0] + 1)
    longitude = np.linspace(-math.pi, math.pi, _POINTS[1] + 1)
    lat, lon = np.meshgrid((latitude[1:] + latitude[:-1]) / 2, (longitude[1:] + longitude[:-1]) / 2, indexing="ij")
    pixel = healpix.ang2pix(healpix.npix2nside(len(values)), math.pi / 2 - lat, lon)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.pcolormesh(longitude, latitude, values[pixel], cmap=scale, vmin=limits[0], vmax=limits[1], rasterized=True)


def _on_map(directions: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude in radians of directions `(n, 3)`."""
    x, y, z = directions.double().numpy().T
    return np.arctan2(y, x), np.arcsin(np.clip(z, -1, 1))
