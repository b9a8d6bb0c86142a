"""Exploration by the heads alone: several poses guessed for each image, and the encoder learns from what won.

Beside the heads' views a few random ones compete, or views nobody guesses would never be tried. All candidates
enter the volume with their posterior weight, which sharpens from epoch to epoch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryospin.engine.candidates import HeadProposer
from cryospin.engine.problem import Problem
from cryospin.engine.record import EpochRecord
from cryospin.noise import residual_power, weighted
from cryospin.poses.gauss_newton import refine_poses
from cryospin.poses.modes import Modes
from cryospin.state import State

_EPOCHS = 16
_BATCH, _IMAGES = 250, 3000
_FIRST_IMAGES = 500
_SHELLS = (3, 9)
_RAMP = 0.8
_PERPLEXITY = (32.0, 2.0)
_RANDOM_VIEWS = (40, 16)
_STEPS = 2
_MEMORY, _NOISE_MEMORY = 0.9, 0.8


class HeadExploration:
    """Auto-encoding with candidates refined in the loop."""

    stage = "explore"

    def __init__(self, problem: Problem, proposer: HeadProposer, seed: int) -> None:
        self.problem, self.proposer = problem, proposer
        self.generator = torch.Generator().manual_seed(seed)
        self.first, self.last = (min(r, problem.last_shell) for r in _SHELLS)
        self.noise = problem.total.clone()
        self.names = proposer.names
        self.done = 0
        rows = problem.order(self.generator)[:_FIRST_IMAGES].sort().values
        self.volume = problem.volume_of_noise(rows, self.last, self.generator)

    @property
    def epochs_left(self) -> int:
        """Epochs to come."""
        return _EPOCHS - self.done

    def state(self) -> State:
        """What an epoch leaves to the next, but for what the heads keep themselves."""
        return {
            "volume": self.volume.state(),
            "noise": self.noise,
            "done": self.done,
            "generator": self.generator.get_state(),
        }

    def restore(self, state: State) -> None:
        """Go on from there."""
        self.volume.restore(state["volume"])
        self.noise, self.done = state["noise"], state["done"]
        self.generator.set_state(state["generator"])

    def epoch(self) -> EpochRecord:
        """Each image once, up to a bound."""
        rows = self.problem.order(self.generator)[:_IMAGES]
        wins, loss = torch.zeros(len(self.names), dtype=torch.long, device=rows.device), 0.0
        batches = rows.split(_BATCH)
        for k, batch in enumerate(batches):
            progress = (self.done + k / len(batches)) / (_RAMP * _EPOCHS)
            best = self._batch(batch.sort().values, min(1.0, progress))
            wins += torch.bincount(best.source, minlength=len(self.names))
            loss += float(best.misfit.mean()) / len(batches)
        self.done += 1
        return EpochRecord(
            self.stage,
            self.problem.angstrom(self._limit(min(1.0, progress))),
            loss,
            winners=wins.tolist(),
            winner_names=self.names,
        )

    def map(self) -> Tensor:
        """The map as it stands."""
        return self.volume.solve(self.problem.signal, self.last)

    def _limit(self, progress: float) -> int:
        return round(self.first + (self.last - self.first) * progress)

    def _batch(self, rows: Tensor, progress: float) -> Modes:
        """Candidates compete, the volume follows, the heads learn; returns the winners."""
        problem, radius = self.problem, self._limit(progress)
        everything = problem.seen(radius).take(rows)
        seen = weighted(everything, self.noise)
        some = seen.up_to(radius)
        volume, grid = problem.masked_volume(self.volume.solve(problem.signal, radius), radius)
        self.proposer.random_views = round(_between(_RANDOM_VIEWS, progress))
        poses, source = self.proposer.propose(volume, grid, seen)
        poses, misfit = refine_poses(volume, grid, some, poses, steps=_STEPS, shift_sd=problem.shift_sd)
        modes = Modes(poses, misfit, source)
        best = modes.best()
        share = modes.responsibilities(_sharpness(modes, math.log(_between(_PERPLEXITY, progress))))
        worth = share > 1e-3
        self.volume.fade(_MEMORY)
        self.volume.add(some, modes.poses.take(worth), share[worth])
        residual = residual_power(volume, grid, some, best.poses)
        self.noise[:, : radius + 1] = _NOISE_MEMORY * self.noise[:, : radius + 1] + (1 - _NOISE_MEMORY) * residual
        self.proposer.heads.learn(seen, best.poses)
        return best


def _between(ends: tuple[float, float], progress: float) -> float:
    """Geometric interpolation."""
    return ends[0] * (ends[1] / ends[0]) ** progress


def _sharpness(modes: Modes, entropy: float) -> float:
    """The power, at most 1, at which the images' posteriors have a mean entropy (nats) of at least `entropy`."""
    image = modes.poses.image

    def mean_entropy(power: float) -> float:
        p = modes.responsibilities(power).double()
        return float(-(p * p.clamp_min(1e-30).log()).sum()) / (int(image.max()) + 1)

    low, high = 0.0, 1.0
    if mean_entropy(high) >= entropy:
        return high
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_entropy(middle) >= entropy else (low, middle)
    return low
