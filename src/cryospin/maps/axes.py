"""How symmetric a map is about every axis through its centre, at low frequency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import healpix
import numpy as np
import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, map_to_grid
from cryospin.geometry.rotations import in_plane, to_rotation_vectors
from cryospin.geometry.so3_grid import rotation_grid
from cryospin.geometry.symmetry import point_group
from cryospin.kernels.reference import sample

FINE, COARSE = 16, 8
"""HEALPix grids of axes, 3.7 and 7.3 degrees apart."""

_ANGLES = 64
"""Samples on a circle about an axis: enough for 31 waves."""

_RING_STEP = 0.7
"""Distance of neighbouring circles on a shell, cycles per box."""

_CHUNK = 256
_BEST_AXES, _POLYHEDRAL_STEP_DEG, _DIHEDRAL_STEP_DEG = 5, 6.0, 2.0
_APART_DEG = 12.0


@dataclass(frozen=True)
class AxisSpectra:
    """Power of a map's angular waves about each of n axes.

    About an axis, a map is a sum of waves `exp(i m phi)`; turned about it by `a`, it correlates with itself by
    `sum_m P_m cos(m a) / sum_m P_m`. Each shell is without its mean, which any turn leaves alone, and has power 1.

    direction: float64 `(n, 3)`, half of all directions
    power: float64 `(n, waves)`, sums to 1 for each axis
    nside: of the HEALPix grid of axes
    """

    direction: Tensor
    power: Tensor
    nside: int = FINE

    @classmethod
    def of(cls, density: Tensor, radius: int, nside: int = FINE) -> AxisSpectra:
        """Spectra of a map `(d, d, d)` from shells 2 to `radius`, each coefficient counting alike."""
        pixels = np.stack(healpix.pix2vec(nside, np.arange(healpix.nside2npix(nside))), axis=1)
        direction = torch.from_numpy(pixels[_first_of_pair(pixels)])
        grid = FourierGrid(radius)
        volume = map_to_grid(density, grid)
        rings, weight = _rings(radius)
        power = [
            _wave_power(sample(volume, grid, rings @ frames.mT[:, None].float()), weight)
            for frames in _frames(direction).split(_CHUNK)
        ]
        return cls(direction, torch.cat(power), nside)

    @cached_property
    def _row_of_pixel(self) -> Tensor:
        """Row of each HEALPix pixel's axis."""
        npix = healpix.nside2npix(self.nside)
        row = torch.empty(npix, dtype=torch.long)
        v = self.direction.numpy()
        for sign in (1, -1):
            pixel = healpix.vec2pix(self.nside, *(sign * v).T)
            row[torch.from_numpy(pixel)] = torch.arange(len(v))
        return row

    def turned(self, angle: float) -> Tensor:
        """Correlation of the map with itself turned about each axis by an angle in radians, float64 `(n,)`."""
        m = torch.arange(self.power.shape[1], dtype=torch.float64)
        return self.power @ torch.cos(m * angle)

    def fold(self, n: int) -> Tensor:
        """Mean correlation over the turns of an n-fold axis along each direction, float64 `(n,)`."""
        return torch.stack([self.turned(2 * math.pi * k / n) for k in range(1, n)]).mean(0)

    def at(self, values: Tensor, directions: Tensor) -> Tensor:
        """Values `(n,)` of the axes nearest to directions `(..., 3)`."""
        x, y, z = directions.double().numpy().reshape(-1, 3).T
        pixel = torch.from_numpy(healpix.vec2pix(self.nside, x, y, z))
        return values[self._row_of_pixel[pixel]].reshape(directions.shape[:-1])

    def of_group(self, group: Tensor, frames: Tensor) -> Tensor:
        """Mean correlation over all turns but none of a group whose axes stand in given frames.

        group: `(order, 3, 3)`; frames: `(m, 3, 3)`, the columns of which are the group's x, y and z in the map
        returns: float64 `(m,)`
        """
        total = torch.zeros(len(frames), dtype=torch.float64)
        for axis, angle, count in turns_of(group):
            total += count * self.at(self.turned(angle), frames.double() @ axis)
        return total / (len(group) - 1)

    def frames_of(self, name: str, count: int) -> Tensor:
        """The most promising frames of a point group, distinct from each other: float64 `(count or fewer, 3, 3)`."""
        group = point_group(name)
        frames = self._trial_frames(name)
        score = self.of_group(group, frames)
        kept: list[int] = []
        for i in score.argsort(descending=True).tolist():
            if len(kept) == count:
                break
            if not kept or float(_apart_deg(frames[i], frames[kept], group).min()) > _APART_DEG:
                kept.append(i)
        return frames[kept]

    def _trial_frames(self, name: str) -> Tensor:
        """Frames worth trying: every axis for C groups, 2-folds about the best axes for D, all turns for the others."""
        kind, fold = name[0], int(name[1:]) if name[0] in "CD" else 0
        if kind not in "CD":
            return rotation_grid(_POLYHEDRAL_STEP_DEG).double()
        order = self.fold(fold).argsort(descending=True)
        if kind == "C":
            return _frames(self.direction[order[:200]])
        chosen: list[int] = []
        for i in order.tolist():
            near = (self.direction[chosen] @ self.direction[i]).abs()
            if not chosen or float(near.max()) < math.cos(math.radians(_APART_DEG)):
                chosen.append(i)
            if len(chosen) == _BEST_AXES:
                break
        # The neighbours of the best axes too, since each is known to a few degrees only.
        close = (self.direction @ self.direction[chosen].T).abs() > math.cos(math.radians(5.0))
        rows = close.any(1).nonzero()[:, 0]
        angles = torch.arange(0, 180 / fold, _DIHEDRAL_STEP_DEG, dtype=torch.float64).deg2rad()
        about = in_plane(angles)
        return (_frames(self.direction[rows])[:, None] @ about).flatten(0, 1)


