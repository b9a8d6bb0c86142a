"""The stages of a run after its start, one after another: let poses compete, find those of all other images, refine."""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.engine.candidates import search
from cryospin.engine.compete import Competition, Standing
from cryospin.engine.half_sets import JOINED, HalfSets, random_halves
from cryospin.engine.impose import averaged, axes_in, put_on_axes
from cryospin.engine.panel import Panel
from cryospin.engine.recentre import recentre
from cryospin.engine.refine import Refinement
from cryospin.engine.switch import switch_reason
from cryospin.journal import Journal
from cryospin.maps.point_groups import describe
from cryospin.noise import weighted
from cryospin.packing import Packed
from cryospin.particles import ParticleSet
from cryospin.poses.modes import Modes, Thinning
from cryospin.results import Result
from cryospin.stage import Stage, Work
from cryospin.state import State

FIRST_SHELL, LAST_SHELL = 9, 12
"""Frequency limits of the competition, cycles per box."""

LAST_ROUNDS, _MOST_ROUNDS = 3, 10
"""The competition ends after so many rounds at its last limit, or more as long as images still fit better by the round."""

_STILL_FALLS = 0.5
"""Nats an image."""

_STRAIGHT = 0.75
"""A map whose symmetry is to be imposed but scores less is bent: its poses are found again in its average over the group."""

_WORSE = 0.1
"""Share of the misfit without a symmetry by which that with it may be worse."""

COMPETITORS = 5000
"""At most so many images take part in the competition; the others get their poses at its end."""

_ENLISTED = 10_000
"""Of those others, so many at a time: a multiple of what `search` takes at once, whose random numbers come in that order."""


class Compete:
    """Rounds of competition until the posterior has one mode.

    limits: frequency limits of the rounds to come; after one at the last limit the competition may end
    without: mean misfit of an image, nats, that the competition without the symmetry ended with; None where there was none
    """

    name = "compete"
    finished = False

    def __init__(
        self, work: Work, panel: Panel, competition: Competition, limits: list[int], without: float | None = None
    ) -> None:
        self.work, self.panel, self.competition, self.limits = work, panel, competition, limits
        self.without = without

    @classmethod
    def again(cls, work: Work, panel: Panel, standing: Standing, without: float | None = None) -> Compete:
        """A competition from another map, with the rounds at the last limit only; see the class for `without`."""
        competition = Competition(work.problem, standing, panel.proposers)
        stage = cls(work, panel, competition, [LAST_SHELL] * LAST_ROUNDS, without)
        stage.announce()
        return stage

    def announce(self) -> None:
        """See `Stage.announce`."""
        self.work.journal.expect(self.competition.stage, len(self.limits))

    def step(self) -> Stage:
        """See `Stage.step`."""
        limit, *self.limits = self.limits
        journal = self.work.journal
        hold_round(self.competition, limit, journal)
        reason = switch_reason(self.competition) if limit == LAST_SHELL else ""
        if not reason and (self.limits or self._still_gains()):
            self.limits = self.limits or [LAST_SHELL]
            return self
        if again := self._straightened():
            return again
        self._doubt_symmetry()
        journal.note(f"switch to direct optimisation: {reason or 'the bound on rounds was reached'}")
        return Enlist(self.work, self.panel, self.competition.standing)

    def state(self) -> State:
        """See `Stage.state`."""
        return {
            "panel": self.panel.state(),
            "competition": self.competition.state(),
            "limits": self.limits,
            "without": self.without,
            "imposing": not self.work.problem.imposes_later,
        }

    @classmethod
    def restored(cls, work: Work, state: State) -> Compete:
        """See `Stage.restored`."""
        work = work.imposing() if state["imposing"] else work
        panel = work.panel(state["panel"])
        competition = Competition.restored(work.problem, panel.proposers, state["competition"])
        return cls(work, panel, competition, state["limits"], state["without"])

    def _still_gains(self) -> bool:
        """Whether another round is worth while."""
        return self.competition.rounds < _MOST_ROUNDS and self.competition.fell > _STILL_FALLS

    def _straightened(self) -> Compete | None:
        """A competition with the symmetry that is to be imposed, where a map found without it hardly shows it."""
        problem, before = self.work.problem, self.competition.standing
        if not problem.imposes_later:
            return None
        found = axes_in(before.density, problem, self.work.settings.imposed)
        if found.score >= _STRAIGHT:
            return None
        self.work.journal.note(f"{found.name} hardly shows, so poses compete again with it imposed: {describe(found)}")
        work, standing = self.work.imposing(), Standing(before.images, averaged(before.density, found), before.noise)
        self.panel.turn(found.frame)
        return Compete.again(work, self.panel, standing, self.competition.misfit)

    def _doubt_symmetry(self) -> None:
        """Warn of a symmetry that images fit worse with than without."""
        misfit, without = self.competition.misfit, self.without
        if without is not None and misfit - without > _WORSE * abs(without):
            name = self.work.settings.imposed
            self.work.journal.note(
                f"warning: with {name} images fit {misfit - without:.1f} nats worse each ({misfit:.1f}, and {without:.1f} "
                f"without it): the particle does not seem to have {name}. Run again with --symmetry auto"
            )


