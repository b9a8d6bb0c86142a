"""Noisy images of the blobs at known poses, and a round of competition for them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cryospin.engine.candidates import GridProposer
from cryospin.engine.compete import Competition, Standing
from cryospin.engine.problem import Problem
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels.types import Observations, Poses
from cryospin.proposals.grid import GridSearch

BOX, SHELL, LAST_SHELL = 24, 8, 10
DIAMETER, NOISE = 0.84, 0.8


class BlobImages(NamedTuple):
    """Images, the map that they show and their poses."""

    observations: Observations
    density: Tensor
    true: Poses


def blob_images(blobs, observe, count):
    """So many noisy images of the blobs, without weights; `blobs` and `observe` are the fixtures."""
    g = torch.Generator().manual_seed(8)
    density = blobs.density(BOX)
    grid, disc = FourierGrid(LAST_SHELL), HalfDisc.build(LAST_SHELL)
    true = Poses(torch.arange(count), random_rotations(count, g), torch.randn(count, 2, generator=g) * 0.4)
    observations = observe(map_to_grid(density, grid), grid, true, disc, BOX, noise=NOISE)
    return BlobImages(observations._replace(weight=torch.ones_like(observations.weight)), density, true)


def posed(observations):
    """The problem of finding the poses of some images."""
    return Problem.pose(observations, 5.0, mask_diameter=DIAMETER, group=torch.eye(3)[None], last_shell=LAST_SHELL)


def competition_in(problem, density):
    """All images of a problem about to compete in some map."""
    search = GridSearch(problem.shift_sd, problem.shift_limit, torch.Generator().manual_seed(1))
    return Competition(problem, Standing(torch.arange(len(problem)), density, problem.total), [GridProposer(search)])


def half_mirrored(density):
    """A map that is wrong in one half of the box."""
    wrong = density.transpose(0, 2).clone()
    wrong[: BOX // 2] = density[: BOX // 2]
    return wrong
