"""Figures of a result: its resolution, its orientations, its density."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import healpix
import numpy as np
import torch
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from cryospin.report.style import BLUE, FAINT, GREEN, INK, ORANGE, SKY, VERMILION, new_figure, save, tidy

_CURVE_COLOURS = (BLUE, GREEN, SKY, ORANGE, VERMILION)
_MAP_POINTS = (120, 240)
_TICK_ROOM = 0.09


def plot_fsc(
    shells_resolution_A: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    path: str | Path | None = None,
    *,
    resolution_A: float | None,
) -> Figure:
    """Draw FSC curves over spatial frequency.

    shells_resolution_A: resolution of each shell, Å
    curves: correlation of each shell, by the curve's name; the first is drawn boldest
    path: where to write it as PNG, if anywhere
    resolution_A: where to put the marker, Å
    """
    figure = new_figure(5.8, 4.5)
    axes = figure.subplots()
    tidy(axes)
    frequency = 1 / np.asarray(shells_resolution_A, dtype=float)
    for rank, (name, values) in enumerate(curves.items()):
        colour = _CURVE_COLOURS[rank % len(_CURVE_COLOURS)]
        axes.plot(frequency, values, color=colour, linewidth=2.2 if rank == 0 else 1.4, label=name, zorder=9 - rank)
    for level in (0.5, 0.143):
        axes.axhline(level, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{level:g}", (1, level), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=8, color=INK,
        )  # fmt: skip
    if resolution_A is not None:
        axes.axvline(1 / resolution_A, color=VERMILION, linewidth=1.2)
        axes.annotate(
            f"{resolution_A:.1f} Å", (1 / resolution_A, 1.02), xytext=(5, 0), textcoords="offset points",
            color=VERMILION, fontsize=10, fontweight="bold", va="center",
        )  # fmt: skip
    axes.set_ylim(min(-0.05, *(float(np.nanmin(v)) for v in curves.values())), 1.06)
    axes.set_xlim(0, frequency.max())
    _resolution_ticks(axes, float(frequency.max()))
    axes.set_xlabel("Resolution (Å), evenly spaced in 1/Å")
    axes.set_ylabel("Fourier shell correlation")
    # Below the axes, where it can cover neither a curve nor the resolution.
    figure.legend(fontsize=9, loc="outside lower center", ncols=2, frameon=False)
    return save(figure, path)


def _resolution_ticks(axes: Any, highest: float) -> None:
    """Label a frequency axis (1/Å) with round resolutions in Å, as many as there is room for."""
    chosen = [0.0]
    for decade in (100, 10, 1, 0.1):
        for mantissa in (10, 8, 6, 5, 4, 3, 2.5, 2, 1.5, 1.2):
            frequency = 1 / (mantissa * decade)
            if _TICK_ROOM * highest <= frequency - chosen[-1] and frequency <= highest:
                chosen.append(frequency)
    axes.set_xticks(chosen, ["∞", *(f"{1 / k:.3g}" for k in chosen[1:])])


def plot_orientations(
    rotations: Tensor, path: str | Path | None = None, *, group: Tensor | None = None, compensation: float | None = None
) -> Figure:
    """Draw how densely views are spread over the sphere, relative to an even spread.

    rotations: `(N, 3, 3)`; the third row of each is the beam in the particle's frame
    path: where to write it as PNG, if anywhere
    group: the particle's point group, `(order, 3, 3)`; each view is drawn wherever the particle looks the same
    compensation: the views' sampling compensation factor
    """
    group = torch.eye(3)[None] if group is None else group
    density = _view_density(rotations, group)
    figure = new_figure(6.4, 3.4)
    axes = figure.add_subplot(projection="mollweide")
    latitude = np.linspace(-math.pi / 2, math.pi / 2, _MAP_POINTS[0] + 1)
    longitude = np.linspace(-math.pi, math.pi, _MAP_POINTS[1] + 1)
    lat, lon = np.meshgrid((latitude[1:] + latitude[:-1]) / 2, (longitude[1:] + longitude[:-1]) / 2, indexing="ij")
    image = density(math.pi / 2 - lat, lon)
    # Blue is rarer and red is commoner than even, with white at 1 whatever the range.
    highest = max(2.0, float(np.quantile(image, 0.999)))
    norm = TwoSlopeNorm(1.0, vmin=0.0, vmax=highest)
    mesh = axes.pcolormesh(longitude, latitude, image, cmap="RdBu_r", norm=norm, shading="flat", rasterized=True)
    axes.grid(color="black", alpha=0.15, linewidth=0.5)
    axes.set_xticks(np.radians([-120, -60, 0, 60, 120]), ["-120°", "-60°", "0°", "60°", "120°"])
    axes.set_yticks(np.radians([-60, -30, 0, 30, 60]), ["150°", "120°", "90°", "60°", "30°"])
    axes.tick_params(labelsize=8, colors=INK)
    for label in axes.get_xticklabels():
        # They stand on the map, which may be dark there.
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    axes.set_xlabel("rot", color=INK, fontsize=9)
    axes.set_ylabel("tilt", color=INK, fontsize=9)
    bar = figure.colorbar(mesh, ax=axes, shrink=0.7, pad=0.03, ticks=_even_ticks(highest))
    bar.set_label("views relative to even", fontsize=9)
    bar.outline.set_visible(False)
    factor = f"; sampling compensation factor {compensation:.2f} (1 is even)" if compensation is not None else ""
    each = f", each at its {len(group)} equivalents" if len(group) > 1 else ""
    axes.set_title(f"{len(rotations):,} views{each}{factor}", fontsize=10, color=INK, pad=12)
    return save(figure, path)


def _even_ticks(highest: float) -> list[float]:
    """Ticks of the density bar: 0, 1 and about three above."""
    step = max(1, math.ceil((highest - 1) / 3))
    return [0, 1, *range(1 + step, math.floor(highest) + 1, step)]


def _view_density(rotations: Tensor, group: Tensor) -> Any:
    """A function of (tilt, rot) in radians giving the density of views and their equivalents relative to an even one."""
    beam, turns = rotations[:, 2].double().numpy(), group.double().numpy()
    views = len(beam) * len(turns)
    nside = int(np.clip(2 ** math.floor(math.log2(math.sqrt(max(1, views) / 12 / 8) + 1e-9)), 2, 16))
    pixels = healpix.nside2npix(nside)
    # One turn after the other: 60 times a million views would fill a gigabyte.
    counts = np.zeros(pixels)
    for turn in turns:
        counts += np.bincount(healpix.vec2pix(nside, *(beam @ turn).T), minlength=pixels)
    relative = counts / counts.mean()
    centres = np.stack(healpix.pix2vec(nside, np.arange(pixels)), axis=1)
    width = math.sqrt(4 * math.pi / pixels)

    def density(tilt: np.ndarray, rot: np.ndarray) -> np.ndarray:
        points = np.stack([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)], axis=-1)
        # Row by row: all points against all pixels would fill hundreds of megabytes.
        weights = (np.exp((row @ centres.T - 1) / (0.7 * width) ** 2) for row in points)
        return np.stack([(weight @ relative) / weight.sum(1) for weight in weights])

    return density


def plot_slices(density: Tensor, pixel_size: float, path: str | Path | None = None) -> Figure:
    """Draw three central slices and three projections of a map.

    density: `(d, d, d)` as `[z, y, x]`; pixel_size: Å per voxel (0: unknown, no scale bar)
    path: where to write it as PNG, if anywhere
    """
    values = density.detach().float().numpy()
    middle = values.shape[0] // 2
    figure = new_figure(6.4, 4.5)
    panels = figure.subplots(2, 3)
    for axis, name in enumerate("zyx"):
        # Looking along y, z runs up and x to the right; and so on.
        _grey(panels[0, axis], values.take(middle, axis), f"slice at {name} = 0")
        _grey(panels[1, axis], values.sum(axis), f"projection along {name}")
    if pixel_size > 0:
        for panel in panels[:, 0]:
            scale_bar(panel, values.shape[0], pixel_size)
    return save(figure, path)


def _grey(axes: Any, image: np.ndarray, title: str) -> None:
    """A picture in grey, protein white, without the few most extreme pixels."""
    low, high = np.quantile(image, [0.005, 0.998])
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-12), origin="lower", interpolation="bicubic")
    axes.set_title(title, fontsize=9, color=INK)
    axes.set_axis_off()


def scale_bar(axes: Any, box: int, pixel_size: float, colour: str = "white") -> None:
    """A bar of a round length, about a quarter of the box, in the corner."""
    quarter = box * pixel_size / 4
    power = 10 ** math.floor(math.log10(quarter))
    length = power * max(m for m in (1, 2, 5) if m * power <= quarter)
    start, height = 0.06 * box, 0.06 * box
    axes.plot([start, start + length / pixel_size], [height, height], color=colour, linewidth=3, solid_capstyle="butt")
    axes.text(start, height + 0.025 * box, f"{length:g} Å", color=colour, fontsize=8, va="bottom")
