"""A start from nothing: an exploration, a first round of competition, and whether what they found convinces."""

from __future__ import annotations

from dataclasses import dataclass

from cryospin.engine.compete import Competition, Standing
from cryospin.engine.explore_grid import GridExploration
from cryospin.engine.explore_heads import HeadExploration
from cryospin.engine.failures import examine
from cryospin.engine.panel import Panel
from cryospin.maps.alignment import map_likeness
from cryospin.stage import Stage, Work
from cryospin.stages import COMPETITORS, FIRST_SHELL, LAST_ROUNDS, LAST_SHELL, Compete, hold_round
from cryospin.state import State

_CONVINCING = 1.12
"""A start is carried on at once if the images' contrasts scatter by less than this times their error (see `Competition`),
and no test of `engine.failures` finds anything."""

_CLEAR_IMAGES = 30.0
"""Information of an image, in nats, below which contrasts say too little and a start costs too much to try again."""

_SAME_LOSS, _SAME_SHARE, _SAME_MAP = 0.5, 0.02, 0.9
"""Two starts agree if their held-out misfits differ by so many nats or by such a share, and their maps correlate so well."""


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
        misfit = hold_round(competition, FIRST_SHELL, journal)
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
        """A start that convinces goes on, or the better of two that agree; else another is made, or the best one goes on."""
        if tried.convinces:
            return Compete(self.work, tried.panel, tried.competition, [LAST_SHELL] * LAST_ROUNDS)
        starts, again = [*self.before, tried], self._worth_repeating()
        journal, best = self.work.journal, min(starts, key=lambda start: start.loss)
        if agreed := _found_the_same(starts, best):
            journal.note(agreed)
            return Compete(self.work, best.panel, best.competition, [LAST_SHELL] * LAST_ROUNDS)
        if again and len(starts) < self.work.settings.starts:
            journal.note(f"start {self.number + 1} does not convince, and another is made: {'; '.join(tried.doubts)}")
            another = Start(self.work, self.number + 1, starts)
            another.announce()
            return another
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


def _found_the_same(starts: list[Tried], first: Tried) -> str:
    """A line that says so where the best start and the next one found the same map; nothing where they did not.

    Contrasts scatter in right starts, too, where the ice is thick here and thin there. But what two searches from different
    random numbers find alike, and fits held-out images equally well, is no accident of either.
    """
    others = [start for start in starts if start is not first and not start.failures]
    if first.failures or not others:
        return ""
    second = min(others, key=lambda start: start.loss)
    if second.loss - first.loss > max(_SAME_LOSS, _SAME_SHARE * abs(first.loss)):
        return ""
    one, other = (start.competition.standing.density.cpu() for start in (first, second))
    likeness = map_likeness(one, other, FIRST_SHELL)
    if likeness < _SAME_MAP:
        return ""
    return (
        f"two starts found the same map, independently: held-out misfits {first.loss:.1f} and {second.loss:.1f} nats, "
        f"maps alike by {likeness:.2f} to {FIRST_SHELL} cycles per box"
    )
