"""Poses for images that a map was not made from, in that map.

The heads guess a few views of each image, which are completed in the plane and taken to their optimum; then the
frequency limit rises to what the map supports, while fewer and fewer modes stay in the running. Images that resemble the
map less than the run's own did are searched for again, on a grid of all poses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.engine.candidates import GridProposer, HeadProposer, Proposer, search
from cryospin.engine.problem import SHIFT_LIMIT, SHIFT_SD
from cryospin.fourier import FourierGrid, map_to_grid
from cryospin.kernels.types import Fit, Observations
from cryospin.model import Model
from cryospin.noise import weighted
from cryospin.poses.gauss_newton import fits_of, refine_poses
from cryospin.poses.modes import Modes, Thinning
from cryospin.proposals.grid import GridSearch
from cryospin.results import CONTRAST_SHELL

_FIRST_SHELL, _GROWTH = CONTRAST_SHELL, 1.5
_MODES = (4, 3, 2)
"""Modes that stay after the first limit, the second, and all others."""

_STEPS = 2
_DOUBTFUL = 2.0
"""Standard errors that an image's contrast may fall short of the usual before its pose is doubted."""

_CONTRAST_PRIOR = 25.0
_CONTRAST = (0.05, 3.0)
"""As in the refinement (`half_sets`): the prior on an image's contrast, nats, and its bounds relative to the usual."""


class Assigner:
    """Finds poses in a model's map.

    proposals: `heads` guess alone, the `grid` does, or `both`: heads first, the grid for images they leave in doubt
    """

    def __init__(self, model: Model, proposals: str, box: int) -> None:
        self.model, self.box = model, box
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

    def assign(self, observations: Observations) -> tuple[Modes, Tensor]:
        """Poses of all images.

        observations: packed images, weights still 1
        returns: the modes left, ranked; and by how many standard errors each image's contrast falls short of the
            usual, `(N,)`: large where the image is of something else
        """
        noise = self.model.noise[: observations.disc.radius + 1]
        usual = torch.full((len(observations.images),), self.model.contrast)
        seen = weighted(observations, noise)._replace(scale=usual)
        modes = self._first(seen)
        for rung in range(1, len(self.limits)):
            if rung == len(self.limits) - 1:
                seen = seen._replace(scale=self._contrasts(seen, modes, rung - 1))
            modes = self._raised(seen, modes, rung)
        best = modes.best()
        return modes, self._shortfall(self._fit(seen, best, 0))

    def _first(self, seen: Observations) -> Modes:
        """Candidates at the first limit, from one proposer after another as long as there is doubt."""
        first, *others = self._proposers
        modes = self._searched(first, seen, torch.arange(len(seen.images)))
        for proposer in others:
            short = self._shortfall(self._fit(seen, modes.best(), 0))
            doubtful = (short > _DOUBTFUL).nonzero()[:, 0]
            if len(doubtful):
                modes = Modes.join(modes, self._searched(proposer, seen, doubtful)).distinct(self._thinning(0))
        return modes

    def _searched(self, proposer: Proposer, seen: Observations, rows: Tensor) -> Modes:
        volume, grid = self._lattices[0]
        some = seen.up_to(grid.radius)
        return search([proposer], volume, grid, some, rows, shift_sd=SHIFT_SD * self.box, thinning=self._thinning(0))

    def _raised(self, seen: Observations, modes: Modes, rung: int) -> Modes:
        """The modes at their optimum at a higher limit."""
        volume, grid = self._lattices[rung]
        some = seen.up_to(grid.radius)
        poses, misfit = refine_poses(volume, grid, some, modes.poses, steps=_STEPS, shift_sd=SHIFT_SD * self.box)
        return modes.with_poses(poses, misfit).distinct(self._thinning(rung))

    def _thinning(self, rung: int) -> Thinning:
        return Thinning.at(self.limits[rung], _MODES[min(rung, len(_MODES) - 1)])

    def _fit(self, seen: Observations, best: Modes, rung: int) -> Fit:
        volume, grid = self._lattices[rung]
        return fits_of(volume, grid, seen.up_to(grid.radius), best.poses)

    def _shortfall(self, fit: Fit) -> Tensor:
        contrast = fit.cross / fit.power.clamp_min(1e-9)
        return (self.model.contrast - contrast) * (2 * fit.power).sqrt()

    def _contrasts(self, seen: Observations, modes: Modes, rung: int) -> Tensor:
        """Contrast of each image at its best pose, held to the usual one."""
        fit, usual = self._fit(seen, modes.best(), rung), self.model.contrast
        contrast = (fit.cross + _CONTRAST_PRIOR * usual) / (fit.power + _CONTRAST_PRIOR)
        return contrast.clamp(_CONTRAST[0] * usual, _CONTRAST[1] * usual).float()
