"""Figures that set runs side by side, and those on the sphere of views."""

from __future__ import annotations

import healpix
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from cryospin.geometry.rotations import random_rotations
from cryospin.report.comparison import (
    plot_error_distribution,
    plot_error_over_epochs,
    plot_maps,
    plot_resolution_over_time,
)
from cryospin.report.head_views import ImageViews, plot_head_errors, plot_view_posteriors
from cryospin.report.surface import shaded_surface


def drawn(path):
    """Whether a picture holds more than its background."""
    return float(imread(path).std()) > 0.01


def ball(box, radius):
    x = (torch.arange(box) - box // 2).float()
    return torch.sigmoid(2 * (radius - (x[:, None, None] ** 2 + x[:, None] ** 2 + x**2).sqrt()))


def test_a_ball_is_lit_on_one_side_and_round():
    image = shaded_surface(ball(96, 24.0), share=(24 / 48) ** 3)
    hit = np.isfinite(image)
    assert hit.sum() == pytest.approx(np.pi * 24**2, rel=0.06)
    x = np.arange(96) - 48
    light = np.array([0.35, 0.45, 0.82])
    for column, row in ((0, 0), (10, 0), (0, -12), (-8, 9)):
        normal = np.array([column, row, np.sqrt(24**2 - column**2 - row**2)]) / 24
        expected = 0.25 + 0.75 * max(0.0, float(normal @ light) / np.linalg.norm(light))
        assert image[48 + row, 48 + column] == pytest.approx(expected, abs=0.05)
    assert x[hit.any(0)].min() == pytest.approx(-24, abs=1.5)


def test_an_empty_map_has_a_picture_all_the_same(tmp_path):
    plot_maps({"truth": ball(24, 7.0), "nothing": torch.zeros(24, 24, 24)}, tmp_path / "maps.png")
    assert drawn(tmp_path / "maps.png")


def test_times_errors_and_epochs(tmp_path, generator):
    plot_resolution_over_time(
        {"a": [(40.0, 15.0), (44.0, 15.2)], "b": [(900.0, 20.0)]}, tmp_path / "time.png", ceiling_A=14.9
    )
    curves = {"a": [120.0, 90.0, 20.0, 3.0], "b": [120.0, 80.0, 40.0, 30.0]}
    plot_error_over_epochs(curves, tmp_path / "epochs.png", switches={"a": 2})
    errors = {"a": torch.rand(200, generator=generator) * 5, "b": torch.full((200,), 180.0)}
    plot_error_distribution(errors, tmp_path / "errors.png")
    for name in ("time", "epochs", "errors"):
        assert drawn(tmp_path / f"{name}.png")


def test_spheres(tmp_path, generator):
    count, views = 300, healpix.nside2npix(4)
    directions = random_rotations(count, generator)[:, 2]
    plot_head_errors(torch.rand(count, 7, generator=generator) * 100, directions, tmp_path / "heads.png")
    trail = random_rotations(5 * 3, generator)[:, 2].unflatten(0, (5, 3))
    score = -50 * torch.rand(views, generator=generator)
    images = [ImageViews("one", torch.zeros(views, 2), score, trail, true) for true in (directions[0], None, directions[1])]
    plot_view_posteriors(images, tmp_path / "posteriors.png")
    assert drawn(tmp_path / "heads.png")
    assert drawn(tmp_path / "posteriors.png")
