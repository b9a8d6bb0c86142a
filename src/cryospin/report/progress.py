"""Figures of a run on its way: how far the poses still move, and which proposals win."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from cryospin.report.style import BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, VERMILION, new_figure, save, tidy

Record = dict[str, Any]
_NARROW, _WIDE = 20.0, 100.0
_LEAST_DEG = 0.01
"""Smaller angles are drawn here: one epoch that turns nothing would leave no room on the axis for the others."""

_NAMED = 0.08
"""Share of the time axis that a stage's name needs."""

_SEPARATE_BARS = 60


def plot_progress(records: Sequence[Record], path: str | Path | None = None) -> Figure:
    """Draw, over time, the pose change, the frequency limit and half-map resolution, and the pose error if known.

    records: lines of `metrics.jsonl`, one for each epoch, which is a point
    path: where to write it as PNG, if anywhere
    """
    unit, divisor = _unit_of_time(max(r["seconds"] for r in records))
    records = [r | {"time": r["seconds"] / divisor} for r in records]
    with_error = any(r.get("pose_error_deg") is not None for r in records)
    figure = new_figure(6.6, 6.0 if with_error else 4.4)
    panels = np.atleast_1d(figure.subplots(3 if with_error else 2, 1, sharex=True))
    for panel in panels:
        tidy(panel)
        _shade_stages(panel, records)
    _name_stages(panels[0], records)
    _draw(panels[0], records, "pose_change_deg", BLUE, "median pose change", least=_LEAST_DEG)
    _degrees(panels[0], "Pose change (°)")
    _draw(panels[1], records, "frequency_limit_A", GREEN, "frequency limit")
    _draw(panels[1], records, "resolution_A", VERMILION, "half maps at FSC 0.143")
    _angstroms(panels[1])
    if with_error:
        _draw(panels[2], records, "pose_error_deg", BLUE, "median pose error", least=_LEAST_DEG)
        _degrees(panels[2], "Pose error (°)")
    panels[-1].set_xlabel(f"Time since the start ({unit}); a point for each epoch")
    panels[-1].set_xlim(0, 1.02 * max(r["time"] for r in records) or 1)
    figure.align_ylabels()
    return save(figure, path)


def _unit_of_time(seconds: float) -> tuple[str, float]:
    """What to measure a run of this length in, and its seconds."""
    return ("s", 1.0) if seconds < 300 else ("min", 60.0) if seconds < 3 * 3600 else ("h", 3600.0)


def plot_heads(records: Sequence[Record], path: str | Path | None = None) -> Figure:
    """Draw, over epochs, for which share of the images each proposal won.

    records: lines of `metrics.jsonl`; those without `winners` are left out. `winner_names` names the proposals.
    path: where to write it as PNG, if anywhere
    """
    chosen = [r for r in records if r.get("winners")]
    names = _winner_names(chosen)
    shares = np.zeros((len(chosen), len(names)))
    for row, record in enumerate(chosen):
        labels = _winner_names([record])
        for label, count in zip(labels, record["winners"], strict=True):
            shares[row, names.index(label)] += count
    shares *= 100 / np.maximum(shares.sum(1, keepdims=True), 1)
    figure = new_figure(6.6, 3.4)
    axes = figure.subplots()
    tidy(axes)
    bottom = np.zeros(len(chosen))
    epochs = [r["epoch"] for r in chosen]
    # Between more bars than there is room for, gaps would show as stripes of their own.
    gap, edge = (0.1, 0.4) if len(chosen) <= _SEPARATE_BARS else (0.0, 0.0)
    for name, share, colour in zip(names, shares.T, _shades(names), strict=True):
        axes.bar(
            epochs, share, 1 - gap, bottom, color=colour, edgecolor="white", linewidth=edge, antialiased=gap > 0, label=name
        )
        bottom += share
    axes.set_ylim(0, 100)
    axes.set_xlabel("Epoch")
    axes.set_ylabel("Images won (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), reverse=True)
    return save(figure, path)


def _winner_names(records: Sequence[Record]) -> list[str]:
    """All names of proposals, in the order they first appear; numbered where a record does not name them."""
    found: dict[str, None] = {}
    for record in records:
        labels = record.get("winner_names") or [f"head {i + 1}" for i in range(len(record["winners"]))]
        found.update(dict.fromkeys(labels))
    return list(found)


def _shades(names: Sequence[str]) -> list[Any]:
    """A colour for each proposal: heads from dark to light along one scale, what is no head in colours of its own."""
    heads = [name for name in names if name.startswith("head")]
    others = [name for name in names if not name.startswith("head")]
    scale = colormaps["viridis"](np.linspace(0.08, 0.92, len(heads)))
    own = [VERMILION, FAINT, ORANGE, PURPLE]
    colours = dict(zip(heads, scale, strict=True)) | {n: own[i % len(own)] for i, n in enumerate(others)}
    return [colours[name] for name in names]


def _stages(records: Sequence[Record]) -> list[tuple[str, float, float]]:
    """Name, start and end of each stage on the time axis; a record is of the time an epoch ended."""
    spans, start = [], 0.0
    for stage, group in groupby(records, key=lambda r: str(r.get("stage", ""))):
        end = max(r["time"] for r in group)
        spans.append((stage, start, end))
        start = end
    return spans


def _shade_stages(axes: Any, records: Sequence[Record]) -> None:
    """Tint every other stage."""
    for index, (_, start, end) in enumerate(_stages(records)):
        if index % 2 == 0:
            axes.axvspan(start, end, color="#f3f3f3", linewidth=0, zorder=0)


def _name_stages(axes: Any, records: Sequence[Record]) -> None:
    """Write the stages' names above the topmost panel, those that are not too short to be named."""
    whole = max(r["time"] for r in records)
    for stage, start, end in _stages(records):
        short, last = end - start < _NAMED * whole, end == whole
        if short and not last:
            continue
        place, side = (end, "right") if short else ((start + end) / 2, "center")
        axes.annotate(
            stage, (place, 1.02), xycoords=("data", "axes fraction"), ha=side, va="bottom", fontsize=9, color=INK,
        )  # fmt: skip


def _draw(axes: Any, records: Sequence[Record], key: str, colour: str, label: str, least: float = 0.0) -> None:
    """A line through the epochs that have a value, `least` instead of a smaller one; a logarithm has no place for 0."""
    points = [(r["time"], max(r[key], least)) for r in records if (r.get(key) or 0) > 0]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3.5, linewidth=1.6, label=label)


def _degrees(axes: Any, label: str) -> None:
    """A logarithmic axis of angles, which may cover so much that there is room for decades only."""
    axes.set_yscale("log")
    _plain_numbers(axes)
    low, high = axes.get_ylim()
    if high / low > _WIDE:
        axes.yaxis.set_major_locator(LogLocator(numticks=20))
    axes.set_ylabel(label)


def _angstroms(axes: Any) -> None:
    """A logarithmic axis of resolutions, finer upwards."""
    axes.set_yscale("log")
    _plain_numbers(axes)
    axes.invert_yaxis()
    axes.set_ylabel("Resolution (Å)")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, loc="lower right")


def _plain_numbers(axes: Any) -> None:
    """Write 20 rather than 2 x 10^1, at more places where the axis covers little."""
    low, high = sorted(axes.get_ylim())
    narrow = low > 0 and high / low < _NARROW
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if narrow else (1, 2, 5), numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
