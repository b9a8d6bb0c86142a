"""Rounds of competition from a map that is right, and from one that is not."""

from __future__ import annotations

import pytest
import torch

from cryospin.engine.candidates import GridProposer
from cryospin.engine.compete import Competition, Standing
from cryospin.engine.problem import Problem
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import distance_deg, random_rotations
from cryospin.kernels.types import Poses
from cryospin.proposals.grid import GridSearch

BOX, COUNT, SHELL = 24, 300, 8
NOISE = 0.8


@pytest.fixture(scope="module")
def setting(blobs, observe):
    """Noisy images of the blobs, and their map."""
    g = torch.Generator().manual_seed(8)
    density = blobs.density(BOX)
    grid, disc = FourierGrid(10), HalfDisc.build(10)
    true = Poses(torch.arange(COUNT), random_rotations(COUNT, g), torch.randn(COUNT, 2, generator=g) * 0.4)
    observations = observe(map_to_grid(density, grid), grid, true, disc, BOX, noise=NOISE)
    plain = observations._replace(weight=torch.ones_like(observations.weight))
    problem = Problem.pose(plain, 5.0, mask_diameter=0.84, group=torch.eye(3)[None], last_shell=10)
    return problem, density, true


def compete(problem, density, rounds=2):
    search = GridSearch(problem.shift_sd, problem.shift_limit, torch.Generator().manual_seed(1))
    competition = Competition(problem, Standing(torch.arange(COUNT), density, problem.total), [GridProposer(search)])
    return competition, [competition.round(SHELL) for _ in range(rounds)]


def test_from_the_right_map_every_pose_is_found_and_stays(setting):
    problem, density, true = setting
    competition, records = compete(problem, density)
    best = competition.standing.modes.best().poses
    assert torch.equal(best.image, torch.arange(COUNT))
    assert float(distance_deg(best.rotation, true.rotation).median()) < 4
    assert competition.moved < 0.05
    assert competition.margin > 0.8
    assert competition.spread < 1.2
    assert records[1].winners[-1] > 0.2 * COUNT, "poses that were found should often win again"
    assert records[1].pose_change_deg < 2
    assert records[0].pose_change_deg is None


def test_noise_is_told_from_what_the_poses_explain(setting):
    problem, density, _ = setting
    competition, _ = compete(problem, density, rounds=1)
    noise = competition.standing.noise[2 : SHELL + 1]
    assert float((noise / NOISE**2 - 1).abs().max()) < 0.25
    assert float(problem.total[2] / NOISE**2) > 1.5


def test_a_wrong_map_fits_worse_and_less_evenly(setting):
    problem, density, _ = setting
    wrong = density.transpose(0, 2).clone()
    wrong[: BOX // 2] = density[: BOX // 2]
    right, (first,) = compete(problem, density, rounds=1)
    bad, (other,) = compete(problem, wrong, rounds=1)
    assert other.loss > first.loss
    assert bad.spread > right.spread
