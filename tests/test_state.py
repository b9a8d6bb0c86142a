"""A state survives being taken apart: every bit, every layout, nothing shared that was not."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load, save

from cryospin.kernels.types import Poses
from cryospin.poses.modes import Modes
from cryospin.proposals.heads import HeadProposals
from cryospin.state import copied, placed, put_together, taken_apart


def through_files(state):
    """A state as it comes back from JSON and safetensors."""
    tree, tensors = taken_apart(state)
    return put_together(json.loads(json.dumps(tree)), load(save(tensors)))


def test_plain_values_and_tensors_come_back(generator):
    state = {
        "number": 3,
        "tiny": 5e-324,
        "third": 1 / 3,
        "nothing": None,
        "flag": True,
        "text": "Å",
        "empty": torch.empty(0, dtype=torch.long),
        "one": torch.tensor(2.5, dtype=torch.float64),
        "many": [{"x": torch.randn(3, 4, generator=generator)}, {"x": torch.randn(2, generator=generator) > 0}],
        "complex": torch.randn(3, 2, generator=generator, dtype=torch.complex64),
        "generator": generator.get_state(),
    }
    back = through_files(state)
    assert back.keys() == state.keys()
    for name in ("number", "tiny", "third", "nothing", "flag", "text"):
        assert back[name] == state[name]
    for name in ("empty", "one", "complex", "generator"):
        assert back[name].dtype == state[name].dtype
        assert torch.equal(back[name], state[name])
    assert torch.equal(back["many"][0]["x"], state["many"][0]["x"])
    assert torch.equal(back["many"][1]["x"], state["many"][1]["x"])


def test_what_is_not_a_number_stays_that(generator):
    assert math.isnan(through_files({"x": float("nan")})["x"])


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("kind", [torch.float32, torch.complex64])
def test_layout_in_memory_comes_back(generator, order, kind):
    value = torch.randn(3, 4, 5, generator=generator, dtype=kind).permute(order)
    back = through_files({"x": value})["x"]
    assert torch.equal(back, value)
    assert back.stride() == value.stride()


def test_views_and_shared_memory_come_back_apart(generator):
    whole = torch.randn(10, generator=generator)
    state = {"whole": whole, "part": whole[2:5], "same": whole, "rows": whole.view(5, 2)}
    back = through_files(state)
    for name, value in state.items():
        assert torch.equal(back[name], value)
    back["whole"].zero_()
    assert torch.equal(back["part"], whole[2:5])
    assert torch.equal(back["same"], whole)


def test_a_copy_is_not_touched_by_later_work(generator):
    state = {"a": [torch.ones(3)], "n": 1}
    kept = copied(state)
    state["a"][0].zero_()
    assert torch.equal(kept["a"][0], torch.ones(3))


def test_modes_come_back(generator):
    poses = Poses(torch.tensor([0, 1, 1]), torch.randn(3, 3, 3, generator=generator), torch.randn(3, 2, generator=generator))
    modes = Modes(poses, torch.tensor([1.0, 2.0, 1 / 3], dtype=torch.float64), torch.tensor([2, 0, 1]))
    back = Modes.restored(through_files(modes.state()))
    for ours, theirs in zip((*back.poses, back.misfit, back.source), (*poses, modes.misfit, modes.source), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_heads_go_on_learning_as_if_nothing_had_happened(problem):
    observations, winners = problem.observations, problem.poses
    heads = HeadProposals(3)
    assert through_files(heads.state()).keys() == {"trained", "frame"}, "the seed says the rest"
    for _ in range(2):
        heads.learn(observations, winners)
    other = HeadProposals(99)
    other.restore(through_files(heads.state()))
    for _ in range(2):
        heads.learn(observations, winners)
        other.learn(observations, winners)
    for mine, theirs in zip(heads.encoder.parameters(), other.encoder.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(heads.propose(observations).rotation, other.propose(observations).rotation)


def test_a_state_moves_to_a_device_but_for_its_random_numbers():
    drawn = torch.Generator().get_state()
    state = {"maps": [torch.ones(2), torch.zeros(2)], "panel": {"generator": drawn, "n": 3}}
    moved = placed(state, torch.device("meta"))
    assert {m.device.type for m in moved["maps"]} == {"meta"}
    assert moved["panel"] == {"generator": drawn, "n": 3}
