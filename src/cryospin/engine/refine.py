"""Refinement: every image's pose and shift optimised directly while the volume sharpens.

The images are in two halves, fixed before, and each half is compared with its own volume only. What the halves agree on
decides the frequency limit, the Wiener filter and when to stop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.engine.candidates import Proposer, search, source_names
from cryospin.engine.problem import Problem
from cryospin.engine.record import EpochRecord
from cryospin.evaluation.fsc import crossing_shell
from cryospin.fourier import FourierGrid, low_pass, map_to_grid, resample_map
from cryospin.geometry.rotations import distance_deg
from cryospin.kernels import cpu as kernels
from cryospin.kernels.types import Observations
from cryospin.noise import residual_power, weighted
from cryospin.poses.gauss_newton import refine_poses
from cryospin.poses.modes import Modes
from cryospin.volume.accumulated import AccumulatedVolume
from cryospin.volume.halves import HalfMaps, masked_fsc
from cryospin.volume.mask import outline_mask, spherical_mask

_STEPS = 2
_WORSE_BY, _AT_MOST, _MERGE = 20.0, 4, 0.5
_LOOK_AHEAD = 2
"""Shells beyond the half maps' FSC of 0.143 that poses are compared at."""

_MARGIN = 6
_GROWTH = 1.5
_JOINED = 4
"""Shells up to here are averaged over the halves, which keeps them in one frame."""

_RESCUE_PASSES = (1, 3)
_DOUBTFUL = 0.5
"""An image whose contrast at its best pose is below this share of the volume's is searched again."""

_CONTRAST_PRIOR = 25.0
_STILL = 0.03
"""The refinement ends when poses turn by less than this times the angle the frequency limit can tell, in the median."""


