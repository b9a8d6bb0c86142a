from __future__ import annotations

import pytest
import torch

from cryospin.preflight.estimate import estimate


@pytest.fixture
def steady(monkeypatch):
    """A machine as fast as the one the model was fitted on, with nothing else to do."""
    monkeypatch.setattr("cryospin.preflight.estimate._probe", lambda threads: 0.022 * 2 / threads)


def test_cost_is_positive_on_this_machine():
    cost = estimate(1000, 64, 1)
    assert cost.seconds > 0
    assert cost.memory_gib > 0
    assert cost.threads == 1
    assert cost.available_gib is None or cost.available_gib > 0


@pytest.mark.parametrize(("few", "more"), [((1000, 64), (2000, 64)), ((1000, 64), (1000, 96)), ((100, 16), (100, 18))])
@pytest.mark.usefixtures("steady")
def test_cost_grows_with_the_set_and_with_the_box(few, more):
    a, b = estimate(*few, 2), estimate(*more, 2)
    assert b.seconds > a.seconds
    assert b.memory_gib > a.memory_gib


def test_a_slower_machine_takes_longer_for_the_same_memory(monkeypatch):
    costs = []
    for seconds in (0.022, 0.044):
        monkeypatch.setattr("cryospin.preflight.estimate._probe", lambda threads, seconds=seconds: seconds)
        costs.append(estimate(5000, 64, 2))
    fast, slow = costs
    assert slow.seconds == pytest.approx(2 * fast.seconds)
    assert slow.memory_gib == fast.memory_gib


@pytest.mark.usefixtures("steady")
def test_figures_are_of_the_order_that_runs_take():
    cost = estimate(5000, 128, 2)
    assert 60 < cost.seconds < 600
    assert 1 < cost.memory_gib < 10


def test_the_number_of_threads_stays_what_it_was():
    before = torch.get_num_threads()
    estimate(100, 16, before + 1)
    assert torch.get_num_threads() == before
