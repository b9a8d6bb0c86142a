"""A second opinion on a map that looks symmetric though no symmetry was imposed.

Poses found without symmetry may be bent: wrong by an angle that changes smoothly over the sphere of views, by which
neighbours agree with each other and the map with all of them. Refinement hardly straightens it. In a symmetric particle it
shows, since a bent map agrees with its turned self less than the particle does. So the poses are found again with the
symmetry imposed, then refined without it, and both sets of poses are held against maps that their images had no part in.
A map bent so much that only a part of its symmetry shows is looked at again afterwards, for the whole.

A map that is not bent, and one that the second poses do not suit better, keep their first poses. Since each may have been
mistaken for one of its mates, an image's mates then compete with it, in a map that the images whose mind is clear decide.
Where the half maps do not agree on them, all images take sides anew (see `engine.mates`). Where the half maps hold nothing
more that is unsymmetric even so, the particle is symmetric as far as the images tell, and mates count as one pose.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor

from cryospin.engine.compete import Standing
from cryospin.engine.half_sets import HalfSets
from cryospin.engine.held_out import agreement
from cryospin.engine.impose import averaged
from cryospin.engine.mates import as_before, asymmetry, mate_of, take_sides, wide_outline
from cryospin.engine.refine import Refinement
from cryospin.fourier import same_transform
from cryospin.geometry.symmetry import point_group
from cryospin.maps.point_groups import describe, suspects
from cryospin.noise import weighted
from cryospin.packing import Packed
from cryospin.particles import ParticleSet
from cryospin.poses.gauss_newton import fits_of
from cryospin.poses.modes import Modes, Thinning
from cryospin.results import Result
from cryospin.stage import Stage, Work
from cryospin.stages import COMPETITORS, LAST_SHELL, STAGES, Compete, Refine
from cryospin.state import State, copied
from cryospin.volume.mask import WIDE

_BOX = 2 * LAST_SHELL + 8
"""Voxels along a side of the map that is looked at: what the competition will see of it."""

_STRAIGHT = 0.95
"""A map that scores as much is not bent, and only mates compete."""

_CLEARLY = 0.3
"""Nats an image: a nearly symmetric particle whose images took sides at random fits the second time about as badly."""

_CLEAR = 0.5
"""Mates are told apart if the halves agree on them so far beyond chance; 1 is always."""

_UNSYMMETRIC = 0.08
"""Mean FSC of unsymmetric parts where images took sides anew; where noise did it is -0.01 to 0.07, and in HSP90 0.23."""

_BENT = 0.18
"""The same of the first poses: bent in both halves alike, those of a symmetric beta-galactosidase had up to 0.15."""

_AS_MUCH = 0.8
"""Sides taken anew are preferred, since they know how sure they are, unless the first poses hold clearly more."""

_COUNTS = 0.02
"""Probability from which on an image counts at a mate."""

_ALIKE = 2 / LAST_SHELL
"""Radians within which two poses are mates: each was optimised by itself, in a map that is not perfectly symmetric."""

_EPOCHS_WITH_MATES = 5
_MOST_IMAGES = 20_000
"""Of more images no second opinion is sought: it takes as long as the first."""

_MOST_GROUPS = 3
"""Second opinions of one run."""

IMPOSED, RELEASED, MATES, DECIDED = "imposed", "released", "mates", "decided"


class SecondOpinion:
    """Poses by way of a symmetry, and a verdict on them.

    first: the refinement without symmetry, finished
    mates: turns of the last group tried in the first map `(order, 3, 3)` and, in its pixels, the point `(3,)` they are about
    inner: the stage that is at work on the second poses
    phase: what `inner` does: `IMPOSED` or `RELEASED` on the way to the second poses, `MATES` for the first ones with theirs,
        and `DECIDED` at the end
    tried: the point groups suspected so far, the last of them now
    straightened: whether the first poses were themselves found by way of a symmetry
    """

    name = "second opinion"

    def __init__(
        self,
        first: Refine,
        mates: tuple[Tensor, Tensor],
        inner: Stage,
        phase: str,
        tried: tuple[str, ...],
        *,
        straightened: bool = False,
    ) -> None:
        self.work, self.first, self.mates, self.inner = first.work, first, mates, inner
        self.phase, self.tried, self.straightened = phase, tried, straightened

    @classmethod
    def on(cls, first: Refine, tried: tuple[str, ...] = (), *, straightened: bool = False) -> SecondOpinion | None:
        """What a finished refinement gives cause for; None where nothing more looks symmetric, or a symmetry was imposed."""
        problem, sets, journal = first.work.problem, first.refinement.sets, first.work.journal
        if len(problem.group) > 1 or len(tried) == _MOST_GROUPS:
            return None
        density = same_transform(sets.combined().cpu(), min(_BOX, problem.box))
        found = next((s for s in suspects(density) if s.name not in tried), None)
        if found is None:
            return None
        if len(problem) > _MOST_IMAGES:
            journal.note(
                f"the map looks symmetric: {describe(found)}; a second opinion on so many images would take long: if the "
                f"particle has {found.name}, run again with --symmetry {found.name}"
            )
            return None
        about = found.centre * problem.box / density.shape[-1]
        mates, tried = (found.group.to(problem.device), about.float().to(problem.device)), (*tried, found.name)
        if found.score >= _STRAIGHT:
            journal.note(f"the map looks symmetric: {describe(found)}; each pose competes with its mates")
            inner: Stage = _with_mates(first, mates)
            return cls(first, mates, inner, MATES, tried, straightened=straightened)
        journal.note(
            f"the map looks symmetric: {describe(found)}; its poses are found again with {found.name}, then without"
        )
        work = first.work.imposing(point_group(found.name))
        # Proposers of its own: what they learn of a map that stands otherwise is of no use to the first.
        panel = work.panel(copied(first.panel.state()))
        panel.turn(found.frame)
        competitors = problem.order(panel.generator)[:COMPETITORS].sort().values
        start = averaged(density, found).to(problem.device)
        inner = Compete.again(work, panel, Standing(competitors, start, sets.noise))
        return cls(first, mates, inner, IMPOSED, tried, straightened=straightened)

    @property
    def finished(self) -> bool:
        """See `Stage.finished`."""
        return self.phase == DECIDED

    def announce(self) -> None:
        """See `Stage.announce`."""
        self.inner.announce()

    def step(self) -> Stage:
        """See `Stage.step`."""
        if not self.inner.finished:
            self.inner = self.inner.step()
            return self
        assert isinstance(self.inner, Refine), "no other stage is ever finished"
        if self.phase == IMPOSED:
            self.inner, self.phase = self._release(self.inner), RELEASED
        elif self.phase == RELEASED:
            return self._decided(self.inner)
        else:
            self.inner, self.phase = self._with_sides(self.inner), DECIDED
            return self
        self.inner.announce()
        return self

    def result(self, particles: ParticleSet, packed: Packed) -> Result:
        """What the run comes to."""
        assert isinstance(self.inner, Refine), "a verdict comes first"
        return self.inner.result(particles, packed)

    def state(self) -> State:
        """See `Stage.state`."""
        return {
            "first": self.first.state(),
            "mates": list(self.mates),
            "inner_stage": self.inner.name,
            "inner": self.inner.state(),
            "phase": self.phase,
            "tried": list(self.tried),
            "straightened": self.straightened,
        }

    @classmethod
    def restored(cls, work: Work, state: State) -> SecondOpinion:
        """See `Stage.restored`."""
        (turns, about), phase, tried = state["mates"], state["phase"], tuple(state["tried"])
        within = work.imposing(point_group(tried[-1])) if phase == IMPOSED else work
        inner = STAGES[state["inner_stage"]].restored(within, state["inner"])
        first = Refine.restored(work, state["first"])
        return cls(first, (turns, about), inner, phase, tried, straightened=state["straightened"])

    def _release(self, imposed: Refine) -> Refine:
        """The same half-sets and poses without the symmetry."""
        end = imposed.refinement
        sets = HalfSets.restored(self.work.problem, end.sets.state())
        return Refine(self.work, imposed.panel, Refinement(sets, end.modes, end.limit, imposed.panel.rescuers))

    def _decided(self, second: Refine) -> Stage:
        """Goes on with the better poses of two: another opinion on them, or with their mates where none was of use."""
        convinces = self._convinces(second)
        kept, straightened = (second, True) if convinces else (self.first, self.straightened)
        if convinces:
            # The second poses stand on the group's own axes.
            turns = point_group(self.tried[-1]).to(self.work.problem.device)
            self.mates = turns, torch.zeros(3, device=turns.device)
        if another := SecondOpinion.on(kept, self.tried, straightened=straightened):
            return another
        if straightened:
            self.inner, self.phase = self._without_mates(kept), DECIDED
        else:
            self.inner, self.phase = _with_mates(self.first, self.mates), MATES
        return self

    def _convinces(self, second: Refine) -> bool:
        """Whether the second poses fit the other half's map clearly better than the first do."""
        sets = self.first.refinement.sets
        limit = min(r.refinement.limit for r in (self.first, second))
        before, after = (_held_out_misfit(r.refinement, sets, limit) for r in (self.first, second))
        convinces = before - after > _CLEARLY
        kept = "the second poses are kept, with no symmetry imposed" if convinces else "the first poses are kept"
        self.work.journal.note(
            f"second opinion: misfit to the other half's map {after:.2f} nats by way of {self.tried[-1]}, "
            f"{before:.2f} without; {kept}"
        )
        return convinces

    def _without_mates(self, kept: Refine) -> Refine:
        """Finished poses of which mates count as one."""
        end = kept.refinement
        return _ended(kept, end.modes.distinct(Thinning(_ALIKE, group=self.mates[0])), end.sets)

    def _with_sides(self, with_mates: Refine) -> Refine:
        """The poses to end with: those that competed with their mates, or those that took sides anew, or one for all mates.

        The first are kept if the half maps agree, clearly more often than by chance, on which of its mates an image shows.
        """
        refinement, order, journal = with_mates.refinement, len(self.mates[0]), self.work.journal
        everyone = _mates_of(refinement.modes.best(), self.mates)
        agreed = agreement(refinement.sets, everyone, refinement.limit)
        found = f"mates: the halves agree in {100 * agreed:.0f} % of the images, by chance in {100 / order:.0f} %"
        if (agreed - 1 / order) > _CLEAR * (1 - 1 / order):
            journal.note(f"{found}; they are told apart")
            return with_mates
        first = self.first.refinement
        sides = take_sides(first.sets, first.modes.best(), *self.mates)
        before, beyond = (asymmetry(first.sets, modes) for modes in (as_before(sides, order), sides))
        found += (
            f"; on what is not symmetric they agree by {before:.2f}, and by {beyond:.2f} where images took sides anew "
            "at lower frequencies"
        )
        verdict = of_sides(before, beyond)
        journal.note(f"{found}; {verdict}")
        if verdict is Sides.one:
            return self._without_mates(self.first)
        if verdict is Sides.first:
            return self.first
        return _ended(self.first, sides.take(sides.responsibilities() > _COUNTS))


