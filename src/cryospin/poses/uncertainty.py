"""The posterior about a mode, as a few poses that stand for it.

An image leaves its pose uncertain by a degree or two. The map that is likeliest given that is not the average of the
images at their best poses, but at all their poses with the probability of each (Dempster, Laird and Rubin, 1977): far
from the particle's middle, where a turn moves the most, each image counts over a wider range of places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid
from cryospin.geometry.rotations import turn
from cryospin.kernels import dispatch as kernels
from cryospin.kernels.types import Observations, Poses

POINTS = 6
"""As many points in five dimensions have any mean and covariance: the corners of a simplex."""

_TURN_SD = 0.2
"""Radians beyond which no mode is a Gaussian; what an image does not settle at all is spread so far."""


def spread(volume: Tensor, grid: FourierGrid, observations: Observations, poses: Poses, *, shift_sd: float) -> Poses:
    """Points with the mean and covariance of the posterior about each hypothesis, to second order of its misfit.

    poses: n hypotheses, each where its misfit is lowest
    shift_sd: standard deviation of the Gaussian prior on shifts, pixels
    returns: `POINTS` n equally likely hypotheses, those of one hypothesis one after another
    """
    corners, moves = _simplex(poses.shift.device), poses.shift.new_empty(len(poses.image), POINTS, 5)
    for some, block, rows in observations.blocks(poses):
        precision = 2 * kernels.normal_equations(volume, grid, some, block).matrix.double()
        precision[:, range(3), range(3)] += 1 / _TURN_SD**2
        precision[:, range(3, 5), range(3, 5)] += 1 / shift_sd**2
        root = torch.linalg.cholesky(torch.linalg.inv(precision))
        moves[rows] = (corners @ root.mT).float()
    # The corners of a simplex are askew. Every other image takes the opposite ones, so that the map is not.
    moves *= (1 - 2 * (poses.image % 2))[:, None, None]
    image = poses.image.repeat_interleave(POINTS)
    rotation = turn(poses.rotation.repeat_interleave(POINTS, 0), moves[..., :3].flatten(0, 1).double())
    return Poses(image, rotation, poses.shift.repeat_interleave(POINTS, 0) + moves[..., 3:].flatten(0, 1))


def _simplex(device: torch.device) -> Tensor:
    """Corners `(POINTS, 5)` of a regular simplex whose mean is 0 and whose covariance is 1."""
    centred = torch.eye(POINTS, dtype=torch.float64) - 1 / POINTS
    # The rows of the centred unit vectors span five dimensions; in a basis of those they are the corners.
    values, basis = torch.linalg.eigh(centred)
    return (POINTS**0.5 * centred @ basis[:, values > 0.5]).to(device)
