"""Poses for images that a map was not made from, in that map.

The heads guess a few views of each image, which are completed in the plane and taken to their optimum, or a grid of all
poses is searched; then the frequency limit rises to what the map supports, while fewer and fewer modes stay in the running.

Some images go first. They tell the usual contrast of the set, and, where both may propose, what the heads are worth: if
these settle most of them, and the grid finds nothing better for those, the heads serve all other images, and the grid only
those that resemble the map less than usual. If not, the grid serves all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from cryospin.engine.candidates import GridProposer, HeadProposer, Proposer, search
from cryospin.engine.likeness import CONTRAST_SHELL, usual_contrast
from cryospin.engine.problem import SHIFT_LIMIT, SHIFT_SD
from cryospin.evenly import evenly_spaced
from cryospin.fourier import FourierGrid, map_to_grid
from cryospin.kernels.types import Fit, Observations
from cryospin.noise import at_the_level_of, weighted
from cryospin.poses.gauss_newton import fits_of, refine_poses
from cryospin.poses.modes import Modes, Thinning
from cryospin.proposals.grid import GridSearch

if TYPE_CHECKING:
    from cryospin.model import Model

_FIRST_SHELL, _GROWTH = CONTRAST_SHELL, 1.5
_MODES = (4, 3, 2)
"""Modes that stay after the first limit, the second, and all others."""

_STEPS, _LAST_STEPS = 2, 8
"""At each limit, and at the last, where poses that have come to rest take none. With 2 there, every eighth pose depended on
where the search came from by more than a quarter of its standard error."""

_SEARCH_AGAIN = 2.0
"""Standard errors that an image's contrast may fall short of the usual before its pose is doubted."""

_TRIED = 500
"""Images that go first."""

_SETTLED, _BEATEN = 0.5, 0.02
"""Share of the images tried that the heads must leave without doubt, and of those, the most that may be in a wrong mode."""

_BETTER = 3.0
"""Nats by which another mode must win to say so."""

_CONTRAST_PRIOR = 25.0
_CONTRAST = (0.05, 3.0)
"""As in the refinement (`half_sets`): the prior on an image's contrast, nats, and its bounds relative to the usual."""


class Posed(NamedTuple):
    """Poses of n images.

    modes: what is left of the hypotheses, ranked
    shortfall: by how many standard deviations each image's contrast falls short of the usual, float64 `(n,)`: large where
        the image is of something else
    reach: the shortfall of an image without a particle, `(n,)`
    """

    modes: Modes
    shortfall: Tensor
    reach: Tensor


class Trial(NamedTuple):
    """What the heads were worth for some images.

    images: how many were tried
    settled: share of them that the heads left without doubt; beaten: share of those for which the grid found a better mode
    """

    images: int
    settled: float
    beaten: float

    @property
    def passed(self) -> bool:
        """Whether the heads serve."""
        return self.settled >= _SETTLED and self.beaten <= _BEATEN


