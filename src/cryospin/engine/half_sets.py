"""Two half-sets of images with their maps, and what they say of noise, contrast and resolution."""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.engine.problem import Problem
from cryospin.fourier import FourierGrid, low_pass, map_to_grid, same_transform
from cryospin.kernels.types import Observations
from cryospin.maps.fsc import GOLD_STANDARD, crossing_shell
from cryospin.noise import residual_power, weighted
from cryospin.poses.gauss_newton import fits_of
from cryospin.poses.modes import Modes
from cryospin.poses.uncertainty import POINTS, spread
from cryospin.state import State
from cryospin.volume.accumulated import AccumulatedVolume
from cryospin.volume.halves import HalfMaps, masked_fsc, wiener_filtered
from cryospin.volume.mask import outline_mask, spherical_mask

JOINED = 4
"""Shells up to here are averaged over the halves, which keeps them in one frame.

So far the other half's map has an image in it as well. Of 100 images each gains 0.6 of 460 nats by that, of more less.
"""

_CONTRAST_PRIOR = 25.0
"""Nats by which an image's contrast is held to 1."""

_CONTRAST = (0.05, 3.0)
_SETTLING = 4
_HALVES_SEED = 3


class HalfSets:
    """Two halves of a problem's images, each with a map of its own.

    problem: the images
    half: 0 or 1 for each image, fixed
    noise: power of each noise group in each shell
    density: the map both halves start from, any box

    scale: contrast of each image, 1 on average
    shortfall: by how many standard errors, or robust standard deviations of all contrasts where these are larger, each
        image's contrast falls short of the usual; large where a pose is wrong
    edge: of the mask, fraction of the box; as wide as the maps' finest detail if None
    """

    def __init__(self, problem: Problem, half: Tensor, noise: Tensor, density: Tensor) -> None:
        self.problem, self.half, self.noise = problem, half, noise
        start = same_transform(density, problem.box)
        self.maps = (start, start)
        self.scale = torch.ones(len(problem), device=problem.device)
        self.shortfall = torch.zeros(len(problem), device=problem.device)
        self.mask = spherical_mask(problem.box, problem.mask_diameter, device=problem.device)
        self.fsc = torch.ones(problem.box // 2, dtype=torch.float64, device=problem.device)
        self.edge: float | None = None

    def state(self) -> State:
        """What a pass leaves to the next."""
        return {
            "half": self.half,
            "noise": self.noise,
            "maps": self.maps,
            "scale": self.scale,
            "shortfall": self.shortfall,
            "mask": self.mask,
            "fsc": self.fsc,
            "edge": self.edge,
        }

    @classmethod
    def restored(cls, problem: Problem, state: State) -> HalfSets:
        """The half-sets whose state this is."""
        first, second = state["maps"]
        sets = cls(problem, state["half"], state["noise"], first)
        sets.maps = (first, second)
        sets.scale, sets.shortfall = state["scale"], state["shortfall"]
        sets.mask, sets.fsc, sets.edge = state["mask"], state["fsc"], state["edge"]
        return sets

    @classmethod
    def settled(cls, problem: Problem, half: Tensor, modes: Modes) -> HalfSets:
        """Half maps from given poses, with contrasts, noise and filter in keeping with them."""
        sets = cls(problem, half, problem.noise, torch.zeros((problem.box,) * 3, device=problem.device))
        sets.update(modes, problem.last_shell)
        for _ in range(_SETTLING):
            limit = min(problem.last_shell, int(sets.resolved_shell) + 2)
            sets.measure(modes, limit)
            sets.update(modes, problem.last_shell)
        return sets

    @property
    def resolved_shell(self) -> float:
        """Where the masked half maps' FSC falls below 0.143."""
        return crossing_shell(self.fsc, GOLD_STANDARD)

    def combined(self) -> Tensor:
        """The map of both halves as it stands, masked, `(box, box, box)`."""
        return (self.maps[0] + self.maps[1]) / 2 * self.mask

    def observations(self, radius: int) -> Observations:
        """All images up to a frequency limit, with the weights and contrasts as they stand."""
        return weighted(self.problem.observations.up_to(radius), self.noise)._replace(scale=self.scale)

    def volume(self, half: int, radius: int) -> tuple[Tensor, FourierGrid]:
        """Lattice of one half's map within the mask."""
        grid = FourierGrid(radius)
        return map_to_grid(self.maps[half] * self.mask, grid), grid

    def members(self, half: int, modes: Modes) -> Tensor:
        """Rows of the modes that belong to one half's images."""
        return members(modes, self.half, half)

    def reconstruct(self, modes: Modes, radius: int) -> HalfMaps:
        """Every image in its half's sums, up to a shell, spread over its modes."""
        return HalfMaps(*sums_of_halves(self.observations(radius), modes, self.half, self.problem.group))

    def spread(self, modes: Modes, radius: int) -> Modes:
        """Every mode as some points of its posterior in its half's map, up to a shell."""
        observations, parts = self.observations(radius), []
        for half in (0, 1):
            own = modes.take(self.members(half, modes))
            poses = spread(*self.volume(half, radius), observations, own.poses, shift_sd=self.problem.shift_sd)
            parts.append(Modes(poses, *(values.repeat_interleave(POINTS) for values in (own.misfit, own.source))))
        return Modes.join(*parts)

    def measure(self, best: Modes, radius: int) -> None:
        """Contrast of each image against its half's map, then the noise that is left, up to a shell."""
        observations = self.observations(radius)
        # Others may hold what stood before: a checkpoint, or a refinement that goes on from the same state.
        scale, shortfall = self.scale.clone(), self.shortfall.clone()
        residual = torch.zeros(len(self.noise), radius + 1, dtype=torch.float64, device=self.problem.device)
        for half in (0, 1):
            volume, grid = self.volume(half, radius)
            poses = best.poses.take(self.members(half, best))
            fit = fits_of(volume, grid, observations, poses)
            contrast = (fit.cross + _CONTRAST_PRIOR) / (fit.power + _CONTRAST_PRIOR)
            scale[poses.image] = contrast.clamp(*_CONTRAST).float()
            # Where thick ice makes contrasts vary by more than their error, falling short by that much is no sign of junk.
            shortfall[poses.image] = -(fit.contrast_deviation() / fit.contrast_spread().clamp_min(1)).float()
            power = residual_power(volume, grid, observations._replace(scale=scale), poses)
            residual += power * len(poses.image) / len(self.problem)
        self.scale, self.shortfall = scale / scale.mean(), shortfall
        self.noise = torch.cat([residual, self.problem.noise[:, radius + 1 :]], dim=1)

    def update(self, modes: Modes, radius: int) -> None:
        """Half maps up to a shell, filtered by what they agree on, and a mask about what they share."""
        maps = self.reconstruct(modes, radius).unfiltered(self.problem.box)
        self.fsc = masked_fsc(maps, self.mask)
        # Beyond, there is nothing but what the mask, which both halves have, smears there.
        self.fsc[radius + 1 :] = 0
        first, second = (wiener_filtered(m, self.fsc, whole=False) for m in maps)
        self.mask = outline_mask((first, second), self.problem.mask_diameter, self.edge or 1 / self.resolved_shell)
        low = low_pass((first + second) / 2, JOINED)
        self.maps = (first + low - low_pass(first, JOINED), second + low - low_pass(second, JOINED))


def random_halves(count: int, seed: int) -> Tensor:
    """0 or 1 for each of so many images: `(count,)`."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed + _HALVES_SEED)) % 2


def members(modes: Modes, half: Tensor, number: int) -> Tensor:
    """Rows of the modes that belong to the images of one half; half: 0 or 1 for each image."""
    return (half[modes.poses.image] == number).nonzero()[:, 0]


def sums_of_halves(
    observations: Observations, modes: Modes, half: Tensor, group: Tensor
) -> tuple[AccumulatedVolume, AccumulatedVolume]:
    """Every image in its half's sums, up to the observations' last shell, spread over its modes."""
    share, sums = modes.responsibilities(), []
    for number in (0, 1):
        rows = members(modes, half, number)
        volume = AccumulatedVolume(FourierGrid(observations.disc.radius), group)
        volume.add(observations, modes.poses.take(rows), share[rows])
        sums.append(volume)
    return sums[0], sums[1]
