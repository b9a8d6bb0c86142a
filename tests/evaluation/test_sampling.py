"""The sampling compensation factor of views for which it is known."""

from __future__ import annotations

import math

import pytest
import torch

from cryospin.evaluation.sampling import fourier_sampling
from cryospin.geometry.rotations import from_relion_angles, random_rotations
from cryospin.geometry.symmetry import point_group


def views(tilt, count=20_000, seed=3):
    """Views at given tilts (degrees), from all sides."""
    g = torch.Generator().manual_seed(seed)
    angles = torch.rand(count, 3, generator=g, dtype=torch.float64) * 360
    angles[:, 1] = tilt
    return from_relion_angles(angles)


def test_even_views_sample_evenly(generator):
    found = fourier_sampling(random_rotations(20_000, generator), 16)
    assert found.compensation == pytest.approx(1, abs=0.02)
    assert found.missing == 0
    assert found.shell == 16


def test_side_views_cost_what_theory_says():
    # Views round one axis sample the direction at polar angle t as 2 / (pi sin t): mean(1 / s) = pi^2 / 8.
    assert fourier_sampling(views(90.0), 40).compensation == pytest.approx(8 / math.pi**2, abs=0.02)


def test_one_view_leaves_nearly_everything_out():
    found = fourier_sampling(views(0.0), 10)
    # All slices are one slice, which holds the directions within asin(1 / 20) of its plane.
    assert found.missing == pytest.approx(1 - 0.05, abs=0.03)
    assert found.compensation < 0.03


def test_a_missing_cone_is_measured():
    # Tilts up to 30 degrees leave a cone of directions about the axis: half angle 60 degrees less the slice's thickness.
    g = torch.Generator().manual_seed(1)
    tilt = torch.rad2deg(torch.acos(1 - torch.rand(20_000, generator=g, dtype=torch.float64) * (1 - math.cos(math.pi / 6))))
    found = fourier_sampling(views(tilt), 30)
    assert found.missing == pytest.approx(1 - math.cos(math.radians(60) - 1 / 60), abs=0.02)
    # A fiftieth is taken for what is missing, and the rest is sampled twice as often: 1 / (50 * 0.48 + 0.52 / 2).
    assert found.compensation == pytest.approx(0.041, abs=0.01)


def test_a_point_group_fills_in():
    tilted = views(60.0)[:2000]
    tilted = tilted[(torch.atan2(tilted[:, 2, 1], tilted[:, 2, 0])).abs() < 0.6]
    alone = fourier_sampling(tilted, 8)
    symmetric = fourier_sampling(tilted, 8, point_group("D7"))
    assert symmetric.missing < alone.missing / 3
    assert symmetric.compensation > 2 * alone.compensation


def test_few_images_are_judged_on_a_shell_they_can_fill(generator):
    found = fourier_sampling(random_rotations(300, generator), 60)
    assert found.shell == 8
    assert found.compensation > 0.9
