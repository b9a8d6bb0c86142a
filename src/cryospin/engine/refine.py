"""Refinement: every image's pose and shift optimised directly while the volume sharpens.

The images are in two halves, fixed before, and each is compared with its own half's volume only. What the halves agree
on decides the frequency limit, the Wiener filter and when to stop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.engine.candidates import Proposer, search, source_names
from cryospin.engine.half_sets import HalfSets
from cryospin.engine.problem import Problem
from cryospin.engine.record import EpochRecord
from cryospin.geometry.symmetry import distance_modulo_deg
from cryospin.kernels.types import Observations, Poses
from cryospin.poses.gauss_newton import refine_poses
from cryospin.poses.modes import Modes, Thinning
from cryospin.state import State

_STEPS = 2
_MODES = 4
_LOOK_AHEAD = 2
"""Shells beyond the half maps' FSC of 0.143 that poses are compared at."""

_MARGIN = 6
_GROWTH = 1.5
_RESCUE_PASSES = (1, 3)
_RESCUE_SHELL = 12
_SEARCH_AGAIN, _MOST_SEARCHED = 3.0, 0.15
"""Images whose contrast falls short by so many standard errors are searched again, but no more than this share of them."""

_STILL_DEG = 2.0
"""The refinement ends when poses turn, in the median, by less than this over the frequency limit in cycles per box."""


class Refinement:
    """Half-set refinement of all images.

    sets: the half-sets with their maps
    modes: hypotheses of every image
    limit: first frequency limit, shells
    proposers: what suggests poses for images that have a doubtful one
    """

    stage = "refine"
    epochs = 20

    def __init__(self, sets: HalfSets, modes: Modes, limit: int, proposers: list[Proposer]) -> None:
        self.sets, self.modes, self.limit, self.proposers = sets, modes, limit, proposers
        self.names = source_names(proposers)
        self.done = 0
        self.finished = ""

    @property
    def problem(self) -> Problem:
        """The images."""
        return self.sets.problem

    def state(self) -> State:
        """What a pass leaves to the next, but for what the proposers keep themselves."""
        return {
            "sets": self.sets.state(),
            "modes": self.modes.state(),
            "limit": self.limit,
            "done": self.done,
            "finished": self.finished,
        }

    @classmethod
    def restored(cls, problem: Problem, proposers: list[Proposer], state: State) -> Refinement:
        """The refinement whose state this is."""
        sets, modes = HalfSets.restored(problem, state["sets"]), Modes.restored(state["modes"])
        refinement = cls(sets, modes, state["limit"], proposers)
        refinement.done, refinement.finished = state["done"], state["finished"]
        return refinement

    def epoch(self) -> EpochRecord:
        """One pass over all images and an update of both half maps."""
        limit, before = self.limit, self.modes.best()
        observations = self.sets.observations(limit)
        self.modes = Modes.join(*(self._optimise(h, observations, limit) for h in (0, 1))).ranked()[0]
        best = self.modes.best()
        self.sets.measure(best, limit)
        self.sets.update(self.modes, min(limit + _MARGIN, self.problem.last_shell))
        change = float(distance_modulo_deg(best.poses.rotation, before.poses.rotation, self.problem.group).median())
        self._advance(change)
        return EpochRecord(
            self.stage,
            self.problem.angstrom(limit),
            float(best.misfit.mean()),
            pose_change_deg=change,
            winners=torch.bincount(best.source, minlength=len(self.names)).tolist(),
            winner_names=self.names,
            resolution_A=self.problem.angstrom(self.sets.resolved_shell),
        )

    def _optimise(self, half: int, observations: Observations, limit: int) -> Modes:
        """Gauss-Newton on the modes of one half's images; doubtful images are searched anew."""
        volume, grid = self.sets.volume(half, limit)
        own = self.modes.take(self.sets.members(half, self.modes))
        poses, source = own.poses, torch.full_like(own.source, len(self.names) - 1)
        rescues = self.done in _RESCUE_PASSES
        if rescues and len(doubtful := self._doubtful(own.best().poses.image)):
            found = self._rescued(half, doubtful, limit)
            poses, source = Poses.join([poses, found.poses]), torch.cat([source, found.source])
        poses, misfit = refine_poses(volume, grid, observations, poses, steps=_STEPS, shift_sd=self.problem.shift_sd)
        return Modes(poses, misfit, source).distinct(Thinning.at(limit, _MODES, self.problem.group))

    def _doubtful(self, images: Tensor) -> Tensor:
        """Which of some images hardly resemble the volume at the pose they have."""
        shortfall = self.sets.shortfall[images]
        worst = shortfall.argsort(descending=True)[: int(_MOST_SEARCHED * len(images))]
        return images[worst[shortfall[worst] > _SEARCH_AGAIN]].sort().values

    def _rescued(self, half: int, images: Tensor, limit: int) -> Modes:
        """New candidates for some images, at a frequency limit that a search from nothing can bear."""
        shell = min(_RESCUE_SHELL, limit)
        volume, grid = self.sets.volume(half, shell)
        return search(
            self.proposers,
            volume,
            grid,
            self.sets.observations(shell),
            images,
            shift_sd=self.problem.shift_sd,
            thinning=Thinning.at(shell, group=self.problem.group),
        )

    def _advance(self, change: float) -> None:
        """Raise the frequency limit to what the halves support, and see whether the work is done."""
        supported = int(self.sets.resolved_shell) + _LOOK_AHEAD
        limit = max(self.limit, min(supported, int(_GROWTH * self.limit), self.problem.last_shell))
        self.done += 1
        if limit == self.limit and change < _STILL_DEG / limit and self.done > max(_RESCUE_PASSES):
            self.finished = f"poses turn by {change:.2f} degrees and the half maps support no higher frequency"
        elif self.done >= self.epochs:
            self.finished = f"the bound of {self.epochs} passes"
        self.limit = limit
