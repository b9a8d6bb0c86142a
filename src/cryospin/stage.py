"""What a stage of a run is, and what it works on.

A stage takes one step at a time, mostly an epoch, and says which stage goes on from there: itself, or the next. Between two
steps its state is all that a run needs to be continued; nothing else is carried from step to step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

from torch import Tensor

from cryospin.engine.panel import Panel
from cryospin.engine.problem import Problem
from cryospin.journal import Journal
from cryospin.settings import Settings
from cryospin.state import State


@dataclass(frozen=True)
class Work:
    """What every stage works on, and whom it tells."""

    problem: Problem
    settings: Settings
    journal: Journal

    def panel(self, state: State) -> Panel:
        """The proposers whose state this is."""
        return Panel.restored(self.problem, self.settings.explores_with, state)

    def imposing(self, group: Tensor | None = None) -> Work:
        """The same work with a point group, its own or another, imposed throughout."""
        group = self.problem.group if group is None else group.to(self.problem.device)
        return replace(self, problem=replace(self.problem, group=group, early_group=group))


class Stage(Protocol):
    """A part of a run."""

    name: str
    """What the stage is kept under in a checkpoint."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do, in this stage or after it."""

    def announce(self) -> None:
        """Tell whoever watches what is to come."""

    def step(self) -> Stage:
        """One epoch, or a decision between two; returns the stage that goes on."""

    def state(self) -> State:
        """All that the steps so far leave to those to come."""

    @classmethod
    def restored(cls, work: Work, state: State) -> Self:
        """The stage whose state this is."""
