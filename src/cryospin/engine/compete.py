"""Competition: several poses of every image against each other until one wins.

In each round new candidates (from a grid, from the heads, or both) meet the modes an image already has; Gauss-Newton
brings each to its optimum, near-equal ones merge and hopeless ones go. Then a few passes of soft EM let the
volume follow. Frequencies rise from round to round, so modes that low frequencies cannot tell apart (a pseudo-symmetry)
stay alive until one frequency can.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryospin.engine.candidates import Proposer, search, source_names
from cryospin.engine.problem import Problem
from cryospin.engine.record import EpochRecord
from cryospin.fourier import FourierGrid
from cryospin.geometry.symmetry import distance_modulo_deg
from cryospin.kernels.types import Observations, Poses
from cryospin.noise import residual_power, weighted
from cryospin.poses.gauss_newton import fits_of, refine_poses
from cryospin.poses.modes import Modes, Thinning
from cryospin.poses.momentum import ahead
from cryospin.state import State
from cryospin.volume.accumulated import AccumulatedVolume

_LEAST_PASSES, _MOST_PASSES = 4, 30
_MOMENTUM = 0.9
_AT_REST = 0.02
"""Nats an image by which the misfit must fall in four passes for more to follow."""

_STEPS = 2
_CLEAR_LEAD = 3.0
_FIGURES = ("margin", "moved", "spread", "misfit", "radius", "rounds", "fell")


@dataclass
class Standing:
    """Where a competition stands.

    images: rows of the problem that take part
    density: the map
    noise: power of each noise group in each shell
    modes: the images' hypotheses, their `image` counted among `images`; None before the first round
    """

    images: Tensor
    density: Tensor
    noise: Tensor
    modes: Modes | None = None

    @classmethod
    def restored(cls, state: State) -> Standing:
        """The standing whose state this is."""
        modes = None if state["modes"] is None else Modes.restored(state["modes"])
        return cls(state["images"], state["density"], state["noise"], modes)

    def state(self) -> State:
        """Everything, by name."""
        return {
            "images": self.images,
            "density": self.density,
            "noise": self.noise,
            "modes": None if self.modes is None else self.modes.state(),
        }


class Competition:
    """Rounds of candidates against each other.

    standing: from the exploration; updated by each round
    proposers: what suggests candidates

    After a round:
    rounds: how many were held at the frequency limit of the last one
    fell: nats by which the mean misfit of an image fell in the last of them; 0 after the first
    moved: share of the images whose best pose turned by more than the frequency limit can tell
    margin: share of the images whose best mode leads the second by 3 nats
    spread: how much the images' contrasts vary, over how much noise alone would make them; near 1 when the map is right,
        more when it is wrong, since a wrong map fits some views better than others
    """

    stage = "compete"

    def __init__(self, problem: Problem, standing: Standing, proposers: list[Proposer]) -> None:
        self.problem, self.standing, self.proposers = problem, standing, proposers
        self.names = source_names(proposers)
        self.margin = self.moved = self.spread = self.misfit = float("nan")
        self.radius, self.rounds, self.fell = 0, 0, 0.0

    def state(self) -> State:
        """What a round leaves to the next, but for what the proposers keep themselves."""
        return {"standing": self.standing.state()} | {name: getattr(self, name) for name in _FIGURES}

    @classmethod
    def restored(cls, problem: Problem, proposers: list[Proposer], state: State) -> Competition:
        """The competition whose state this is."""
        competition = cls(problem, Standing.restored(state["standing"]), proposers)
        for name in _FIGURES:
            setattr(competition, name, state[name])
        return competition

    def round(self, radius: int) -> EpochRecord:
        """New candidates at a frequency limit, then soft EM."""
        radius = min(radius, self.problem.last_shell)
        everything = self.problem.seen(radius).take(self.standing.images)
        observations = everything.up_to(radius)
        before = self.standing.modes.best() if self.standing.modes is not None else None
        modes = self._candidates(everything, radius)
        modes = self._follow(observations, modes, radius)
        self.standing.modes = modes
        best = modes.best()
        seen = weighted(everything, self.standing.noise)
        for proposer in self.proposers:
            proposer.learn(seen, best.poses)
        seen = seen.up_to(radius)
        change = (
            distance_modulo_deg(best.poses.rotation, before.poses.rotation, self.problem.early_group)
            if before is not None
            else None
        )
        self._judge(modes, change, radius)
        self._count(radius, float(best.misfit.mean()))
        self.spread = self._contrast_spread(seen, best.poses, radius)
        return EpochRecord(
            self.stage,
            self.problem.angstrom(radius),
            self.misfit,
            pose_change_deg=float(change.median()) if change is not None else None,
            winners=torch.bincount(best.source, minlength=len(self.names)).tolist(),
            winner_names=self.names,
        )

    def _candidates(self, observations: Observations, radius: int) -> Modes:
        """New and kept hypotheses, each at its optimum, as distinct modes."""
        problem = self.problem
        some = weighted(observations, self.standing.noise)
        volume, grid = problem.masked_volume(self.standing.density, radius)
        parts = []
        if self.standing.modes is not None:
            kept = self.standing.modes
            seen = some.up_to(radius)
            poses, misfit = refine_poses(volume, grid, seen, kept.poses, steps=_STEPS, shift_sd=problem.shift_sd)
            parts.append(Modes(poses, misfit, torch.full_like(kept.source, len(self.names) - 1)))
        everyone = torch.arange(len(some.images), device=volume.device)
        thinning = Thinning.at(radius, group=problem.early_group)
        parts.append(search(self.proposers, volume, grid, some, everyone, shift_sd=problem.shift_sd, thinning=thinning))
        return Modes.join(*parts).distinct(thinning)

    def _follow(self, observations: Observations, modes: Modes, radius: int) -> Modes:
        """Soft EM: the volume, the noise and the modes in turn, with momentum, until the misfit hardly falls any more."""
        misfits: list[float] = []
        volume, grid = self._average(weighted(observations, self.standing.noise), modes, modes)
        inserted = modes
        while len(misfits) < _MOST_PASSES and not _at_rest(misfits):
            some = weighted(observations, self.standing.noise)
            poses, misfit = refine_poses(volume, grid, some, inserted.poses, steps=_STEPS, shift_sd=self.problem.shift_sd)
            moved = modes.with_poses(poses, misfit)
            # What poses do in the first pass is to suit a new map.
            goes_on = ahead(poses, modes.poses, _MOMENTUM) if misfits else poses
            modes, inserted = moved, moved.with_poses(goes_on, misfit)
            misfits.append(float(modes.best().misfit.mean()))
            volume, grid = self._average(some, inserted, modes)
        return modes.distinct(Thinning.at(radius, group=self.problem.early_group))

    def _average(self, some: Observations, inserted: Modes, modes: Modes) -> tuple[Tensor, FourierGrid]:
        """The map of weighted images at some poses, and the noise that it leaves at others; returns the map's lattice."""
        radius = some.disc.radius
        accumulated = AccumulatedVolume(FourierGrid(radius), self.problem.early_group)
        accumulated.add(some, inserted.poses, inserted.responsibilities())
        self.standing.density = accumulated.solve(self.problem.signal, radius)
        volume, grid = self.problem.masked_volume(self.standing.density, radius)
        residual = residual_power(volume, grid, some, modes.best().poses)
        self.standing.noise = torch.cat([residual, self.problem.noise[:, radius + 1 :]], dim=1)
        return volume, grid

    def _judge(self, modes: Modes, change: Tensor | None, radius: int) -> None:
        """How many images still change their mind, and how many have one mode that clearly leads."""
        ranked, rank = modes.ranked()
        lead = modes.misfit.new_full((len(self.standing.images),), torch.inf)
        second = rank == 1
        first = ranked.best().misfit
        lead[ranked.poses.image[second]] = ranked.misfit[second] - first[ranked.poses.image[second]]
        self.margin = float((lead > _CLEAR_LEAD).double().mean())
        self.moved = float("nan") if change is None else float((change > math.degrees(1 / radius)).double().mean())

    def _count(self, radius: int, misfit: float) -> None:
        """One more round, and what it gained."""
        again = radius == self.radius
        self.rounds, self.fell = (self.rounds + 1, self.misfit - misfit) if again else (1, 0.0)
        self.radius, self.misfit = radius, misfit

    def _contrast_spread(self, observations: Observations, poses: Poses, radius: int) -> float:
        """Robust standard deviation of the contrasts in units of their standard error."""
        volume, grid = self.problem.masked_volume(self.standing.density, radius)
        return float(fits_of(volume, grid, observations, poses).contrast_spread())


def _at_rest(misfits: list[float]) -> bool:
    """Whether the mean misfit of pass after pass has come to rest."""
    if len(misfits) <= _LEAST_PASSES:
        return False
    return min(misfits[:-_LEAST_PASSES]) - min(misfits[-_LEAST_PASSES:]) < _AT_REST
