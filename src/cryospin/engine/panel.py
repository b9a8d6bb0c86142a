"""The proposers of one start, with the randomness they share."""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.engine.candidates import GridProposer, HeadProposer, Proposer
from cryospin.engine.problem import Problem
from cryospin.proposals.grid import GridSearch
from cryospin.proposals.heads import HeadProposals
from cryospin.state import State

_RANDOM_VIEWS = 40
"""Where there is no grid, so many random views compete with the heads'."""


class Panel:
    """Who suggests poses in a run.

    explores_with: `heads`, `grid` or `both`
    seed: of the heads' weights and of every grid's turn

    generator: random numbers that the proposers share
    guesser: the heads, or None
    proposers: all of them, in the order their candidates are counted in
    rescuers: the same, more thorough where they can be
    """

    def __init__(self, problem: Problem, explores_with: str, seed: int) -> None:
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed + 1)
        search = GridSearch(problem.shift_sd, problem.shift_limit, self.generator)
        self.guesser: HeadProposer | None = None
        if explores_with != "grid":
            views = _RANDOM_VIEWS if explores_with == "heads" else 0
            self.guesser = HeadProposer(HeadProposals(seed + 2, device=problem.device), search, random_views=views)
        heads: list[Proposer] = [self.guesser] if self.guesser else []
        self.proposers, self.rescuers = (
            heads if explores_with == "heads" else [GridProposer(search, thorough=thorough), *heads]
            for thorough in (False, True)
        )

    def turn(self, by: Tensor) -> None:
        """The map was turned: its poses `R` are `R Q` from here on; by: `Q`, `(3, 3)`."""
        if self.guesser:
            self.guesser.heads.turn(by)

    def state(self) -> State:
        """What the proposers have learned, and where their randomness stands."""
        guesser = self.guesser
        return {
            "seed": self.seed,
            "generator": self.generator.get_state(),
            "heads": guesser.heads.state() if guesser else None,
            "random_views": guesser.random_views if guesser else 0,
        }

    @classmethod
    def restored(cls, problem: Problem, explores_with: str, state: State) -> Panel:
        """The proposers whose state this is."""
        panel = cls(problem, explores_with, state["seed"])
        panel.generator.set_state(state["generator"])
        if panel.guesser:
            panel.guesser.heads.restore(state["heads"])
            panel.guesser.random_views = state["random_views"]
        return panel
