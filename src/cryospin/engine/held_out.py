"""What images say of a map they had no part in, beside what images of nothing say of it.

A map that images were aligned to fits them, right or wrong, and the better the more poses were tried. Two comparisons see
through that. The images are split in two halves, and each is held against the map that the other half gives: what was fitted
to one half's noise does not help the other. And images without a particle, of the same spectrum, look for their poses in the
same map by the same search: what real images gain beyond these, they gain by being of a particle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from cryospin.engine.candidates import GridProposer, search
from cryospin.engine.half_sets import HalfSets, members, sums_of_halves
from cryospin.engine.problem import Problem
from cryospin.evenly import evenly_spaced
from cryospin.fourier import FourierGrid
from cryospin.kernels.types import Observations
from cryospin.poses.gauss_newton import refine_poses
from cryospin.poses.modes import Modes, Thinning
from cryospin.proposals.grid import GridSearch

Volumes = Callable[[int], tuple[Tensor, FourierGrid]]
"""Gives the lattice of half 0's or half 1's map."""

_SEED = 11
_SEARCHED = 150
"""Images of each half that are compared with as many of nothing."""

_STEPS = 1


class Gains(NamedTuple):
    """Mean over images of how much likelier each is with the particle than without, nats.

    own: by the map of the half that the image belongs to
    other: by the other half's map
    """

    own: float
    other: float


class BesideNothing(NamedTuple):
    """What some images gain in the other half's map, and what images of nothing gain there.

    gain, of_nothing: log-likelihood at the best pose over that of no particle, float64 `(n,)`, nats
    views_of_nothing: the view directions that images of nothing chose, in the map's frame, `(n, 3)`
    """

    gain: Tensor
    of_nothing: Tensor
    views_of_nothing: Tensor

    @property
    def lead(self) -> float:
        """By how many standard deviations of one image the images gain more than images of nothing do."""
        spread = ((self.gain.var() + self.of_nothing.var()) / 2).sqrt()
        return float((self.gain.mean() - self.of_nothing.mean()) / spread.clamp_min(1e-9))


def halved(count: int, device: torch.device) -> Tensor:
    """0 or 1 for each of so many images, at random but always the same: `(count,)`."""
    return (torch.randperm(count, generator=torch.Generator().manual_seed(_SEED)) % 2).to(device)


def half_volumes(problem: Problem, observations: Observations, modes: Modes, half: Tensor) -> Volumes:
    """The two maps that the halves' own images give, each spread over its modes.

    observations: with the weights they are to be inserted with, up to the frequency limit
    """
    radius, sums = observations.disc.radius, sums_of_halves(observations, modes, half, problem.early_group)
    lattices = [problem.masked_volume(s.solve(problem.signal, radius), radius) for s in sums]
    return lattices.__getitem__


def gains(problem: Problem, observations: Observations, modes: Modes, half: Tensor, volumes: Volumes) -> Gains:
    """Each image's best mode, after a step to its optimum in either map."""
    own = other = 0.0
    for number in (0, 1):
        part = modes.take(members(modes, half, number))
        for which in (0, 1):
            poses, misfit = refine_poses(*volumes(which), observations, part.poses, steps=_STEPS, shift_sd=problem.shift_sd)
            total = -float(part.with_poses(poses, misfit).best().misfit.sum())
            own, other = (own + total, other) if which == number else (own, other + total)
    return Gains(own / len(half), other / len(half))


def shares(problem: Problem, observations: Observations, modes: Modes, half: Tensor, volumes: Volumes) -> Tensor:
    """Posterior probability of each mode among those of its image, by the map that the other half gives: float32 `(n,)`.

    Judged by a map that contains it, an image favours the pose at which it was inserted, the more so the fewer images there
    are: at `r` cycles per box, of `N` images, by about `4 pi r^3 / 3N` nats where the map is not filtered.

    observations: weighted, up to the frequency limit
    half: 0 or 1 for each of the observations
    """
    image, misfit = modes.poses.image, torch.zeros_like(modes.misfit)
    contested = image.bincount()[image] > 1
    for number in (0, 1):
        rows = (contested & (half[image] == number)).nonzero()[:, 0]
        poses = modes.poses.take(rows)
        misfit[rows] = refine_poses(*volumes(1 - number), observations, poses, steps=_STEPS, shift_sd=problem.shift_sd)[1]
    return modes.with_poses(modes.poses, misfit).responsibilities()


def shares_in(sets: HalfSets, modes: Modes, radius: int) -> Tensor:
    """`shares` by half maps as they stand."""
    return shares(sets.problem, sets.observations(radius), modes, sets.half, lambda half: sets.volume(half, radius))


def agreement(sets: HalfSets, modes: Modes, radius: int) -> float:
    """Of the images with several modes, how many have the same best one by either half's map; 1 where none has several."""
    image, observations = modes.poses.image, sets.observations(radius)
    contested = image.bincount(minlength=len(sets.half)) > 1
    best = torch.ones_like(image, dtype=torch.bool)
    for half in (1 - sets.half, sets.half):
        share = shares(sets.problem, observations, modes, half, lambda number: sets.volume(number, radius))
        most = torch.zeros(len(sets.half), device=share.device).scatter_reduce_(0, image, share, "amax")
        best &= share == most[image]
    agreed = torch.zeros_like(contested)
    agreed[image[best]] = True
    return float(agreed[contested].double().mean()) if bool(contested.any()) else 1.0


def of_nothing(observations: Observations, generator: torch.Generator) -> Observations:
    """The same images with random phases: their spectra, and no particle."""
    phase = torch.rand(observations.images.shape, generator=generator) * (2 * math.pi)
    return observations._replace(images=torch.polar(observations.images.abs(), phase.to(observations.device)))


def beside_nothing(problem: Problem, observations: Observations, half: Tensor, volumes: Volumes) -> BesideNothing:
    """Some images of each half look for their poses in the other half's map, and images of nothing do.

    observations: weighted, up to the frequency limit
    half: 0 or 1 for each of the observations
    """
    generator = torch.Generator().manual_seed(_SEED)
    proposer = GridProposer(GridSearch(problem.shift_sd, problem.shift_limit, generator))
    thinning = Thinning.at(observations.disc.radius, group=problem.early_group)
    real: list[Modes] = []
    nothing: list[Modes] = []
    for number in (0, 1):
        rows = (half == number).nonzero()[:, 0]
        rows = rows[evenly_spaced(len(rows), _SEARCHED, rows.device)]
        few, everyone = observations.take(rows), torch.arange(len(rows), device=rows.device)
        volume, grid = volumes(1 - number)
        for images, found in ((few, real), (of_nothing(few, generator), nothing)):
            modes = search([proposer], volume, grid, images, everyone, shift_sd=problem.shift_sd, thinning=thinning)
            found.append(modes.best())
    gain, gain_of_nothing = (-torch.cat([best.misfit for best in found]) for found in (real, nothing))
    return BesideNothing(gain, gain_of_nothing, torch.cat([best.poses.rotation[:, 2] for best in nothing]))
