"""Figure of the resolution from place to place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from cryospin.report.figures import scale_bar
from cryospin.report.style import INK, new_figure, save, tidy

_COLOURS = "viridis_r"
_BINS = 40
_OUTLIERS = 0.02
"""Share of the particle at either end whose resolution shares the last colour."""

_LEAST_COLOUR, _GREY = 0.2, 0.5
"""Colour of a place inside the mask that has no density, 0 to 1; grey of density outside."""


def plot_local_resolution(
    density: Tensor, local: Tensor, mask: Tensor, pixel_size: float, path: str | Path | None = None
) -> Figure:
    """Draw three central slices of a map, coloured by the local resolution inside the mask, and how much of it has which.

    density, local, mask: `(d, d, d)` as `[z, y, x]`; the map, the resolution in Å at each voxel, 0 to 1
    pixel_size: Å per voxel (0: unknown, no scale bar)
    path: where to write it as PNG, if anywhere
    """
    values, resolution, inside = density.float().numpy(), local.float().numpy(), mask.numpy() > 0.5
    of_particle = resolution[inside] if inside.any() else resolution.ravel()
    low, high = np.quantile(of_particle, [_OUTLIERS, 1 - _OUTLIERS])
    scale = Normalize(low, max(high, low * (1 + 1e-6)), clip=True)
    figure = new_figure(6.4, 4.2)
    rows = figure.add_gridspec(2, 3, height_ratios=(3, 2))
    middle = values.shape[0] // 2
    strength = _strength(values)
    for axis, name in enumerate("zyx"):
        panel = figure.add_subplot(rows[0, axis])
        shade, fineness, within = (x.take(middle, axis) for x in (strength, resolution, inside))
        panel.imshow(_coloured(shade, fineness, within, scale), origin="lower", interpolation="bilinear")
        panel.set_title(f"slice at {name} = 0", fontsize=9, color=INK)
        panel.set_axis_off()
        if axis == 0 and pixel_size > 0:
            scale_bar(panel, values.shape[0], pixel_size, INK)
    _histogram(figure.add_subplot(rows[1, :]), of_particle, scale)
    return save(figure, path)


def _strength(density: np.ndarray) -> np.ndarray:
    """Density as 0 to 1: from the solvent's, which is most of the box, to nearly the highest."""
    low, high = np.quantile(density, [0.5, 0.998])
    return np.clip((density - low) / max(high - low, 1e-12), 0, 1)


def _coloured(strength: np.ndarray, resolution: np.ndarray, inside: np.ndarray, scale: Normalize) -> np.ndarray:
    """A slice on white, in colour where it is inside the mask, in grey elsewhere: `(d, d, 3)`."""
    colour = np.where(inside[..., None], colormaps[_COLOURS](scale(resolution))[..., :3], _GREY)
    cover = np.where(inside, _LEAST_COLOUR + (1 - _LEAST_COLOUR) * strength, strength)[..., None]
    return 1 - cover * (1 - colour)


def _histogram(axes: Any, resolution: np.ndarray, scale: Normalize) -> None:
    """How much of the particle has which resolution, in the colours of the slices."""
    tidy(axes)
    edges = np.linspace(scale.vmin or 0.0, scale.vmax or 1.0, _BINS + 1)
    counts, _ = np.histogram(np.clip(resolution, edges[0], edges[-1]), edges)
    centres = (edges[1:] + edges[:-1]) / 2
    axes.bar(centres, 100 * counts / counts.sum(), np.diff(edges), color=colormaps[_COLOURS](scale(centres)))
    median = float(np.median(resolution))
    axes.axvline(median, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel(f"Local resolution inside the mask (Å), median {median:.1f} Å")
    axes.set_ylabel("Share of it (%)")
