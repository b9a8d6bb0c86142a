"""New pose candidates for images, from whatever proposes them, brought to their optimum."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels.types import Observations, Poses
from cryospin.poses.gauss_newton import refine_poses
from cryospin.poses.modes import Modes, Thinning
from cryospin.proposals.grid import GridSearch
from cryospin.proposals.heads import HeadProposals
from cryospin.proposals.views import own_views, shared_views

_CHUNK = 1000
_STEPS = 3
_GRID_SHELL, _GRID_POSES = 9, 12
_THOROUGH_SHELL, _THOROUGH_POSES = 12, 100
"""The grid's frequency limit, and how many of its poses become candidates; the second where few images are searched for."""

_STEP_DEG = 15.0
_LEARN_BATCH, _LEARN_IMAGES = 100, 6000


class Proposer(Protocol):
    """What suggests poses; its candidates bear the names of their sources."""

    names: list[str]

    def propose(self, volume: Tensor, grid: FourierGrid, observations: Observations) -> tuple[Poses, Tensor]:
        """Candidates for each image, and which of `names` each came from."""

    def learn(self, observations: Observations, winners: Poses) -> None:
        """Take note of which pose won for each image."""


class GridProposer:
    """The best poses of a low-frequency grid over all rotations and shifts.

    thorough: for the few images whose poses are hard to find
    """

    def __init__(self, search: GridSearch, *, thorough: bool = False) -> None:
        self.search = search
        self.names = ["grid"]
        self.shell, self.poses = (_THOROUGH_SHELL, _THOROUGH_POSES) if thorough else (_GRID_SHELL, _GRID_POSES)

    def propose(self, volume: Tensor, grid: FourierGrid, observations: Observations) -> tuple[Poses, Tensor]:
        """See `Proposer.propose`."""
        poses = self.search.propose(volume, grid, observations.up_to(min(self.shell, grid.radius)), self.poses)
        return poses, torch.zeros_like(poses.image)

    def learn(self, observations: Observations, winners: Poses) -> None:
        """A grid has nothing to learn."""


class HeadProposer:
    """The heads' views of each image, and a few random ones, each at its best in-plane angle and shift.

    Random views keep alive what no head has guessed yet; a run that also has a grid needs none. The heads stay silent
    until they have learned something.
    """

    def __init__(self, heads: HeadProposals, search: GridSearch, *, random_views: int = 0) -> None:
        self.heads, self.search, self.random_views = heads, search, random_views
        self.names = [f"head {i + 1}" for i in range(heads.encoder.heads)] + (["random view"] if random_views else [])

    def propose(self, volume: Tensor, grid: FourierGrid, observations: Observations) -> tuple[Poses, Tensor]:
        """See `Proposer.propose`."""
        some = observations.up_to(min(_GRID_SHELL, grid.radius))
        shifts, prior = self.search.shifts(some)
        poses, source, count = [], [], self.heads.encoder.heads
        if self.heads.trained:
            guess = self.heads.propose(observations).rotation.unflatten(0, (-1, count))
            poses.append(own_views(volume, grid, some, guess, shifts, prior, _STEP_DEG))
            source.append(torch.arange(len(poses[0].image), device=volume.device) % count)
        if self.random_views:
            views = random_rotations(self.random_views, self.search.generator).to(volume.device)
            poses.append(shared_views(volume, grid, some, views, shifts, prior, _STEP_DEG))
            source.append(torch.full_like(poses[-1].image, count))
        if not poses:
            return _no_poses(volume.device), torch.empty(0, dtype=torch.long, device=volume.device)
        return Poses.join(poses), torch.cat(source)

    def learn(self, observations: Observations, winners: Poses) -> None:
        """One pass over the images, or over so many of them that it stays short."""
        order = torch.randperm(len(winners.image), generator=self.heads.generator)[:_LEARN_IMAGES]
        for rows in order.to(winners.image.device).split(_LEARN_BATCH):
            self.heads.learn(observations, winners.take(rows))


def _no_poses(device: torch.device) -> Poses:
    return Poses(torch.empty(0, dtype=torch.long), torch.empty(0, 3, 3), torch.empty(0, 2)).to(device)


def search(
    proposers: list[Proposer],
    volume: Tensor,
    grid: FourierGrid,
    observations: Observations,
    rows: Tensor,
    *,
    shift_sd: float,
    thinning: Thinning,
) -> Modes:
    """Candidates of every proposer for some images, optimised, as distinct modes.

    observations: up to the lattice's frequency limit or beyond: heads look at a band of their own
    rows: images to search for, int64 `(m,)`; the modes' `image` counts among all observations
    thinning: which candidates to keep
    returns: modes whose `source` counts the proposers' names one after another
    """
    counts = [0] + [len(p.names) for p in proposers[:-1]]
    offsets = [sum(counts[: i + 1]) for i in range(len(counts))]
    found = []
    for some in rows.split(_CHUNK):
        few = observations.take(some)
        for proposer, offset in zip(proposers, offsets, strict=True):
            poses, source = proposer.propose(volume, grid, few)
            if len(source) == 0:
                continue
            poses, misfit = refine_poses(volume, grid, few.up_to(grid.radius), poses, steps=_STEPS, shift_sd=shift_sd)
            poses = poses._replace(image=some[poses.image])
            found.append(Modes(poses, misfit, source + offset).distinct(thinning))
    return Modes.join(*found)


def source_names(proposers: list[Proposer]) -> list[str]:
    """What the modes' `source` counts: the proposers' names, then poses kept from before."""
    return [name for proposer in proposers for name in proposer.names] + ["kept"]
