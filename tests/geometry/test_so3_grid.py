from __future__ import annotations

import pytest
import torch

from cryospin.geometry.rotations import chordal_distance_squared, distance_deg, random_rotations, with_half_turns
from cryospin.geometry.so3_grid import rotation_grid, sorted_by_view, view_directions


@pytest.mark.parametrize("step", [60.0, 30.0, 15.0])
def test_no_rotation_is_far_from_the_grid(step, generator):
    grid = rotation_grid(step)
    torch.testing.assert_close(grid @ grid.mT, torch.eye(3).expand_as(grid), rtol=0, atol=1e-5)
    halves = with_half_turns(rotation_grid(step, in_plane_deg=180.0))
    assert len(halves) == len(grid)
    assert float(torch.stack([chordal_distance_squared(grid, h).min() for h in halves]).max()) < 1e-9
    probe = random_rotations(200, generator)
    nearest = torch.stack([grid[chordal_distance_squared(grid, p).argmin()] for p in probe])
    distance = distance_deg(nearest, probe)
    assert float(distance.max()) < 1.05 * step
    assert float(distance.median()) > 0.2 * step, "the grid is finer than asked for"


def test_the_count_is_that_of_even_cells():
    # 4,800 rotations: HEALPix nside 4 and 25 turns in the plane.
    assert len(rotation_grid(14.5)) == 192 * 25
    assert len(rotation_grid(14.5, in_plane_deg=180.0)) == 192 * 12
    # A cell of side s holds s^3 of the 8 pi^2 cubic radians.
    step = 20.0
    expected = 8 * torch.pi**2 / torch.deg2rad(torch.tensor(step)) ** 3
    assert 0.7 < len(rotation_grid(step)) / expected < 1.4


def test_views_cover_the_sphere_evenly():
    rot, tilt = torch.deg2rad(torch.from_numpy(view_directions(15.0))).unbind(1)
    axis = torch.stack([tilt.sin() * rot.cos(), tilt.sin() * rot.sin(), tilt.cos()], 1)
    assert float(axis.mean(0).abs().max()) < 1e-9
    torch.testing.assert_close(axis.T @ axis / len(axis), torch.eye(3, dtype=torch.float64) / 3, rtol=0, atol=1e-2)


def test_in_plane_angle_runs_fastest():
    grid = rotation_grid(30.0)
    # A turn in the plane leaves the beam's direction in the particle alone.
    torch.testing.assert_close(grid[:12, 2], grid[:1, 2].expand(12, 3), rtol=0, atol=1e-6)
    assert float((grid[12, 2] - grid[0, 2]).norm()) > 0.1


@pytest.mark.parametrize("step", [0.0, -3.0])
def test_steps_must_be_positive(step):
    with pytest.raises(ValueError, match="must be positive"):
        rotation_grid(step)


def test_sorting_by_view_brings_like_views_together(generator):
    rotations = random_rotations(2000, generator)
    order = sorted_by_view(rotations)
    assert torch.equal(order.sort().values, torch.arange(2000))
    axis = rotations[order][:, 2]

    def gap(a):
        return float((a[1:] * a[:-1]).sum(1).abs().clamp(max=1).acos().mean())

    assert gap(axis) < 0.2 * gap(rotations[:, 2])