def turns_of(group: Tensor) -> list[tuple[Tensor, float, int]]:
    """A group's turns as axis (float64 `(3,)`), angle in radians up to pi, and how many have both; without the identity."""
    found: list[tuple[Tensor, float, int]] = []
    for vector in to_rotation_vectors(group[1:]):
        angle = float(vector.norm())
        axis = vector / angle
        for i, (other, same, count) in enumerate(found):
            if abs(same - angle) < 1e-3 and abs(float(other @ axis)) > 0.9999:
                found[i] = (other, same, count + 1)
                break
        else:
            found.append((axis, angle, 1))
    return found


def _rings(radius: int) -> tuple[Tensor, Tensor]:
    """Circles about z on half of each shell.

    returns: float32 `(rings, _ANGLES, 3)` frequencies, and `(rings, 2)`: the shell and the circle's share of it
    """
    phi = 2 * math.pi * torch.arange(_ANGLES) / _ANGLES
    points, share = [], []
    for shell in range(2, radius + 1):
        count = math.ceil(math.pi / 2 * shell / _RING_STEP)
        # Circles at evenly spaced heights hold equal areas; the other half of the shell is conjugate.
        z = (torch.arange(count) + 0.5) / count
        rho = (1 - z**2).sqrt()
        ring = torch.stack([rho[:, None] * phi.cos(), rho[:, None] * phi.sin(), z[:, None].expand(-1, _ANGLES)], -1)
        points.append(shell * ring)
        share += [(shell, 1 / count)] * count
    return torch.cat(points), torch.tensor(share, dtype=torch.float64)


def _wave_power(values: Tensor, weight: Tensor) -> Tensor:
    """Power of each wave about some axes: `(n, rings, _ANGLES)` complex samples to float64 `(n, _ANGLES // 2 + 1)`."""
    shell, share = weight[:, 0].long(), weight[:, 1]
    waves = torch.fft.fft(values.to(torch.complex128), dim=-1, norm="forward")
    member = torch.nn.functional.one_hot(shell).double() * share[:, None]
    # The mean over a whole shell is real: its other half is the conjugate.
    mean = (waves[..., 0].real @ member)[:, shell]
    waves[..., 0] -= mean
    power = waves.abs() ** 2
    of_shell = (power.sum(-1) @ member).clamp_min(1e-30)
    # As many coefficients as the square of the radius.
    size = shell.double() ** 2 * share / of_shell[:, shell]
    total = (power * size[..., None]).sum(1)
    folded = total[:, : _ANGLES // 2 + 1].clone()
    folded[:, 1 : _ANGLES // 2] += total[:, _ANGLES // 2 + 1 :].flip(1)
    return folded / folded.sum(1, keepdim=True)


def _frames(direction: Tensor) -> Tensor:
    """Right-handed frames with z along unit vectors `(n, 3)`: float64 `(n, 3, 3)`, columns x, y, z."""
    z = direction.double()
    helper = torch.eye(3, dtype=torch.float64)[z.abs().argmin(1)]
    x = torch.nn.functional.normalize(torch.linalg.cross(helper, z), dim=1)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=2)


def _apart_deg(frame: Tensor, others: Tensor, group: Tensor) -> Tensor:
    """Angles in degrees between a frame and others `(n, 3, 3)`, modulo the group, and of a single axis between the axes."""
    if (group @ group[1] - group[1] @ group).abs().max() < 1e-3 and torch.allclose(group[:, 2, 2], torch.ones(len(group))):
        return torch.rad2deg(torch.arccos((others[:, :, 2] @ frame[:, 2]).abs().clamp(max=1)))
    mates = frame @ group.double()
    trace = torch.einsum("gij,nij->ng", mates, others)
    return torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1))).amin(1)


def _first_of_pair(directions: np.ndarray) -> np.ndarray:
    """Which of each pair of opposite directions comes first."""
    x, y, z = np.round(directions, 9).T
    return (z > 0) | ((z == 0) & ((y > 0) | ((y == 0) & (x > 0))))
