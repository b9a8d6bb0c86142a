"""Refinement: every image's pose and shift optimised directly while the volume sharpens.

The images are in two halves, fixed before, and each is compared with its own half's volume only. What the halves agree
on decides the frequency limit, the Wiener filter and when to stop.
"""

from __future__ import annotations

import math

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
from cryospin.poses.momentum import ahead
from cryospin.state import State

_STEPS = 2
_MODES = 4
_LOOK_AHEAD = 2
"""Shells beyond the half maps' FSC of 0.143 that poses are compared at."""

_MARGIN = 6
_GROWTH = 1.5
_RESCUE_PASSES, _WORTH_IT = (1, 3), 0.3
"""Early passes that search doubtful images anew. They are searched again when all else is at rest, and once more as long as
the misfit has fallen by so many nats an image at the next rest."""

_RESCUE_SHELL = 12
_SEARCH_AGAIN, _MOST_SEARCHED = 3.0, 0.15
"""Images whose contrast falls short by so many standard errors are searched again, but no more than this share of them."""

_STILL_DEG = 2.0
"""The refinement ends when poses turn, in the median, by less than this over the frequency limit in cycles per box."""

_STILL_FALLS = 0.001
"""Share by which the misfit has to fall in a pass to say that poses still get better."""

_USUAL = 20
"""Passes after which it goes on only as long as the misfit falls."""

_MOMENTUM = 0.8
"""Of the way an image's best pose went since the pass before, so much is added as long as the misfit falls at one limit: by
passes alone a bend that all poses share goes by 2 % a pass. Poses that nothing holds would drift on for ever by it."""


