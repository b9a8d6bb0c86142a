"""What each head of an encoder makes of images whose poses are known, and how likely any view of one image is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryospin.engine.trace import Trace
from cryospin.evaluation.pose_error import pose_errors
from cryospin.fourier import FourierGrid
from cryospin.geometry.rotations import distance_deg, flip_hand
from cryospin.geometry.so3_grid import rotation_grid, view_directions
from cryospin.kernels import dispatch as kernels
from cryospin.kernels.types import Observations

_CHUNK = 4608


@dataclass(frozen=True)
class TraceErrors:
    """Rotation errors of a run's followed images, in degrees, modulo a point group.

    of_epochs: of the best pose after each epoch, float64 `(epochs, s)`
    of_heads: of each head at the last epoch that had any, `(s, C)`; every candidate in the frame of the best ones
    heads: rotations of the heads in the frame of the truth, `(epochs with heads, s, C, 3, 3)`
    """

    of_epochs: Tensor
    of_heads: Tensor
    heads: Tensor


def trace_errors(trace: Trace, true: Tensor, group: Tensor) -> TraceErrors:
    """Compare a trace with the true rotations of its images.

    true: `(s, 3, 3)`; group: `(order, 3, 3)`
    """
    none = torch.zeros(len(true), 2)
    epochs = [pose_errors(best, none, true, none, group) for best in trace.best()]
    # The frame of the truth is that in which the run ended.
    frame = epochs[-1]
    heads = torch.stack(trace.guesses)
    heads = (flip_hand(heads) if frame.flipped else heads).double() @ frame.turn
    mates = true.double() @ group.double()[:, None]
    errors = torch.stack([distance_deg(heads[-1], mate[:, None].expand_as(heads[-1])) for mate in mates])
    return TraceErrors(torch.stack([e.rotation_deg for e in epochs]), errors.amin(0), heads)


def view_posterior(
    volume: Tensor, grid: FourierGrid, observations: Observations, step_deg: float = 7.5
) -> tuple[Tensor, Tensor]:
    """Log-likelihood of each view of each image, at the best in-plane angle of a grid and without a shift.

    volume, grid: lattice to be sliced; observations: n images with their weights
    returns: views as (rot, tilt) in degrees `(V, 2)`; float32 `(n, V)`, nats below the best view
    """
    views = torch.from_numpy(view_directions(step_deg))
    rotations = rotation_grid(step_deg, in_plane_deg=180.0)
    none = torch.zeros(1, 2)
    parts = []
    for some in rotations.split(_CHUNK):
        slices = kernels.slices(volume, grid, some, observations.disc)
        scores = kernels.grid_scores(slices, observations, none, torch.zeros(1)).best
        parts.append(scores.unflatten(1, (2, -1)).amax(1))
    score = torch.cat(parts, 1).unflatten(1, (len(views), -1)).amax(2)
    return views, score - score.amax(1, keepdim=True)