class Enlist:
    """Poses for the images that did not compete, some thousands at a time.

    standing: where the competition ended
    modes: of the images that have any so far, their `image` counted among all
    """

    name = "enlist"
    finished = False

    def __init__(self, work: Work, panel: Panel, standing: Standing, modes: Modes | None = None) -> None:
        assert standing.modes is not None, "a competition leaves modes"
        self.work, self.panel, self.standing = work, panel, standing
        own = standing.modes.poses
        kept = standing.modes.with_poses(own._replace(image=standing.images[own.image]), standing.modes.misfit)
        self.modes = modes or kept

    def announce(self) -> None:
        """See `Stage.announce`."""

    def step(self) -> Stage:
        """See `Stage.step`."""
        absent = torch.ones(len(self.work.problem), dtype=torch.bool, device=self.work.problem.device)
        absent[self.modes.poses.image] = False
        rows = absent.nonzero()[:, 0]
        if len(rows):
            self.modes = Modes.join(self.modes, self._searched(rows[:_ENLISTED]))
        return self if len(rows) > _ENLISTED else self._refine()

    def state(self) -> State:
        """See `Stage.state`."""
        return {
            "panel": self.panel.state(),
            "standing": self.standing.state(),
            "modes": self.modes.state(),
            "imposing": not self.work.problem.imposes_later,
        }

    @classmethod
    def restored(cls, work: Work, state: State) -> Enlist:
        """See `Stage.restored`."""
        work = work.imposing() if state["imposing"] else work
        return cls(work, work.panel(state["panel"]), Standing.restored(state["standing"]), Modes.restored(state["modes"]))

    def _searched(self, rows: Tensor) -> Modes:
        """Modes of some images, in the map as it stands."""
        problem, radius = self.work.problem, min(LAST_SHELL, self.work.problem.last_shell)
        some = weighted(problem.observations.up_to(radius), self.standing.noise)
        volume, grid = problem.masked_volume(self.standing.density, radius)
        thinning = Thinning.at(radius, group=problem.early_group)
        return search(self.panel.proposers, volume, grid, some, rows, shift_sd=problem.shift_sd, thinning=thinning)

    def _refine(self) -> Refine:
        """The map put in the middle, and two halves that start from it."""
        problem, journal = self.work.problem, self.work.journal
        modes = self.modes.ranked()[0]
        density, poses = recentre(self.standing.density, modes.poses, problem)
        if problem.imposes_later:
            found = axes_in(density, problem, self.work.settings.imposed)
            density, poses = put_on_axes(density, poses, problem, found)
            self.panel.turn(found.frame)
            journal.note(f"{found.name} is imposed from here on: {describe(found)}")
        half = random_halves(len(problem), self.work.settings.seed).to(problem.device)
        sets = HalfSets(problem, half, self.standing.noise, density)
        modes = modes.with_poses(poses, modes.misfit)
        refinement = Refinement(sets, modes, min(LAST_SHELL, problem.last_shell), self.panel.rescuers)
        journal.note(
            f"half-sets start from one map low-passed to {problem.angstrom(refinement.limit):.1f} Å and share what is "
            f"coarser than {problem.angstrom(JOINED):.1f} Å throughout"
        )
        stage = Refine(self.work, self.panel, refinement)
        stage.announce()
        return stage


class Refine:
    """Half-sets, each against its own volume, until nothing moves."""

    name = "refine"

    def __init__(self, work: Work, panel: Panel, refinement: Refinement) -> None:
        self.work, self.panel, self.refinement = work, panel, refinement

    @property
    def finished(self) -> bool:
        """See `Stage.finished`."""
        return bool(self.refinement.finished)

    def announce(self) -> None:
        """See `Stage.announce`."""
        self.work.journal.expect(self.refinement.stage, self.refinement.epochs_left)

    def step(self) -> Stage:
        """See `Stage.step`."""
        refinement, journal = self.refinement, self.work.journal
        record = refinement.epoch()
        journal.epoch(record, refinement.modes.best().poses, refinement.problem.group, refinement.sets.combined)
        if refinement.finished:
            journal.note(f"refinement ends: {refinement.finished}")
        return self

    def result(self, particles: ParticleSet, packed: Packed) -> Result:
        """What the run comes to."""
        return Result.of(self.work.settings, particles, packed, self.refinement)

    def state(self) -> State:
        """See `Stage.state`."""
        return {"panel": self.panel.state(), "refinement": self.refinement.state()}

    @classmethod
    def restored(cls, work: Work, state: State) -> Refine:
        """See `Stage.restored`."""
        panel = work.panel(state["panel"])
        return cls(work, panel, Refinement.restored(work.problem, panel.rescuers, state["refinement"]))


STAGES: dict[str, type[Stage]] = {stage.name: stage for stage in (Compete, Enlist, Refine)}
"""These stages by the names they are kept under."""


def hold_round(competition: Competition, radius: int, journal: Journal) -> float:
    """One round, with its line in the records; returns its mean misfit."""
    record = competition.round(radius)
    standing = competition.standing
    assert standing.modes is not None, "a round leaves modes"
    poses = standing.modes.best().poses
    poses = poses._replace(image=standing.images[poses.image])
    journal.epoch(record, poses, competition.problem.early_group, lambda: standing.density)
    return record.loss