class Refinement:
    """Half-set refinement of all images.

    problem: the images
    modes: hypotheses of every image
    density: the map both halves start from; its resolution is `start` shells
    noise: power of each shell
    """

    stage = "refine"
    epochs = 14

    def __init__(
        self,
        problem: Problem,
        modes: Modes,
        density: Tensor,
        noise: Tensor,
        start: int,
        proposers: list[Proposer],
        generator: torch.Generator,
    ) -> None:
        self.problem, self.modes, self.noise, self.proposers = problem, modes, noise, proposers
        self.names = source_names(proposers)
        self.limit = min(start, problem.last_shell)
        self.half = torch.randperm(len(problem), generator=generator) % 2
        self.scale = torch.ones(len(problem))
        # A transform of a smaller box has the same values on fewer voxels: its map is brighter by the square of the ratio.
        start_map = resample_map(density, problem.box) * (density.shape[-1] / problem.box) ** 2
        self.maps = (start_map, start_map)
        self.mask = spherical_mask(problem.box, problem.mask_diameter)
        self.fsc = torch.ones(problem.box // 2, dtype=torch.float64)
        self.done = 0
        self.finished = ""

    def epoch(self) -> EpochRecord:
        """One pass over all images and an update of both half maps."""
        limit, before = self.limit, self.modes.best()
        observations = self._observations(limit)
        self.modes = Modes.join(*(self._optimise(h, observations, limit) for h in (0, 1))).ranked()[0]
        best = self.modes.best()
        self._update_scale_and_noise(observations, best, limit)
        halves = self.reconstruct(min(limit + _MARGIN, self.problem.last_shell))
        self._update_maps(halves)
        change = distance_deg(best.poses.rotation, before.poses.rotation).median()
        self._advance(limit, float(change))
        return EpochRecord(
            self.stage,
            self.problem.angstrom(limit),
            float(best.misfit.mean()),
            pose_change_deg=float(change),
            winners=torch.bincount(best.source, minlength=len(self.names)).tolist(),
            winner_names=self.names,
            resolution_A=self.problem.angstrom(crossing_shell(self.fsc, 0.143)),
        )

    def reconstruct(self, radius: int) -> HalfMaps:
        """Insert every image in its half's volume, up to a shell."""
        observations = self._observations(radius)
        share = self.modes.responsibilities()
        sums = []
        for half in (0, 1):
            rows = (self.half[self.modes.poses.image] == half).nonzero()[:, 0]
            volume = AccumulatedVolume(FourierGrid(radius), self.problem.group)
            volume.add(observations, self.modes.poses.take(rows), share[rows])
            sums.append(volume)
        return HalfMaps(*sums)

    def _observations(self, radius: int) -> Observations:
        return weighted(self.problem.observations.up_to(radius), self.noise)._replace(scale=self.scale)

    def _optimise(self, half: int, observations: Observations, limit: int) -> Modes:
        """Gauss-Newton on the modes of one half's images against its own volume; doubtful images are searched anew."""
        grid = FourierGrid(limit)
        volume = map_to_grid(self.maps[half] * self.mask, grid)
        own = self.modes.take((self.half[self.modes.poses.image] == half).nonzero()[:, 0])
        poses, misfit = refine_poses(
            volume, grid, observations, own.poses, steps=_STEPS, shift_sd=self.problem.shift_sd
        )
        modes = Modes(poses, misfit, torch.full_like(own.source, len(self.names) - 1))
        rows = modes.best().poses.image
        doubtful = rows[self.scale[rows] < _DOUBTFUL]
        if self.done in _RESCUE_PASSES and len(doubtful):
            modes = Modes.join(modes, self._search(volume, grid, observations, doubtful))
        return modes.distinct(_MERGE / limit, _WORSE_BY, _AT_MOST)

    def _search(self, volume: Tensor, grid: FourierGrid, observations: Observations, rows: Tensor) -> Modes:
        return search(
            self.proposers,
            volume,
            grid,
            observations._replace(scale=torch.ones(len(self.problem))),
            rows,
            shift_sd=self.problem.shift_sd,
            merge=_MERGE / grid.radius,
            worse_by=_WORSE_BY,
            at_most=_AT_MOST,
        )

    def _update_scale_and_noise(self, observations: Observations, best: Modes, limit: int) -> None:
        """Contrast of each image against its half's volume, then the noise that is left."""
        residual = torch.zeros(limit + 1, dtype=torch.float64)
        for half in (0, 1):
            grid = FourierGrid(limit)
            volume = map_to_grid(self.maps[half] * self.mask, grid)
            poses = best.poses.take((self.half[best.poses.image] == half).nonzero()[:, 0])
            equations = kernels.normal_equations(volume, grid, observations, poses)
            contrast = (equations.cross + _CONTRAST_PRIOR) / (equations.power + _CONTRAST_PRIOR)
            self.scale[poses.image] = contrast.clamp(0.05, 3.0).float()
            some = observations._replace(scale=self.scale)
            residual += residual_power(volume, grid, some, poses) * len(poses.image) / len(self.problem)
        self.scale /= self.scale.mean()
        self.noise = torch.cat([residual, self.problem.noise[limit + 1 :]])

    def _update_maps(self, halves: HalfMaps) -> None:
        """Half maps filtered by what they agree on, in one frame by their lowest shells, and a mask from their sum."""
        box = self.problem.box
        self.fsc = masked_fsc(halves.unfiltered(box), self.mask)
        prior = halves.prior_power(self.fsc)
        combined = halves.both.solve(prior, box=box)
        low = low_pass(combined, _JOINED)
        maps = [v.solve(prior, box=box) for v in (halves.first, halves.second)]
        self.maps = (maps[0] + low - low_pass(maps[0], _JOINED), maps[1] + low - low_pass(maps[1], _JOINED))
        self.mask = outline_mask(combined, self.problem.mask_diameter)

    def _advance(self, limit: int, change: float) -> None:
        """Raise the frequency limit to what the halves support, and see whether the work is done."""
        supported = int(crossing_shell(self.fsc, 0.143)) + _LOOK_AHEAD
        self.limit = max(limit, min(supported, int(_GROWTH * limit), self.problem.last_shell))
        self.done += 1
        still = change < _STILL * 57.3 / limit
        if self.limit == limit and still:
            self.finished = f"poses turn by {change:.2f} degrees and the half maps support no higher frequency"
        elif self.done >= self.epochs:
            self.finished = f"the bound of {self.epochs} passes"
