"""Exploration by annealed stochastic EM: from nothing to a low-resolution map.

Each batch of images is spread over its posterior on a grid of all poses and inserted in a volume that slowly forgets.
The frequency limit rises and the posterior sharpens together, which lets the overall shape settle before details
can lock it in. The posterior is never made sharper than it is: overconfidence builds patchworks of
locally right domains.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.engine.problem import Problem
from cryospin.engine.record import EpochRecord
from cryospin.noise import residual_power, weighted
from cryospin.poses.gauss_newton import refine_poses
from cryospin.proposals.grid import GridSearch
from cryospin.state import State

_EPOCHS, _BATCHES = 6, 10
_FAINT_NATS, _PATIENCE = (25.0, 30.0), 6
"""Images that carry less information than the first at the last frequency limit take so many times the epochs, those that
carry more than the second none more: the fainter they are, the slower the volume grows."""

_RAMP = 0.8
"""The anneal ends at this fraction of the batches; the rest let the volume catch up."""

_PERPLEXITY = (500.0, 10.0)
_FIRST_NATS, _LAST_NATS = 5.0, 80.0
_FIRST_SHELLS, _LAST_SHELLS = (3, 8), (8, 9)
_BATCH = (300, 2000)
_BATCH_NATS = 30_000.0
"""Images in a batch carry about this much information at the last frequency limit."""

_MEMORY = 0.9
_NOISE_MEMORY = 0.8
_FIRST_IMAGES = 500


class GridExploration:
    """Annealed EM over a grid of poses."""

    stage = "explore"

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem = problem
        self.generator = torch.Generator().manual_seed(seed)
        self.search = GridSearch(problem.shift_sd, problem.shift_limit, self.generator)
        self.first = problem.shell_with(_FIRST_NATS, *_FIRST_SHELLS)
        self.last = problem.shell_with(_LAST_NATS, *_LAST_SHELLS)
        least, most = _BATCH
        nats = float(problem.information[self.last])
        self.batch = int(min(max(_BATCH_NATS / nats, least), most, len(problem)))
        self.epochs = _EPOCHS * _patience(nats)
        self.noise = problem.total.clone()
        self.queue = torch.empty(0, dtype=torch.long, device=problem.device)
        self.done = 0
        """Batches."""
        rows = self._next(min(_FIRST_IMAGES, len(problem)))
        self.volume = problem.volume_of_noise(rows, self.last, self.generator)

    @property
    def epochs_left(self) -> int:
        """Epochs to come."""
        return self.epochs - self.done // _BATCHES

    def state(self) -> State:
        """What an epoch leaves to the next."""
        return {
            "volume": self.volume.state(),
            "noise": self.noise,
            "queue": self.queue,
            "done": self.done,
            "generator": self.generator.get_state(),
        }

    def restore(self, state: State) -> None:
        """Go on from there."""
        self.volume.restore(state["volume"])
        self.noise, self.queue, self.done = state["noise"], state["queue"], state["done"]
        self.generator.set_state(state["generator"])

    def epoch(self) -> EpochRecord:
        """Ten batches."""
        loss = sum(self._batch() for _ in range(_BATCHES)) / _BATCHES
        return EpochRecord(self.stage, self.problem.angstrom(self._limit()[0]), loss)

    def map(self) -> Tensor:
        """The map as it stands."""
        return self.volume.solve(self.problem.signal, self.last)

    def _limit(self) -> tuple[int, float]:
        """Frequency limit and perplexity of the batch to come."""
        ramp = min(1.0, self.done / (_RAMP * self.epochs * _BATCHES))
        broad, narrow = _PERPLEXITY
        return round(self.first + (self.last - self.first) * ramp), broad * (narrow / broad) ** ramp

    def _batch(self) -> float:
        """One expectation and maximisation step; returns the mean misfit."""
        radius, perplexity = self._limit()
        rows = self._next(self.batch)
        some = weighted(self.problem.observations.up_to(radius).take(rows), self.noise)
        volume, grid = self.problem.masked_volume(self.volume.solve(self.problem.signal, radius), radius)
        found = self.search.expectation(volume, grid, some, perplexity)
        _, misfit = refine_poses(volume, grid, some, found.best, steps=0, shift_sd=self.problem.shift_sd)
        self.volume.fade(_MEMORY)
        self.volume.add_slices(found.rotations, some.disc, found.sums.numerator, found.sums.denominator)
        residual = residual_power(volume, grid, some, found.best)
        self.noise[:, : radius + 1] = _NOISE_MEMORY * self.noise[:, : radius + 1] + (1 - _NOISE_MEMORY) * residual
        self.done += 1
        return float(misfit.mean())

    def _next(self, count: int) -> Tensor:
        """The next images of an endless shuffled queue."""
        while len(self.queue) < count:
            self.queue = torch.cat([self.queue, self.problem.order(self.generator)])
        rows, self.queue = self.queue[:count], self.queue[count:]
        return rows.sort().values


def _patience(nats: float) -> int:
    """How many times the usual epochs are worth while for images of so much information."""
    faint, clear = _FAINT_NATS
    return 1 + round((_PATIENCE - 1) * min(max((clear - nats) / (clear - faint), 0.0), 1.0))
