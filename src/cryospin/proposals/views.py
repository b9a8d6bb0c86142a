"""Views completed to poses: the best in-plane angle and shift for given view directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid
from cryospin.geometry.rotations import half_turned, in_plane, with_half_turns
from cryospin.kernels import dispatch as kernels
from cryospin.kernels.types import Observations, Poses

_CHUNK = 100


def shared_views(
    volume: Tensor, grid: FourierGrid, observations: Observations, views: Tensor, shifts: Tensor, prior: Tensor, step: float
) -> Poses:
    """The best pose of every image in each of some views, the same for all images.

    views: `(V, 3, 3)`; shifts: `(S, 2)`, pixels; prior: their log-prior `(S,)`; step: in-plane, degrees
    returns: `n * V` hypotheses, by image
    """
    turned = _turned(views, step)
    slices = kernels.slices(volume, grid, turned.flatten(0, 1), observations.disc)
    scores = kernels.grid_scores(slices, observations, shifts, prior)
    # The grid runs over half turns, views and in-plane angles; the best is wanted of each view.
    cells = torch.arange(scores.best.shape[1], device=views.device).view(2, *turned.shape[:2]).transpose(0, 1).flatten(1)
    cell = cells.gather(1, scores.best[:, cells].argmax(2).T).T
    image = torch.arange(len(cell), device=views.device).repeat_interleave(len(views))
    rotations = with_half_turns(turned.flatten(0, 1))
    return Poses(image, rotations[cell.flatten()], shifts[scores.shift.gather(1, cell).flatten()])


def own_views(
    volume: Tensor, grid: FourierGrid, observations: Observations, views: Tensor, shifts: Tensor, prior: Tensor, step: float
) -> Poses:
    """The best pose of every image in each of its own views `(n, M, 3, 3)`: `n * M` hypotheses, by image."""
    parts = []
    for rows in torch.arange(len(views), device=views.device).split(_CHUNK):
        rotation, shift = _own(volume, grid, observations.take(rows), views[rows], shifts, prior, step)
        parts.append(Poses(rows.repeat_interleave(views.shape[1]), rotation.flatten(0, 1), shift.flatten(0, 1)))
    return Poses.join(parts)


def _own(
    volume: Tensor, grid: FourierGrid, o: Observations, views: Tensor, shifts: Tensor, prior: Tensor, step: float
) -> tuple[Tensor, Tensor]:
    """Rotations `(n, M, 3, 3)` and shifts `(n, M, 2)` of the best in-plane turn of each view."""
    turned = _turned(views, step)
    count, heads, turns = turned.shape[:3]
    slices = kernels.slices(volume, grid, turned.flatten(0, 2), o.disc).unflatten(0, (count, heads * turns))
    weight = o.weight[o.group] * o.scale[:, None]
    moved = (o.images * o.ctf * weight)[:, None] * o.disc.shift_phase(shifts, o.box).conj()
    power = (o.ctf**2 * weight * o.scale[:, None])[:, None] @ (slices.real**2 + slices.imag**2).mT
    # A turn by half the circle conjugates a slice: the imaginary parts' product changes its sign.
    real, imaginary = moved.real @ slices.real.mT, moved.imag @ slices.imag.mT
    score, shift = (2 * torch.stack([real + imaginary, real - imaginary]) + prior[:, None]).max(2)
    score, shift = (x.unflatten(2, (heads, turns)).permute(1, 2, 0, 3).flatten(2) for x in (score - power[:, 0], shift))
    best = score.argmax(2)
    at = torch.arange(count, device=best.device)[:, None], torch.arange(heads, device=best.device)
    rotation = turned[*at, best % turns]
    rotation = torch.where((best < turns)[..., None, None], rotation, half_turned(rotation))
    return rotation, shifts[shift[*at, best]]


def _turned(views: Tensor, step: float) -> Tensor:
    """Views `(..., 3, 3)` turned in the plane, in steps of degrees up to a half turn: `(..., turns, 3, 3)`."""
    count = max(1, round(180.0 / step))
    turns = in_plane(torch.arange(count, device=views.device) * (math.pi / count))
    return turns @ views[..., None, :, :]
