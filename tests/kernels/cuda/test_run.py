"""Exploration and refinement of a few images with the Triton kernels behind the dispatch, step by step as on the CPU."""

from __future__ import annotations

import pytest
import torch

from cryospin.engine.explore_grid import GridExploration
from cryospin.engine.half_sets import HalfSets
from cryospin.engine.problem import Problem
from cryospin.engine.refine import Refinement
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import distance_deg, random_rotations, turn
from cryospin.kernels import cpu, dispatch
from cryospin.kernels.types import Poses
from cryospin.poses.modes import Modes

pytest.importorskip("triton", reason="Triton is not installed")
from cryospin.kernels import cuda

# In the interpreter, a program takes milliseconds.
pytestmark = pytest.mark.slow
BOX, RADIUS, COUNT = 20, 8, 60


@pytest.fixture
def images(blobs, observe):
    """The blobs at known poses, as a problem, with the poses and the map."""
    g = torch.Generator().manual_seed(6)
    grid, disc = FourierGrid(RADIUS), HalfDisc.build(RADIUS)
    true = Poses(torch.arange(COUNT), random_rotations(COUNT, g), torch.randn(COUNT, 2, generator=g) * 0.5)
    density = blobs.density(BOX) / blobs.density(BOX).std()
    return observe(map_to_grid(density, grid), grid, true, disc, BOX, noise=0.3), true, density


def on(observations):
    return Problem.pose(observations, 6.0, mask_diameter=0.9, group=torch.eye(3)[None], last_shell=RADIUS)


@pytest.fixture
def with_each(monkeypatch, device):
    """Call something with the CPU's kernels and with Triton's, wherever the tensors are."""

    def call(work, observations):
        results = []
        for kernels, where in ((cpu, torch.device("cpu")), (cuda, device)):
            monkeypatch.setattr(dispatch, "kernels_for", lambda _, chosen=kernels: chosen)
            results.append(work(on(observations.to(where))))
        return results

    return call


def test_exploration(images, with_each, monkeypatch):
    # A coarse grid keeps the programs few.
    monkeypatch.setattr("cryospin.proposals.grid._FINEST_STEP_DEG", 50.0)
    monkeypatch.setattr("cryospin.engine.explore_grid._BATCHES", 2)

    def explore(problem):
        exploration = GridExploration(problem, seed=1)
        return exploration.epoch().loss, exploration.map().cpu(), exploration.noise.cpu()

    near, far = with_each(explore, images[0])
    assert far[0] == pytest.approx(near[0], rel=1e-3)
    torch.testing.assert_close(far[1], near[1], rtol=0, atol=1e-2 * float(near[1].abs().max()))
    torch.testing.assert_close(far[2], near[2], rtol=1e-2, atol=0)


def test_refinement(images, with_each):
    observations, true, density = images
    g = torch.Generator().manual_seed(7)
    start = turn(true.rotation, 0.06 * torch.randn(COUNT, 3, generator=g))

    def refine(problem):
        poses = Poses(true.image, start, true.shift * 0).to(problem.device)
        modes = Modes(poses, torch.zeros(COUNT, dtype=torch.float64, device=problem.device), poses.image * 0)
        half = problem.order(torch.Generator().manual_seed(2)) % 2
        sets = HalfSets(problem, half, problem.noise, density.to(problem.device))
        refinement = Refinement(sets, modes, RADIUS - 1, [])
        refinement.epoch()
        best = refinement.modes.best().poses.to(torch.device("cpu"))
        return best, sets.maps[0].cpu()

    near, far = with_each(refine, observations)
    before = distance_deg(start, true.rotation).median()
    assert distance_deg(far[0].rotation, true.rotation).median() < 0.5 * before
    assert distance_deg(far[0].rotation, near[0].rotation).max() < 0.1
    torch.testing.assert_close(far[1], near[1], rtol=0, atol=1e-2 * float(near[1].abs().max()))
