"""A second opinion on a map that looks symmetric though no symmetry was imposed.

Poses found without symmetry may be bent: wrong by an angle that changes smoothly over the sphere of views, by which
neighbours agree with each other and the map with all of them. Refinement hardly straightens it. In a symmetric particle it
shows, since a bent map agrees with its turned self less than the particle does. So the poses are found again with the
symmetry imposed, then refined without it, and both sets of poses are held against maps that their images had no part in.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from cryospin.engine.compete import Competition, Standing
from cryospin.engine.half_sets import HalfSets
from cryospin.engine.impose import put_on_axes
from cryospin.engine.refine import Refinement
from cryospin.evaluation.alignment import move_map
from cryospin.evaluation.symmetry import Symmetry, describe, suspect
from cryospin.fourier import resample_map
from cryospin.geometry.symmetry import point_group
from cryospin.noise import weighted
from cryospin.packing import Packed
from cryospin.particles import ParticleSet
from cryospin.poses.gauss_newton import fits_of
from cryospin.results import Result
from cryospin.stages import COMPETITORS, LAST_ROUNDS, LAST_SHELL, STAGES, Compete, Refine, Stage, Work
from cryospin.state import State

_BOX = 2 * LAST_SHELL + 8
"""Voxels along a side of the map that is looked at: what the competition will see of it."""


class SecondOpinion:
    """Poses by way of a symmetry, and a verdict on them.

    first: the refinement without symmetry, finished
    group: the point group that is suspected
    inner: the stage that is at work on the second poses
    released: whether the symmetry was let go of
    verdict: the refinement whose poses are kept, once that is known
    """

    name = "second opinion"

    def __init__(
        self, first: Refine, group: str, inner: Stage, released: bool = False, verdict: Refine | None = None
    ) -> None:
        self.work, self.first, self.group = first.work, first, group
        self.inner, self.released, self.verdict = inner, released, verdict

    @classmethod
    def on(cls, first: Refine) -> SecondOpinion | None:
        """What a finished refinement gives cause for; None where nothing looks symmetric, or a symmetry was imposed."""
        problem, sets = first.work.problem, first.refinement.sets
        if len(problem.group) > 1:
            return None
        density = resample_map(sets.combined().cpu(), min(_BOX, problem.box))
        found = suspect(density)
        if found is None:
            return None
        first.work.journal.note(
            f"the map looks symmetric: {describe(found)}; its poses are found again with {found.name}, then without"
        )
        work = _imposing(first.work, found.name)
        standing = _symmetric_start(first, found, density)
        competition = Competition(work.problem, standing, first.panel.proposers)
        inner = Compete(work, first.panel, competition, [LAST_SHELL] * LAST_ROUNDS)
        inner.announce()
        return cls(first, found.name, inner)

    @property
    def finished(self) -> bool:
        """See `Stage.finished`."""
        return self.verdict is not None

    def announce(self) -> None:
        """See `Stage.announce`."""
        self.inner.announce()

    def step(self) -> Stage:
        """See `Stage.step`."""
        if not self.inner.finished:
            self.inner = self.inner.step()
            return self
        assert isinstance(self.inner, Refine), "no other stage is ever finished"
        if not self.released:
            self.inner, self.released = self._release(self.inner), True
            self.inner.announce()
        else:
            self.verdict = self._judge(self.inner)
        return self

    def result(self, particles: ParticleSet, packed: Packed) -> Result:
        """What the run comes to."""
        assert self.verdict is not None, "a verdict comes first"
        return self.verdict.result(particles, packed)

    def state(self) -> State:
        """See `Stage.state`."""
        return {
            "first": self.first.state(),
            "group": self.group,
            "inner_stage": self.inner.name,
            "inner": self.inner.state(),
            "released": self.released,
            "verdict": None if self.verdict is None else self.verdict is self.inner,
        }

    @classmethod
    def restored(cls, work: Work, state: State) -> SecondOpinion:
        """See `Stage.restored`."""
        first, group, released = Refine.restored(work, state["first"]), state["group"], state["released"]
        inner = STAGES[state["inner_stage"]].restored(work if released else _imposing(work, group), state["inner"])
        opinion = cls(first, group, inner, released)
        if state["verdict"] is not None:
            opinion.verdict = inner if state["verdict"] and isinstance(inner, Refine) else first
        return opinion

    def _release(self, imposed: Refine) -> Refine:
        """The same half-sets and poses without the symmetry."""
        end = imposed.refinement
        sets = HalfSets.restored(self.work.problem, end.sets.state())
        return Refine(self.work, imposed.panel, Refinement(sets, end.modes, end.limit, imposed.panel.proposers))

    def _judge(self, second: Refine) -> Refine:
        """The refinement whose images fit the other half's map better."""
        sets = self.first.refinement.sets
        limit = min(r.refinement.limit for r in (self.first, second))
        before, after = (_held_out_misfit(r.refinement, sets, limit) for r in (self.first, second))
        better = after < before
        self.work.journal.note(
            f"second opinion: misfit to the other half's map {after:.2f} nats by way of {self.group}, {before:.2f} without; "
            + ("the second poses are kept, and no symmetry is imposed on them" if better else "the first poses are kept")
        )
        return second if better else self.first


def _imposing(work: Work, name: str) -> Work:
    """The same work with a point group imposed throughout."""
    group = point_group(name).to(work.problem.device)
    return replace(work, problem=replace(work.problem, group=group, early_group=group))


def _symmetric_start(first: Refine, found: Symmetry, density: Tensor) -> Standing:
    """Where a competition with the symmetry begins: the map on its axes, averaged over the group."""
    problem, panel = first.work.problem, first.panel
    poses = first.refinement.modes.best().poses
    placed = put_on_axes(density, poses.to(density.device), problem, found)
    mates = [move_map(placed.density, mate, torch.zeros(3)) for mate in point_group(found.name)]
    competitors = problem.order(panel.generator)[:COMPETITORS].sort().values
    return Standing(competitors, torch.stack(mates).mean(0).to(problem.device), first.refinement.sets.noise)


def _held_out_misfit(refinement: Refinement, common: HalfSets, limit: int) -> float:
    """Mean misfit of the images to the map that the other half gives, nats; with contrast 1 and `common`'s noise.

    Each image has the pose it was given by its own half's map, so neither map nor pose was fitted to what is compared.
    """
    sets, best = refinement.sets, refinement.modes.best()
    observations = weighted(sets.problem.observations.up_to(limit), common.noise)
    total = 0.0
    for half in (0, 1):
        volume, grid = sets.volume(1 - half, limit)
        poses = best.poses.take(sets.members(half, best))
        misfit = fits_of(volume, grid, observations, poses).misfit(torch.ones(len(poses.image), device=volume.device))
        total += float(misfit.sum())
    return total / len(best)
