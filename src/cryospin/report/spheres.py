"""Figures on the sphere of views: where each head is right, and which poses a few particles cannot decide between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from cryospin.report.style import BLUE, INK, ORANGE, VERMILION, new_figure

RIGHT_DEG = 20.0
"""A head is right about an image if the view it guesses is this near to the one the image ended at; the turn in the plane
is searched for each view anyway."""

_POINTS = (45, 90)
_KERNEL = 80.0
"""Concentration of the kernel that shares are smoothed with: half of its weight lies within 7.6 degrees."""

_COLUMNS = 4


def plot_head_maps(beams: Tensor, errors_deg: Tensor) -> Figure:
    """Draw, for each head and for the best of them, the share of the images of each view that it is right about.

    beams: `(n, 3)`, view of each image in the particle's frame
    errors_deg: `(n, M)`, angle of each head's view from the one the image ended at
    """
    right = (errors_deg <= RIGHT_DEG).double().numpy()
    columns = [(f"head {m + 1}", right[:, m]) for m in range(right.shape[1])]
    columns.append(("best of all", right.max(1)))
    rows = math.ceil(len(columns) / _COLUMNS)
    figure = new_figure(8.0, 1.25 * rows + 0.1, arrange=False)
    panels = _globes(figure, rows, _COLUMNS, right=0.905)
    lat, lon, points = _globe()
    weight = np.exp(_KERNEL * (points @ beams.double().numpy().T - 1))
    weight /= weight.sum(1, keepdims=True).clip(1e-300)
    mesh: Any = None
    for panel, (name, share) in zip(panels.flat, columns, strict=False):
        image = (weight @ share).reshape(_POINTS)
        mesh = panel.pcolormesh(lon, lat, 100 * image, cmap="viridis", vmin=0, vmax=100, shading="flat", rasterized=True)
        _bare(panel, f"{name}: {100 * share.mean():.0f} %")
    for panel in panels.flat[len(columns) :]:
        panel.set_axis_off()
    bar = figure.colorbar(mesh, cax=figure.add_axes((0.92, 0.15, 0.014, 0.66)))
    bar.set_label(f"images right to {RIGHT_DEG:.0f}° (%)", fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)
    return figure


def plot_modes(particles: Sequence[tuple[str, Tensor, np.ndarray]]) -> Figure:
    """Draw the views that each of a few particles may have been seen from, the likelier the larger.

    particles: title, rotations `(m, 3, 3)` best first, and their posterior probabilities `(m,)`
    """
    columns = 3
    rows = math.ceil(len(particles) / columns)
    figure = new_figure(8.0, 1.65 * rows, arrange=False)
    panels = _globes(figure, rows, columns, right=0.995)
    for panel, (title, rotation, share) in zip(panels.flat, particles, strict=False):
        _bare(panel, title)
        panel.grid(color="#dddddd", linewidth=0.5)
        lon, lat = _longitude_latitude(rotation[:, 2].double().numpy())
        colours = [BLUE if i == 0 else ORANGE for i in range(len(share))]
        panel.scatter(lon, lat, s=25 + 240 * share, c=colours, edgecolor="white", linewidth=0.8, alpha=0.9, zorder=5)
        if len(share) > 1:
            panel.plot(lon[:2], lat[:2], color=VERMILION, linewidth=0.9, linestyle=(0, (3, 2)), zorder=4)
    for panel in panels.flat[len(particles) :]:
        panel.set_axis_off()
    return figure


def _globes(figure: Figure, rows: int, columns: int, right: float) -> Any:
    """Panels of the sphere side by side, with room for a title above each."""
    title = 0.22 / figure.get_figheight()
    places = {"left": 0.005, "right": right, "bottom": 0.01, "top": 1 - title, "wspace": 0.04, "hspace": 1.2 * title * rows}
    return figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": "mollweide"}, gridspec_kw=places)


def _bare(panel: Any, title: str) -> None:
    """A globe with a title and nothing else."""
    panel.set_xticks(np.radians([-120, -60, 0, 60, 120]), [])
    panel.set_yticks(np.radians([-60, -30, 0, 30, 60]), [])
    panel.set_title(title, fontsize=8, color=INK)


def _globe() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges of a grid in latitude and longitude, radians, and unit vectors of its cells' centres `(n, 3)`."""
    latitude = np.linspace(-math.pi / 2, math.pi / 2, _POINTS[0] + 1)
    longitude = np.linspace(-math.pi, math.pi, _POINTS[1] + 1)
    lat, lon = np.meshgrid((latitude[1:] + latitude[:-1]) / 2, (longitude[1:] + longitude[:-1]) / 2, indexing="ij")
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    return latitude, longitude, points.reshape(-1, 3)


def _longitude_latitude(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of unit vectors `(n, 3)`, radians."""
    return np.arctan2(points[:, 1], points[:, 0]), np.arcsin(np.clip(points[:, 2], -1, 1))
