"""Even grids of rotations: HEALPix view directions times in-plane angles."""

from __future__ import annotations

import math

import healpix
import numpy as np
import torch
from torch import Tensor

from cryospin.geometry.rotations import from_relion_angles


def view_directions(step_deg: float) -> np.ndarray:
    """HEALPix directions about `step_deg` apart, as (rot, tilt) in degrees, float64 `(n, 2)`."""
    nside = max(1, round(math.degrees(math.sqrt(math.pi / 3)) / step_deg))
    tilt, rot = healpix.pix2ang(nside, np.arange(healpix.nside2npix(nside)))
    return np.degrees(np.stack([rot, tilt], axis=1))


def rotation_grid(step_deg: float, in_plane_deg: float = 360.0) -> Tensor:
    """Rotations about `step_deg` apart, float32 `(views * in_plane, 3, 3)`, in-plane angle running fastest.

    in_plane_deg: range of the in-plane angle; 180 where each rotation stands for its half turn as well

    Raises `ValueError` for a step that is not positive.
    """
    if step_deg <= 0:
        raise ValueError(f"the angular step must be positive, not {step_deg}")
    views = torch.from_numpy(view_directions(step_deg))
    count = max(1, round(in_plane_deg / step_deg))
    psi = torch.arange(count, dtype=torch.float64) * (in_plane_deg / count)
    angles = torch.cat([views.repeat_interleave(count, 0), psi.repeat(len(views))[:, None]], dim=1)
    return from_relion_angles(angles).float()


def sorted_by_view(rotations: Tensor, nside: int = 64) -> Tensor:
    """Order in which neighbours look along nearby axes (opposite views count as the same), int64 `(n,)`.

    A slice and its neighbour in this order touch nearly the same voxels, which keeps them in cache.
    """
    axis = rotations[:, 2].double().cpu().numpy()
    axis = axis * np.where(axis[:, 2:] < 0, -1.0, 1.0)
    pixel = healpix.vec2pix(nside, axis[:, 0], axis[:, 1], axis[:, 2], nest=True)
    return torch.from_numpy(np.argsort(pixel, kind="stable")).to(rotations.device)