class Refinement:
    """Half-set refinement of all images.

    sets: the half-sets with their maps
    modes: hypotheses of every image
    carried: the same as they were inserted and are optimised from: each image's best pose goes on the way it went
    misfit: mean misfit of an image in the last pass, nats; rested: when all was at rest before
    searches: whether the next pass searches doubtful images anew
    grew: whether it has a higher frequency limit than the one before
    limit: first frequency limit, shells
    proposers: what suggests poses for images that have a doubtful one
    """

    stage = "refine"
    epochs = 60

    def __init__(self, sets: HalfSets, modes: Modes, limit: int, proposers: list[Proposer]) -> None:
        self.sets, self.modes, self.limit, self.proposers = sets, modes, limit, proposers
        self.names = source_names(proposers)
        self.carried = modes
        self.misfit = self.rested = torch.inf
        self.searches, self.grew = False, True
        self.done = 0
        self.finished = ""

    @property
    def epochs_left(self) -> int:
        """How many passes to expect."""
        return (_USUAL if self.done < _USUAL < self.epochs else self.epochs) - self.done

    @property
    def problem(self) -> Problem:
        """The images."""
        return self.sets.problem

    def state(self) -> State:
        """What a pass leaves to the next, but for what the proposers keep themselves."""
        return {
            "sets": self.sets.state(),
            "modes": self.modes.state(),
            "carried": self.carried.state(),
            "misfit": self.misfit,
            "rested": self.rested,
            "searches": self.searches,
            "grew": self.grew,
            "limit": self.limit,
            "done": self.done,
            "finished": self.finished,
        }

    @classmethod
    def restored(cls, problem: Problem, proposers: list[Proposer], state: State) -> Refinement:
        """The refinement whose state this is."""
        sets, modes = HalfSets.restored(problem, state["sets"]), Modes.restored(state["modes"])
        refinement = cls(sets, modes, state["limit"], proposers)
        refinement.carried = Modes.restored(state["carried"])
        refinement.misfit, refinement.rested = state["misfit"], state["rested"]
        refinement.searches, refinement.grew = state["searches"], state["grew"]
        refinement.done, refinement.finished = state["done"], state["finished"]
        return refinement

    def epoch(self) -> EpochRecord:
        """One pass over all images and an update of both half maps."""
        limit, before = self.limit, self.modes.best()
        observations = self.sets.observations(limit)
        self.modes = Modes.join(*(self._optimise(h, observations, limit) for h in (0, 1))).ranked()[0]
        best = self.modes.best()
        self.sets.measure(best, limit)
        change = float(distance_modulo_deg(best.poses.rotation, before.poses.rotation, self.problem.group).median())
        fell = self._fell(float(best.misfit.mean()))
        self.carried = self._carried(before) if fell > _STILL_FALLS else self.modes
        self.sets.update(self.carried, min(limit + _MARGIN, self.problem.last_shell))
        self._advance(change, fell)
        return EpochRecord(
            self.stage,
            self.problem.angstrom(limit),
            self.misfit,
            pose_change_deg=change,
            winners=torch.bincount(best.source, minlength=len(self.names)).tolist(),
            winner_names=self.names,
            resolution_A=self.problem.angstrom(self.sets.resolved_shell),
        )

    def _optimise(self, half: int, observations: Observations, limit: int) -> Modes:
        """Gauss-Newton on the modes of one half's images; doubtful images are searched anew where it is time."""
        volume, grid = self.sets.volume(half, limit)
        own = self.carried.take(self.sets.members(half, self.carried))
        poses, source = own.poses, torch.full_like(own.source, len(self.names) - 1)
        if self.searches and len(doubtful := self._doubtful(own.best().poses.image)):
            found = self._rescued(half, doubtful, limit)
            poses, source = Poses.join([poses, found.poses]), torch.cat([source, found.source])
        poses, misfit = refine_poses(volume, grid, observations, poses, steps=_STEPS, shift_sd=self.problem.shift_sd)
        return Modes(poses, misfit, source).distinct(Thinning.at(limit, _MODES, self.problem.group))

    def _fell(self, misfit: float) -> float:
        """Share by which the misfit fell since the pass before; not a number where that had another frequency limit."""
        before, self.misfit = self.misfit, misfit
        return math.nan if self.grew else (before - misfit) / max(abs(misfit), 1e-9)

    def _carried(self, before: Modes) -> Modes:
        """The modes, with each image's best pose beyond where it is by some of what it moved since `before`."""
        ranked, rank = self.modes.ranked()
        best, poses = (rank == 0).nonzero()[:, 0], ranked.poses
        onward = ahead(poses.take(best), before.poses, _MOMENTUM)
        rotation, shift = poses.rotation.index_copy(0, best, onward.rotation), poses.shift.index_copy(0, best, onward.shift)
        return ranked.with_poses(Poses(poses.image, rotation, shift), ranked.misfit)

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

    def _advance(self, change: float, fell: float) -> None:
        """Raise the frequency limit to what the halves support, and see whether the work is done.

        change: degrees by which poses turned in the median; fell: see `_fell`
        """
        supported = int(self.sets.resolved_shell) + _LOOK_AHEAD
        limit = max(self.limit, min(supported, int(_GROWTH * self.limit), self.problem.last_shell))
        self.done += 1
        rests = self._rests(change, fell) if limit == self.limit else ""
        self.searches = self.done in _RESCUE_PASSES or (bool(rests) and self.rested - self.misfit > _WORTH_IT)
        if self.done >= self.epochs:
            self.finished = f"the bound of {self.epochs} passes"
        elif rests and not self.searches:
            self.finished = rests
        self.rested = self.misfit if rests else self.rested
        self.limit, self.grew = limit, limit > self.limit

    def _rests(self, change: float, fell: float) -> str:
        """How it shows that all is at rest; nothing where it is not."""
        if self.done <= max(_RESCUE_PASSES):
            return ""
        if change < _STILL_DEG / self.limit:
            return f"poses turn by {change:.2f} degrees and the half maps support no higher frequency"
        if self.done >= _USUAL and fell < _STILL_FALLS:
            return f"{self.done} passes, and the misfit hardly falls any more"
        return ""
