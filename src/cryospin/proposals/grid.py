"""Poses from a grid over all rotations and shifts at low frequency."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cryospin.evenly import evenly_spaced
from cryospin.fourier import FourierGrid
from cryospin.geometry.rotations import random_rotations, with_half_turns
from cryospin.geometry.so3_grid import rotation_grid
from cryospin.kernels import dispatch as kernels
from cryospin.kernels.types import GridExpectation, Observations, Poses

_FINEST_STEP_DEG = 14.5
_PROBE_IMAGES = 24


class SoftAssignment(NamedTuple):
    """Images spread over the poses of a grid.

    rotations: `(G, 3, 3)`, half of the grid; the other half is the same turned by 180 degrees in the plane
    sums: the images averaged over their posterior, for each of these rotations
    best: the most likely pose of each image
    sharpness: the power the posterior was raised to
    """

    rotations: Tensor
    sums: GridExpectation
    best: Poses
    sharpness: float


class GridSearch:
    """Scores images against every pose of a grid matched to the frequency limit.

    Rotations are about `1 / r` radians apart, but never closer than 4,608 of them are; shifts `D / 4r` pixels. Rotations
    come in pairs a half turn in the plane apart, which share a slice.
    The grid is turned and moved at random at each use, so that its steps leave no mark on the volume.

    shift_sd: standard deviation of the prior on shifts, pixels
    shift_limit: largest shift searched, pixels
    """

    def __init__(self, shift_sd: float, shift_limit: float, generator: torch.Generator) -> None:
        self.shift_sd, self.shift_limit, self.generator = shift_sd, shift_limit, generator

    def expectation(
        self, volume: Tensor, grid: FourierGrid, observations: Observations, perplexity: float
    ) -> SoftAssignment:
        """Images averaged over their posterior, softened to an effective number of poses.

        perplexity: effective number of poses an image should be spread over
        """
        rotations, shifts, prior = self._cells(observations)
        slices = kernels.slices(volume, grid, rotations, observations.disc)
        # Rows are in the table's order, and its first images need not be like the others.
        probe = observations.take(evenly_spaced(len(observations.images), _PROBE_IMAGES, volume.device))
        ladder = 2.0 ** -torch.arange(0, 10, 1.0, device=volume.device)
        entropy = kernels.grid_entropies(slices, probe, shifts, prior, ladder).mean(0)
        sharpness = _interpolate(math.log(perplexity), entropy, ladder)
        sums = kernels.grid_expectation(slices, observations, shifts, prior, sharpness)
        every = with_half_turns(rotations)
        turn, move = sums.best % len(every), sums.best // len(every)
        best = Poses(torch.arange(len(sums.best), device=volume.device), every[turn], shifts[move])
        return SoftAssignment(rotations, sums, best, sharpness)

    def propose(self, volume: Tensor, grid: FourierGrid, observations: Observations, count: int) -> Poses:
        """The `count` best rotations of the grid for each image, each with its best shift."""
        rotations, shifts, prior = self._cells(observations)
        slices = kernels.slices(volume, grid, rotations, observations.disc)
        scores = kernels.grid_scores(slices, observations, shifts, prior)
        every = with_half_turns(rotations)
        chosen = scores.best.topk(min(count, len(every)), dim=1).indices
        image = torch.arange(len(chosen), device=volume.device).repeat_interleave(chosen.shape[1])
        return Poses(image, every[chosen.flatten()], shifts[scores.shift.gather(1, chosen).flatten()])

    def _cells(self, observations: Observations) -> tuple[Tensor, Tensor, Tensor]:
        """Half of the rotations, shifts and the shifts' log-prior at the observations' frequency limit."""
        step = max(_FINEST_STEP_DEG, math.degrees(1 / observations.disc.radius))
        rotations = rotation_grid(step, in_plane_deg=180.0) @ random_rotations(1, self.generator)[0]
        return rotations.to(observations.images.device), *self.shifts(observations)

    def shifts(self, observations: Observations) -> tuple[Tensor, Tensor]:
        """Shifts `(S, 2)` in pixels at the observations' frequency limit, moved at random, and their log-prior `(S,)`."""
        step = observations.box / (4 * observations.disc.radius)
        shifts = shift_grid(self.shift_limit, step, self.generator).to(observations.images.device)
        return shifts, -(shifts**2).sum(1) / (2 * self.shift_sd**2)


def shift_grid(limit: float, step: float, generator: torch.Generator) -> Tensor:
    """Shifts on a square grid within `limit` of the centre, moved by a random part of a step: `(S, 2)`, pixels."""
    reach = int(limit // step)
    axis = torch.arange(-reach, reach + 1) * step
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([x.flatten(), y.flatten()], 1)
    grid = grid[grid.norm(dim=1) <= limit * (1 + 1e-6)]
    return grid + (torch.rand(1, 2, generator=generator) - 0.5) * step


def _interpolate(target: float, entropy: Tensor, sharpness: Tensor) -> float:
    """Sharpness at which the entropy, which falls with it, meets a target; the ladder's ends bound it."""
    above = (entropy >= target).nonzero()
    if len(above) == 0:
        return float(sharpness[-1])
    i = int(above[0])
    if i == 0:
        return float(sharpness[0])
    t = (target - entropy[i - 1]) / (entropy[i] - entropy[i - 1])
    return float(sharpness[i - 1] ** (1 - t) * sharpness[i] ** t)
