from __future__ import annotations

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import distance_deg, exponential, random_rotations
from cryospin.kernels.types import Poses
from cryospin.poses.gauss_newton import refine_poses, shift_penalty

BOX, COUNT = 28, 40
GRID, DISC = FourierGrid(10), HalfDisc.build(10)


@pytest.fixture(scope="module")
def setting(blobs, observe):
    """Images of a map at known poses, and those poses 8 degrees and 1 pixel off."""
    g = torch.Generator().manual_seed(1)
    volume = map_to_grid(blobs.density(BOX), GRID)
    true = Poses(torch.arange(COUNT), random_rotations(COUNT, g), torch.randn(COUNT, 2, generator=g) * 2)
    observations = observe(volume, GRID, true, DISC, BOX)
    axis = torch.nn.functional.normalize(torch.randn(COUNT, 3, generator=g), dim=1)
    off = exponential(axis * torch.deg2rad(torch.tensor(8.0))) @ true.rotation
    shift = true.shift + torch.nn.functional.normalize(torch.randn(COUNT, 2, generator=g), dim=1)
    return volume, observations, true, Poses(true.image, off, shift)


def test_perturbed_poses_come_back(setting):
    volume, observations, true, start = setting
    poses, misfit = refine_poses(volume, GRID, observations, start, steps=12, shift_sd=100.0)
    error = distance_deg(poses.rotation, true.rotation)
    assert float(error.median()) < 0.1
    assert float((error < 0.5).double().mean()) > 0.9
    assert float((poses.shift - true.shift).norm(dim=1).median()) < 0.02
    torch.testing.assert_close(poses.rotation @ poses.rotation.mT, torch.eye(3).expand(COUNT, 3, 3), rtol=0, atol=1e-5)
    own = (observations.weight * observations.images.abs() ** 2).sum(1).double()
    right = error < 0.5
    torch.testing.assert_close(misfit[right], -own[right], rtol=1e-2, atol=0)


def test_every_step_lowers_the_misfit_or_is_not_taken(setting):
    volume, observations, _, start = setting
    before = torch.full((COUNT,), torch.inf, dtype=torch.float64)
    for steps in range(5):
        poses, misfit = refine_poses(volume, GRID, observations, start, steps=steps, shift_sd=3.0)
        # Misfits with and without derivatives are summed in different order.
        assert (misfit <= before + 1e-6 * before.abs().clamp(max=1e9)).all()
        before = misfit
    _, again = refine_poses(volume, GRID, observations, poses, steps=0, shift_sd=3.0)
    torch.testing.assert_close(again, misfit, rtol=1e-5, atol=1e-2)


def test_no_steps_only_evaluate(setting):
    volume, observations, _, start = setting
    poses, misfit = refine_poses(volume, GRID, observations, start, steps=0, shift_sd=3.0)
    assert torch.equal(poses.rotation, start.rotation)
    assert torch.equal(poses.shift, start.shift)
    own = (observations.weight * observations.images.abs() ** 2).sum(1)
    assert (misfit > -own.double()).all()


def test_hypotheses_are_independent(setting):
    volume, observations, _, start = setting
    rows = torch.tensor([7, 7, 3, 0])
    some = Poses(rows, start.rotation[torch.tensor([7, 1, 3, 0])], start.shift[rows])
    together, _ = refine_poses(volume, GRID, observations, some, steps=4, shift_sd=3.0)
    for i in range(4):
        alone, _ = refine_poses(volume, GRID, observations, some.take(torch.tensor([i])), steps=4, shift_sd=3.0)
        torch.testing.assert_close(alone.rotation[0], together.rotation[i], rtol=0, atol=1e-4)
        torch.testing.assert_close(alone.shift[0], together.shift[i], rtol=0, atol=1e-3)
    assert torch.equal(together.image, rows)


def test_the_shift_prior_decides_where_the_images_say_nothing(setting):
    volume, observations, _, start = setting
    blank = observations._replace(images=torch.zeros_like(observations.images))
    poses, _ = refine_poses(volume * 1e-6, GRID, blank, start, steps=8, shift_sd=0.01)
    assert float(poses.shift.norm(dim=1).max()) < 0.02


def test_the_prior_is_a_gaussian_in_pixels():
    got = shift_penalty(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), 2.5)
    torch.testing.assert_close(got, torch.tensor([0.0, 2.0], dtype=torch.float64))


def test_a_tighter_prior_pulls_shifts_in(setting):
    volume, observations, true, _ = setting
    # Images faint enough that the prior matters: the balance point lies between nothing and the true shift.
    faint = observations._replace(weight=observations.weight * 1e-6)
    poses, _ = refine_poses(volume, GRID, faint, true, steps=8, shift_sd=0.5)
    assert float(poses.shift.norm(dim=1).mean()) < 0.8 * float(true.shift.norm(dim=1).mean())
    strong, _ = refine_poses(volume, GRID, observations, true, steps=8, shift_sd=0.5)
    torch.testing.assert_close(strong.shift, true.shift, rtol=0, atol=0.1)