class Assigner:
    """Finds poses in a model's map.

    proposals: `heads` guess alone, the `grid` does, or `both`: the heads where they prove themselves, or else the grid

    contrast: usual one of the images, relative to the map; the run's until some images were seen
    trial: what came of letting both propose; None before, and where one is alone
    """

    def __init__(self, model: Model, proposals: str, box: int) -> None:
        self.model, self.box = model, box
        self.contrast = model.contrast
        self.trial: Trial | None = None
        self._begun = False
        last = min(model.limit, box // 2 - 1)
        self.limits = [min(_FIRST_SHELL, last)]
        while self.limits[-1] < last:
            self.limits.append(min(int(self.limits[-1] * _GROWTH), last))
        self._lattices = [(map_to_grid(model.density, grid), grid) for grid in map(FourierGrid, self.limits)]
        grid_search = GridSearch(SHIFT_SD * box, SHIFT_LIMIT * box, torch.Generator().manual_seed(model.seed))
        self._proposers: list[Proposer] = []
        if proposals != "grid":
            assert model.heads is not None, "heads were asked for"
            self._proposers.append(HeadProposer(model.heads, grid_search))
        if proposals != "heads":
            self._proposers.append(GridProposer(grid_search))

    def assign(self, observations: Observations) -> Posed:
        """Poses of all images.

        observations: packed images, weights still 1
        """
        last = self.limits[-1]
        # So far out an image of the run showed its particle less than its noise by far, or the map would have more shells.
        outer, noise = slice(last * 3 // 4, last + 1), self.model.noise[: observations.disc.radius + 1]
        seen = weighted(observations, at_the_level_of(observations, noise, outer))
        modes = self._first(seen)
        seen = self._usual(seen)
        for rung in range(1, len(self.limits)):
            if rung == len(self.limits) - 1:
                seen = seen._replace(scale=self._contrasts(seen, modes, rung - 1))
            modes = self._raised(seen, modes, rung)
        fit = self._fit(seen, modes.best(), 0)
        return Posed(modes.ranked()[0], self._shortfall(fit), self.contrast * self._precision(fit))

    def _usual(self, seen: Observations) -> Observations:
        """The images, each taken to have the usual contrast."""
        return seen._replace(scale=torch.full((len(seen.images),), self.contrast))

    def _first(self, seen: Observations) -> Modes:
        """Modes at the first limit."""
        left, found = torch.ones(len(seen.images), dtype=torch.bool), []
        if not self._begun:
            tried = evenly_spaced(len(left), _TRIED)
            found.append(self._tried(self._usual(seen), tried))
            left[tried] = False
            self._begun = True
        rows = left.nonzero()[:, 0]
        if len(rows):
            found.append(self._served(self._usual(seen), rows))
        return Modes.join(*found)

    def _tried(self, seen: Observations, rows: Tensor) -> Modes:
        """The best that anything proposes for some images; and what they tell of contrast and heads."""
        each = [self._searched(proposer, seen, rows) for proposer in self._proposers]
        modes = Modes.join(*each).distinct(self._thinning(0))
        fit = self._fit(seen, modes.best(), 0)
        self.contrast = usual_contrast(fit.contrast, self._precision(fit), self.model.contrast)
        if len(each) > 1:
            guess = each[0].best()
            settled = self._shortfall(self._fit(seen, guess, 0)) <= _SEARCH_AGAIN
            beaten = guess.misfit - modes.best().misfit > _BETTER
            share = float((beaten & settled).sum() / settled.sum().clamp_min(1))
            self.trial = Trial(len(rows), float(settled.double().mean()), share)
        return modes

    def _served(self, seen: Observations, rows: Tensor) -> Modes:
        """Modes of images from the proposer that serves, and from the grid where the heads leave doubt."""
        first, last = self._proposers[0], self._proposers[-1]
        if first is last or (self.trial and not self.trial.passed):
            return self._searched(last, seen, rows)
        modes = self._searched(first, seen, rows)
        best = modes.best()
        doubtful = best.poses.image[self._shortfall(self._fit(seen, best, 0)) > _SEARCH_AGAIN]
        if len(doubtful) == 0:
            return modes
        return Modes.join(modes, self._searched(last, seen, doubtful)).distinct(self._thinning(0))

    def _searched(self, proposer: Proposer, seen: Observations, rows: Tensor) -> Modes:
        volume, grid = self._lattices[0]
        some = seen.up_to(grid.radius)
        return search([proposer], volume, grid, some, rows, shift_sd=SHIFT_SD * self.box, thinning=self._thinning(0))

    def _raised(self, seen: Observations, modes: Modes, rung: int) -> Modes:
        """The modes at their optimum at a higher limit."""
        volume, grid = self._lattices[rung]
        some = seen.up_to(grid.radius)
        steps = _LAST_STEPS if rung == len(self.limits) - 1 else _STEPS
        poses, misfit = refine_poses(volume, grid, some, modes.poses, steps=steps, shift_sd=SHIFT_SD * self.box)
        return modes.with_poses(poses, misfit).distinct(self._thinning(rung))

    def _thinning(self, rung: int) -> Thinning:
        return Thinning.at(self.limits[rung], _MODES[min(rung, len(_MODES) - 1)], self.model.group)

    def _fit(self, seen: Observations, best: Modes, rung: int) -> Fit:
        volume, grid = self._lattices[rung]
        return fits_of(volume, grid, seen.up_to(grid.radius), best.poses)

    def _shortfall(self, fit: Fit) -> Tensor:
        return (self.contrast - fit.contrast) * self._precision(fit)

    def _precision(self, fit: Fit) -> Tensor:
        """One over the standard deviation of each image's contrast at the right pose."""
        return (2 * fit.power).sqrt() / self.model.spread

    def _contrasts(self, seen: Observations, modes: Modes, rung: int) -> Tensor:
        """Contrast of each image at its best pose, held to the usual one."""
        fit, usual = self._fit(seen, modes.best(), rung), self.contrast
        contrast = (fit.cross + _CONTRAST_PRIOR * usual) / (fit.power + _CONTRAST_PRIOR)
        return contrast.clamp(_CONTRAST[0] * usual, _CONTRAST[1] * usual).float()