class Sides(StrEnum):
    """What becomes of poses whose mates the half maps do not tell apart."""

    one = "mates count as one pose, and the first poses are kept"
    first = "the first poses are kept, and their mates do not count"
    all = "each image counts at all its mates, with the probability of each"


def of_sides(before: float, beyond: float) -> Sides:
    """The verdict by what half maps share that is not symmetric: of the first poses, and where images took sides anew."""
    if before < _BENT and beyond < _UNSYMMETRIC:
        return Sides.one
    return Sides.first if beyond < max(_AS_MUCH * before, _UNSYMMETRIC) else Sides.all


def _mates_of(best: Modes, mates: tuple[Tensor, Tensor]) -> Modes:
    """One pose of each image and all its mates, which are as in `SecondOpinion`."""
    turns, about = mates
    return Modes.join(*(Modes(mate_of(best.poses, turn, about), best.misfit, best.source) for turn in turns))


def _with_mates(first: Refine, mates: tuple[Tensor, Tensor]) -> Refine:
    """A finished refinement going on, with every image's mates among its modes; both as in `SecondOpinion`."""
    before = first.refinement
    turned = _mates_of(before.modes.best(), (mates[0][1:], mates[1]))
    sets = HalfSets.restored(first.work.problem, before.sets.state())
    # Both halves have one mask, and by a tight one's lopsidedness they would agree on mates that are alike.
    sets.edge, sets.mask = WIDE, wide_outline(sets)
    refinement = Refinement(sets, Modes.join(before.modes, turned), before.limit, first.panel.rescuers)
    refinement.done, refinement.rested = before.epochs - _EPOCHS_WITH_MATES, before.rested
    stage = Refine(first.work, first.panel, refinement)
    stage.announce()
    return stage


def _ended(first: Refine, modes: Modes, sets: HalfSets | None = None) -> Refine:
    """A finished refinement with other modes, and with other half-sets or those that follow from the modes."""
    end = first.refinement
    if sets is None:
        sets = HalfSets.restored(end.problem, end.sets.state())
        sets.update(modes, end.problem.last_shell)
        sets.measure(modes.best(), end.limit)
        sets.update(modes, end.problem.last_shell)
    refinement = Refinement(sets, modes, end.limit, end.proposers)
    refinement.done, refinement.finished = end.done, end.finished
    return Refine(first.work, first.panel, refinement)


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
