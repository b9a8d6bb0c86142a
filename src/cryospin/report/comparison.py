"""Figures that set several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from cryospin.report.style import BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION, new_figure, save, tidy
from cryospin.report.surface import shaded_surface

_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, INK)
_HISTOGRAM_DEG = np.geomspace(0.1, 180, 46)
_MARKED_EPOCHS = 60


def plot_maps(maps: Mapping[str, Tensor], path: str | Path) -> None:
    """Draw, for each of several aligned maps `(d, d, d)`, its surface, its central slice and its projection along z."""
    figure = new_figure(1.9 * len(maps) + 0.2, 6.0)
    panels = figure.subplots(3, len(maps), squeeze=False)
    for column, (name, density) in enumerate(maps.items()):
        values = density.float().numpy()
        _grey(panels[0, column], shaded_surface(density), (0.0, 1.0), "nearest")
        for axes, picture in ((panels[1, column], values[len(values) // 2]), (panels[2, column], values.sum(0))):
            low, high = np.quantile(picture, [0.005, 0.998])
            _grey(axes, picture, (low, max(high, low + 1e-12)), "bicubic")
        panels[0, column].set_title(name, fontsize=9, color=INK)
    for row, text in enumerate(("surface along z", "slice at z = 0", "projection along z")):
        panels[row, 0].set_ylabel(text, fontsize=9, color=INK)
    save(figure, path)


def plot_resolution_over_time(
    points: Mapping[str, Sequence[tuple[float, float]]], path: str | Path, *, ceiling_A: float | None = None
) -> None:
    """Draw the resolution each system reached over the time it took.

    points: seconds and Å of each run, by the system's name
    ceiling_A: what the true poses give
    """
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    tidy(axes)
    for number, (name, runs) in enumerate(points.items()):
        seconds, resolutions = zip(*runs, strict=True)
        axes.scatter(seconds, resolutions, s=46, color=_COLOURS[number % len(_COLOURS)], label=name, zorder=5)
    if ceiling_A is not None:
        axes.axhline(ceiling_A, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), label="true poses")
    _logarithmic(axes.xaxis, axes.set_xscale, axes.get_xlim)
    axes.invert_yaxis()
    axes.set_xlabel("Time of the whole command (s)")
    axes.set_ylabel("Resolution at FSC 0.5 (Å)")
    axes.legend(frameon=False, fontsize=9, loc="best")
    save(figure, path)


def plot_error_over_epochs(
    curves: Mapping[str, Sequence[float]], path: str | Path, *, switches: Mapping[str, int] | None = None
) -> None:
    """Draw each run's mean rotation error after each epoch.

    curves: degrees, by the run's name
    switches: epochs of auto-encoding of the runs that had auto-decoding after it
    """
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    tidy(axes)
    for number, (name, errors) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        marker = "o" if len(errors) <= _MARKED_EPOCHS else ""
        axes.plot(range(1, len(errors) + 1), errors, color=colour, marker=marker, markersize=3, linewidth=1.6, label=name)
        if switches and (at := switches.get(name)):
            axes.axvline(at + 0.5, color=colour, linewidth=0.9, linestyle=(0, (4, 3)))
    _logarithmic(axes.yaxis, axes.set_yscale, axes.get_ylim)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Epoch (dashed: the switch to auto-decoding)" if switches else "Epoch")
    axes.set_ylabel("Mean rotation error (°)")
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def plot_error_distribution(errors: Mapping[str, Tensor], path: str | Path) -> None:
    """Draw how many images have which rotation error: a mode of its own far to the right is a wrong mode.

    errors: degrees `(N,)`, by the run's name
    """
    figure = new_figure(6.4, 1.2 + 1.0 * len(errors))
    panels = figure.subplots(len(errors), 1, sharex=True, squeeze=False)[:, 0]
    for number, (axes, (name, values)) in enumerate(zip(panels, errors.items(), strict=True)):
        tidy(axes)
        share = np.histogram(np.clip(values.numpy(), 0.1, 180), _HISTOGRAM_DEG)[0] * 100 / len(values)
        colour = _COLOURS[number % len(_COLOURS)]
        axes.stairs(share, _HISTOGRAM_DEG, fill=True, color=colour, alpha=0.85)
        text = f"{name}: median {float(values.median()):.1f}°, {100 * float((values < 10).double().mean()):.0f} % within 10°"
        axes.annotate(text, (0.01, 0.8), xycoords="axes fraction", fontsize=9, color=INK)
        axes.set_ylim(0, max(1.0, 1.45 * float(share.max())))
    _logarithmic(panels[-1].xaxis, panels[-1].set_xscale, panels[-1].get_xlim)
    panels[-1].set_xlabel("Rotation error (°)")
    figure.supylabel("Images (%)", fontsize=10)
    save(figure, path)


def _grey(axes: Any, picture: np.ndarray, limits: tuple[float, float], interpolation: str) -> None:
    """A picture without a frame."""
    axes.imshow(picture, cmap="gray", vmin=limits[0], vmax=limits[1], origin="lower", interpolation=interpolation)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _logarithmic(axis: Any, set_scale: Any, limits: Any) -> None:
    """A logarithmic axis that says 20 rather than 2 x 10^1, at more places where it covers little."""
    set_scale("log")
    low, high = sorted(limits())
    narrow = low > 0 and high / low < 20
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if narrow else (1, 2, 5), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
