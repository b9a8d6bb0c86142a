"""Figures are drawn from whatever a run may hold."""

from __future__ import annotations

import pytest
import torch
from matplotlib.image import imread

from cryospin.geometry.rotations import random_rotations
from cryospin.report.figures import plot_fsc, plot_orientations, plot_slices
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
