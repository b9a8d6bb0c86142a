from __future__ import annotations

import pytest
import torch

from cryospin.geometry.rotations import distance_deg, exponential, random_rotations
from cryospin.kernels.types import Poses
from cryospin.poses.adam import PoseTable, RowAdam


@pytest.mark.parametrize("betas", [(0.9, 0.9), (0.8, 0.99)])
def test_steps_of_the_rows_touched_are_those_of_adam_on_the_whole_table(generator, betas):
    table = torch.nn.Parameter(torch.zeros(6, 3))
    whole, own = torch.optim.Adam([table], lr=0.05, betas=betas), RowAdam(6, 3, 0.05, betas)
    for _ in range(12):
        rows = torch.randperm(6, generator=generator)[:2]
        gradient = torch.randn(2, 3, generator=generator)
        table.grad = torch.zeros(6, 3)
        table.grad[rows] = gradient
        before = table.detach().clone()
        whole.step()
        torch.testing.assert_close(own.step(rows, gradient), (table.detach() - before)[rows], rtol=1e-4, atol=1e-6)


def start(true, degrees, generator):
    axis = torch.nn.functional.normalize(torch.randn(len(true), 3, generator=generator), dim=1)
    return exponential(axis * torch.deg2rad(torch.tensor(degrees))) @ true


@pytest.mark.parametrize("degrees", [0.0, 20.0, 60.0])
def test_known_rotations_are_found(generator, degrees):
    true, rows = random_rotations(5, generator), torch.arange(5)
    shift = torch.randn(5, 2, generator=generator)
    table = PoseTable(Poses(rows, start(true, degrees, generator), torch.zeros(5, 2)), 0.05, 0.05)
    for _ in range(200):
        table.optimise(rows, 5, lambda r, t: ((r - true) ** 2).sum() + ((t - shift) ** 2).sum())
    assert float(distance_deg(table.rotation, true).max()) < 1
    torch.testing.assert_close(table.shift, shift, rtol=0, atol=0.02)
    torch.testing.assert_close(table.rotation @ table.rotation.mT, torch.eye(3).expand(5, 3, 3), rtol=0, atol=1e-5)


def test_the_first_step_turns_about_each_axis_by_the_rate_against_the_gradient(generator):
    true = random_rotations(1, generator)
    turn = exponential(torch.tensor([[0.3, -0.2, 0.25]]))
    table = PoseTable(Poses(torch.zeros(1).long(), turn @ true, torch.zeros(1, 2)), 0.05, 0.0)
    table.optimise(torch.tensor([0]), 1, lambda r, t: ((r - true) ** 2).sum())
    expected = exponential(torch.tensor([[-0.05, 0.05, -0.05]])) @ turn @ true
    torch.testing.assert_close(table.rotation, expected, rtol=0, atol=1e-5)


def test_only_the_rows_asked_for_move_and_shifts_stay_at_rate_0(generator):
    true = random_rotations(4, generator)
    begin = start(true, 20.0, generator)
    table = PoseTable(Poses(torch.arange(4), begin, torch.ones(4, 2)), 0.05, 0.0)
    rows = torch.tensor([1, 3])
    table.optimise(rows, 5, lambda r, t: ((r - true[rows]) ** 2).sum() + (t**2).sum())
    assert torch.equal(table.rotation[[0, 2]], begin[[0, 2]])
    assert float(distance_deg(table.rotation[rows], begin[rows]).min()) > 1
    assert torch.equal(table.shift, torch.ones(4, 2))
