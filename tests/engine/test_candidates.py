"""Proposers, and the search that brings their candidates to the optimum."""

from __future__ import annotations

import pytest
import torch

from cryospin.engine.candidates import GridProposer, HeadProposer, search, source_names
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import distance_deg, random_rotations
from cryospin.kernels.types import Poses
from cryospin.poses.modes import Thinning
from cryospin.proposals.grid import GridSearch
from cryospin.proposals.heads import HeadProposals

BOX, COUNT = 24, 8
GRID, DISC = FourierGrid(9), HalfDisc.build(9)


@pytest.fixture(scope="module")
def setting(blobs, observe):
    """A volume and clear images of it."""
    g = torch.Generator().manual_seed(3)
    volume = map_to_grid(blobs.density(BOX), GRID)
    true = Poses(torch.arange(COUNT), random_rotations(COUNT, g), torch.randn(COUNT, 2, generator=g) * 0.5)
    return volume, observe(volume, GRID, true, DISC, BOX, noise=0.5), true


def grid_search():
    return GridSearch(shift_sd=1.0, shift_limit=2.0, generator=torch.Generator().manual_seed(1))


def found(setting, proposers, rows):
    volume, observations, _ = setting
    return search(proposers, volume, GRID, observations, rows, shift_sd=1.0, thinning=Thinning.at(9))


def test_the_grid_and_a_few_steps_find_every_pose(setting):
    modes = found(setting, [GridProposer(grid_search())], torch.arange(COUNT)).best()
    true = setting[2]
    assert float(distance_deg(modes.poses.rotation, true.rotation).max()) < 4
    assert float((modes.poses.shift - true.shift).norm(dim=1).max()) < 0.3


def test_rows_that_were_asked_for_come_back_under_their_own_numbers(setting):
    rows = torch.tensor([5, 2])
    modes = found(setting, [GridProposer(grid_search())], rows).best()
    assert sorted(modes.poses.image.tolist()) == [2, 5]
    assert float(distance_deg(modes.poses.rotation, setting[2].rotation[modes.poses.image]).max()) < 4


def test_heads_are_silent_until_they_have_learned(setting):
    volume, observations, true = setting
    heads = HeadProposals(seed=0, heads=3)
    proposer = HeadProposer(heads, grid_search())
    poses, source = proposer.propose(volume, GRID, observations)
    assert len(poses.image) == len(source) == 0
    proposer.learn(observations, true)
    poses, source = proposer.propose(volume, GRID, observations)
    assert torch.equal(poses.image, torch.arange(COUNT).repeat_interleave(3))
    assert torch.equal(source, torch.arange(3).repeat(COUNT))


def test_random_views_speak_from_the_start(setting):
    volume, observations, _ = setting
    proposer = HeadProposer(HeadProposals(seed=0, heads=3), grid_search(), random_views=6)
    assert proposer.names == ["head 1", "head 2", "head 3", "random view"]
    poses, source = proposer.propose(volume, GRID, observations)
    assert torch.equal(poses.image, torch.arange(COUNT).repeat_interleave(6))
    assert (source == 3).all()


def test_sources_of_several_proposers_are_counted_one_after_another(setting):
    _, observations, true = setting
    heads = HeadProposer(HeadProposals(seed=0, heads=2), grid_search())
    proposers = [GridProposer(grid_search()), heads]
    assert source_names(proposers) == ["grid", "head 1", "head 2", "kept"]
    assert set(found(setting, proposers, torch.arange(COUNT)).source.tolist()) == {0}
    heads.learn(observations, true)
    assert set(found(setting, [heads, proposers[0]], torch.arange(COUNT)).source.tolist()) <= {0, 1, 2}
    assert 2 in found(setting, [heads, proposers[0]], torch.arange(COUNT)).source
