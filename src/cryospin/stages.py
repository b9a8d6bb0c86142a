"""The stages of a run, one after another: start from nothing, let poses compete, refine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryospin.engine.candidates import search
from cryospin.engine.compete import Competition, Standing
from cryospin.engine.explore_grid import GridExploration
from cryospin.engine.explore_heads import HeadExploration
from cryospin.engine.failures import examine
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

_CONVINCING = 1.12
"""A start is carried on at once if the images' contrasts spread by less than this times their error (see `Competition`),
and no test of `engine.failures` finds anything."""

_CLEAR_IMAGES = 30.0
"""Information of an image, in nats, below which contrasts say too little and a start costs too much to try again."""

FIRST_SHELL, LAST_SHELL = 9, 12
"""Frequency limits of the competition, cycles per box."""

LAST_ROUNDS, _MOST_ROUNDS = 3, 10
"""The competition ends after so many rounds at its last limit, or more as long as images still fit better by the round."""

_STILL_FALLS = 0.5
"""Nats an image."""

_STRAIGHT = 0.75
"""A map whose symmetry is to be imposed but scores less is bent: its poses are found again in its average over the group."""

COMPETITORS = 5000
"""At most so many images take part in the competition; the others get their poses at its end."""

_ENLISTED = 10_000
"""Of those others, so many at a time: a multiple of what `search` takes at once, whose random numbers come in that order."""


@dataclass
class Tried:
    """A start that was explored and went through a first round of competition.

    loss: mean misfit of an image to the map that the other half of the images gives, nats
    failures: what the tests of `engine.failures` found
    """

    panel: Panel
    competition: Competition
    loss: float
    failures: list[str]

    @property
    def convinces(self) -> bool:
        """Whether it can be carried on without another to compare it with."""
        return not self.doubts

    @property
    def doubts(self) -> list[str]:
        """What speaks against it."""
        spread = self.competition.spread
        uneven = [f"contrasts scatter by {spread:.2f} times their error, not below {_CONVINCING}"]
        return [*self.failures, *(uneven if spread >= _CONVINCING else [])]

    def state(self) -> State:
        """Everything it would be continued from."""
        return {
            "panel": self.panel.state(),
            "competition": self.competition.state(),
            "loss": self.loss,
            "failures": self.failures,
        }

    @classmethod
    def restored(cls, work: Work, state: State) -> Tried:
        """The start whose state this is."""
        panel = work.panel(state["panel"])
        competition = Competition.restored(work.problem, panel.proposers, state["competition"])
        return cls(panel, competition, state["loss"], state["failures"])


class Start:
    """One start from nothing: an exploration, and a first round of competition to judge it by.

    number: which start this is, from 0
    before: the starts that did not convince
    """

    name = "start"
    finished = False

    def __init__(self, work: Work, number: int = 0, before: list[Tried] | None = None) -> None:
        self.work, self.number, self.before = work, number, before or []
        seed = work.settings.seed + 1000 * number
        self.panel = Panel(work.problem, work.settings.explores_with, seed)
        self.exploration = _exploration(work, self.panel, seed)

    def announce(self) -> None:
        """See `Stage.announce`."""
        self.work.journal.expect(self.exploration.stage, self.exploration.epochs_left)

    def step(self) -> Stage:
        """See `Stage.step`."""
        if not self.exploration.epochs_left:
            return self._after(self._judged())
        self.work.journal.epoch(self.exploration.epoch(), density=self.exploration.map)
        return self

    def state(self) -> State:
        """See `Stage.state`."""
        return {
            "number": self.number,
            "before": [tried.state() for tried in self.before],
            "panel": self.panel.state(),
            "exploration": self.exploration.state(),
        }

    @classmethod
    def restored(cls, work: Work, state: State) -> Start:
        """See `Stage.restored`."""
        start = cls(work, state["number"], [Tried.restored(work, tried) for tried in state["before"]])
        start.panel = work.panel(state["panel"])
        start.exploration = _exploration(work, start.panel, start.panel.seed)
        start.exploration.restore(state["exploration"])
        return start

    def _judged(self) -> Tried:
        """The explored map after a first round of competition."""
        problem, journal, panel = self.work.problem, self.work.journal, self.panel
        competitors = problem.order(panel.generator)[:COMPETITORS].sort().values
        standing = Standing(competitors, self.exploration.map(), self.exploration.noise)
        competition = Competition(problem, standing, panel.proposers)
        journal.expect(competition.stage, 2 + LAST_ROUNDS)
        misfit = _hold_round(competition, FIRST_SHELL, journal)
        found = examine(problem, competition.standing, FIRST_SHELL, panel.guesser.heads if panel.guesser else None)
        for failure in found.failures:
            journal.note(f"start {self.number + 1} looks wrong: {failure}")
        tried = Tried(panel, competition, -found.gains.other, found.failures)
        journal.note(
            f"start {self.number + 1}: misfit {misfit:.1f} nats, {tried.loss:.1f} to the other half's map; "
            f"contrasts scatter by {competition.spread:.2f} times their error"
        )
        return tried

    def _after(self, tried: Tried) -> Stage:
        """A start that convinces goes on; else another one is made, or the one that fits held-out images best goes on."""
        if tried.convinces:
            return Compete(self.work, tried.panel, tried.competition, [LAST_SHELL] * LAST_ROUNDS)
        starts, again = [*self.before, tried], self._worth_repeating()
        journal = self.work.journal
        if again and len(starts) < self.work.settings.starts:
            journal.note(f"start {self.number + 1} does not convince, and another is made: {'; '.join(tried.doubts)}")
            another = Start(self.work, self.number + 1, starts)
            another.announce()
            return another
        best = min(starts, key=lambda start: start.loss)
        journal.note(
            f"warning: no start convinced; going on with the one of held-out misfit {best.loss:.1f} nats "
            f"({'; '.join(best.doubts)}). Compare with a run from another --seed"
        )
        return Compete(self.work, best.panel, best.competition, [FIRST_SHELL, *[LAST_SHELL] * LAST_ROUNDS])

    def _worth_repeating(self) -> bool:
        """Whether another start could be told from this one, and would be affordable."""
        problem = self.work.problem
        nats = float(problem.information[min(FIRST_SHELL, problem.last_shell)])
        return self.work.settings.explores_with != "heads" and nats > _CLEAR_IMAGES


def _exploration(work: Work, panel: Panel, seed: int) -> GridExploration | HeadExploration:
    """The heads alone explore with themselves; everyone else with the grid, which costs less."""
    if work.settings.explores_with == "heads":
        assert panel.guesser is not None, "heads explore"
        return HeadExploration(work.problem, panel.guesser, seed)
    return GridExploration(work.problem, seed)


class Compete:
    """Rounds of competition until the posterior has one mode.

    limits: frequency limits of the rounds to come; after one at the last limit the competition may end
    """

    name = "compete"
    finished = False

    def __init__(self, work: Work, panel: Panel, competition: Competition, limits: list[int]) -> None:
        self.work, self.panel, self.competition, self.limits = work, panel, competition, limits

    @classmethod
    def again(cls, work: Work, panel: Panel, standing: Standing) -> Compete:
        """A competition from another map, with the rounds at the last limit only."""
        stage = cls(work, panel, Competition(work.problem, standing, panel.proposers), [LAST_SHELL] * LAST_ROUNDS)
        stage.announce()
        return stage

    def announce(self) -> None:
        """See `Stage.announce`."""
        self.work.journal.expect(self.competition.stage, len(self.limits))

    def step(self) -> Stage:
        """See `Stage.step`."""
        limit, *self.limits = self.limits
        journal = self.work.journal
        _hold_round(self.competition, limit, journal)
        reason = switch_reason(self.competition) if limit == LAST_SHELL else ""
        if not reason and (self.limits or self._still_gains()):
            self.limits = self.limits or [LAST_SHELL]
            return self
        if again := self._straightened():
            return again
        journal.note(f"switch to direct optimisation: {reason or 'the bound on rounds was reached'}")
        return Enlist(self.work, self.panel, self.competition.standing)

    def state(self) -> State:
        """See `Stage.state`."""
        return {
            "panel": self.panel.state(),
            "competition": self.competition.state(),
            "limits": self.limits,
            "imposing": not self.work.problem.imposes_later,
        }

    @classmethod
    def restored(cls, work: Work, state: State) -> Compete:
        """See `Stage.restored`."""
        work = work.imposing() if state["imposing"] else work
        panel = work.panel(state["panel"])
        competition = Competition.restored(work.problem, panel.proposers, state["competition"])
        return cls(work, panel, competition, state["limits"])

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
        return Compete.again(work, self.panel, standing)


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
        self.work.journal.expect(self.refinement.stage, self.refinement.epochs - self.refinement.done)

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


STAGES: dict[str, type[Stage]] = {stage.name: stage for stage in (Start, Compete, Enlist, Refine)}
"""The stages by the names they are kept under."""


def _hold_round(competition: Competition, radius: int, journal: Journal) -> float:
    """One round, with its line in the records; returns its mean misfit."""
    record = competition.round(radius)
    standing = competition.standing
    assert standing.modes is not None, "a round leaves modes"
    poses = standing.modes.best().poses
    poses = poses._replace(image=standing.images[poses.image])
    journal.epoch(record, poses, competition.problem.early_group, lambda: standing.density)
    return record.loss
