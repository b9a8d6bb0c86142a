"""Figures are drawn from whatever a run may hold."""

from __future__ import annotations

import pytest
import torch
from matplotlib.image import imread

from cryospin.geometry.rotations import random_rotations
from cryospin.geometry.symmetry import in_asymmetric_unit, point_group
from cryospin.report.figures import plot_fsc, plot_orientations, plot_slices
from cryospin.report.local import plot_local_resolution
from cryospin.report.progress import plot_heads, plot_progress


def record(epoch, stage="compete", **more):
    return {"stage": stage, "epoch": epoch, "seconds": 1.0 * epoch, "frequency_limit_A": 30.0, "loss": -5.0} | more


def drawn(path):
    """Whether a picture holds more than its background."""
    return float(imread(path).std()) > 0.01


@pytest.mark.parametrize(
    "names", [["grid", "kept"], ["head 1", "head 2", "random view", "kept"], ["grid", "head 1", "kept"], ["head 1"]]
)
def test_winners_of_any_set_of_proposals(tmp_path, names):
    records = [record(1), record(2, winners=[5] * len(names), winner_names=names)]
    plot_heads(records, tmp_path / "heads.png")
    assert drawn(tmp_path / "heads.png")


def test_progress_with_what_the_first_epochs_do_not_know(tmp_path):
    records = [
        record(1, "explore", pose_change_deg=None, resolution_A=None, pose_error_deg=None),
        record(2, pose_change_deg=0.0),
        record(3, "refine", pose_change_deg=0.4, resolution_A=15.0, pose_error_deg=1.2),
    ]
    plot_progress(records, tmp_path / "progress.png")
    plot_progress(records[:1], tmp_path / "first.png")
    assert drawn(tmp_path / "progress.png")
    assert drawn(tmp_path / "first.png")


def test_map_views_and_curves(tmp_path, generator):
    plot_orientations(random_rotations(200, generator), tmp_path / "views.png")
    plot_slices(torch.rand(16, 16, 16, generator=generator), 4.0, tmp_path / "slices.png")
    plot_fsc([40.0, 20.0, 10.0], {"masked": [1.0, 0.6, 0.1]}, tmp_path / "fsc.png", resolution_A=12.0)
    for name in ("views", "slices", "fsc"):
        assert drawn(tmp_path / f"{name}.png")


def test_local_resolution_is_drawn_in_colour_where_the_mask_is(tmp_path, generator):
    local = torch.full((16, 16, 16), 9.0)
    local[..., 8:] = 5.0
    mask = torch.zeros(16, 16, 16)
    mask[4:12, 4:12, 4:12] = 1
    figure = plot_local_resolution(torch.rand(16, 16, 16, generator=generator), local, mask, 4.0, tmp_path / "local.png")
    assert drawn(tmp_path / "local.png")
    z, histogram = figure.axes[0].images[0].get_array(), figure.axes[3]
    green, blue = (z[5:11, 5:11, c] for c in (1, 2))
    assert bool((green[:, 3:] > blue[:, 3:]).all())  # fine is yellow
    assert bool((blue[:, :3] > green[:, :3]).all())  # coarse is purple
    assert bool((z[:3, ..., 0] == z[:3, ..., 2]).all())  # what is outside is grey
    heights = [bar.get_height() for bar in histogram.patches]
    assert [heights[0], heights[-1]] == pytest.approx([50.0, 50.0])


def test_local_resolution_without_any_mask_or_contrast_is_drawn_all_the_same(tmp_path):
    plot_local_resolution(
        torch.zeros(8, 8, 8), torch.full((8, 8, 8), 9.0), torch.zeros(8, 8, 8), 0.0, tmp_path / "local.png"
    )
    assert drawn(tmp_path / "local.png")


def view_map(figure):
    """Density of the views, by latitude and longitude `(120, 240)`."""
    return figure.axes[0].collections[0].get_array().reshape(120, 240)


def test_views_are_drawn_wherever_the_particle_looks_the_same(generator):
    group = point_group("C4")
    unit = in_asymmetric_unit(random_rotations(4000, generator), group)
    # Without the group, all but a quarter of the sphere, and what is smoothed about it, seems never to be seen.
    assert (view_map(plot_orientations(unit)) < 0.1).mean() > 0.4
    figure = plot_orientations(unit, group=group)
    assert view_map(figure)[5:-5].min() > 0.5
    assert view_map(figure)[5:-5].max() < 1.7
    assert figure.axes[0].get_title() == "4,000 views, each at its 4 equivalents"


def test_numbers_on_the_map_of_views_can_be_read_where_it_is_dark(generator):
    figure = plot_orientations(random_rotations(100, generator))
    assert all(label.get_path_effects() for label in figure.axes[0].get_xticklabels())


@pytest.mark.parametrize("resolution_A", [39.0, 20.0, 8.2])
def test_no_legend_covers_the_resolution(resolution_A):
    falling = [1.0] * 8 + [0.9, 0.5, 0.2, 0.0] + [0.0] * 8
    curves = dict.fromkeys(("corrected", "masked", "unmasked", "masked, phases randomised"), falling)
    figure = plot_fsc([160.0 / k for k in range(1, 21)], curves, resolution_A=resolution_A)
    figure.canvas.draw()
    (legend,) = figure.legends
    assert figure.axes[0].get_legend() is None
    assert legend.get_window_extent().y1 <= figure.axes[0].get_tightbbox().y0 + 1


def test_an_epoch_that_turns_nothing_does_not_stretch_the_axis():
    changes = [40.0, 8.0, 0.3, 5e-6]
    figure = plot_progress([record(i + 1, pose_change_deg=change) for i, change in enumerate(changes)])
    figure.canvas.draw()
    panel = figure.axes[0]
    low, high = panel.get_ylim()
    assert low > 0.005
    shown = [label.get_text() for label in panel.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert shown == ["0.01", "0.1", "1", "10"]
