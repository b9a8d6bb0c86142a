"""Add images to a volume's sums: the adjoint of slicing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.geometry.so3_grid import sorted_by_view
from cryospin.kernels.cpu.arithmetic import sine_cosine
from cryospin.kernels.cpu.compile import F, array, columns, compiled, floats, inlined
from cryospin.kernels.threads import for_each_part, parts
from cryospin.kernels.types import Observations, Poses


def insert(
    numerator: Tensor,
    denominator: Tensor,
    grid: FourierGrid,
    observations: Observations,
    poses: Poses,
    responsibility: Tensor,
) -> None:
    """Add images to a volume's sums at their poses; see `reference.insert`."""
    o = observations
    data = (*columns(o), array(poses.image), array(poses.rotation), array(poses.shift), array(responsibility))
    box = F(o.box)
    order = sorted_by_view(poses.rotation).numpy()

    def work(sums, rows):
        _insert_part(sums, grid.half, grid.padding, *data, box, rows)

    _spread(numerator, denominator, order, work)


def insert_values(
    numerator: Tensor,
    denominator: Tensor,
    grid: FourierGrid,
    rotations: Tensor,
    disc: HalfDisc,
    values: Tensor,
    weights: Tensor,
) -> None:
    """Spread slices over a volume's sums with trilinear weights; see `reference.insert_values`."""
    data = (array(rotations), array(disc.kx), array(disc.ky), floats(values), array(weights))
    order = sorted_by_view(rotations).numpy()
    _spread(
        numerator,
        denominator,
        order,
        lambda sums, rows: _insert_values_part(sums, grid.half, grid.padding, *data, rows),
    )


def _spread(
    numerator: Tensor, denominator: Tensor, order: np.ndarray, work: Callable[[np.ndarray, np.ndarray], None]
) -> None:
    """Insert with one private set of sums a thread, then add the sets in a fixed order."""
    ranges = parts(len(order))
    sums = [np.zeros((*numerator.shape, 4), np.float32) for _ in ranges]
    for_each_part(lambda t, a, b: work(sums[t], order[a:b]), len(order))
    for part in sums:
        numerator += torch.view_as_complex(torch.from_numpy(part[..., :2]))
        denominator += torch.from_numpy(part[..., 2])


@inlined
def _deposit(sums, half, x, y, z, re, im, w):
    """Add one weighted complex value to the eight lattice points about a position (x, y, z in lattice points)."""
    if x < F(0):
        x, y, z, im = -x, -y, -z, -im
    y += half
    z += half
    ix, iy, iz = np.int32(x), np.int32(y), np.int32(z)
    fx, fy, fz = x - F(ix), y - F(iy), z - F(iz)
    for dz in range(2):
        wz = fz if dz == 1 else F(1) - fz
        for dy in range(2):
            wy = wz * (fy if dy == 1 else F(1) - fy)
            right = wy * fx
            left = wy - right
            cell = sums[np.uintp(iz + dz), np.uintp(iy + dy)]
            a, b = np.uintp(ix), np.uintp(ix + 1)
            cell[a, 0] += left * re
            cell[a, 1] += left * im
            cell[a, 2] += left * w
            cell[b, 0] += right * re
            cell[b, 1] += right * im
            cell[b, 2] += right * w


@compiled
def _insert_values_part(sums, half, padding, rotations, kx, ky, values, weights, rows):
    middle = F(half)
    for j in rows:
        r = rotations[j] * F(padding)
        for p in range(kx.size):
            u, v = kx[p], ky[p]
            x, y, z = r[0, 0] * u + r[1, 0] * v, r[0, 1] * u + r[1, 1] * v, r[0, 2] * u + r[1, 2] * v
            _deposit(sums, middle, x, y, z, values[j, 2 * p], values[j, 2 * p + 1], weights[j, p])


@compiled
def _insert_part(
    sums, half, padding, images, ctf, weight, group, scale, kx, ky, image, rotations, shifts, responsibility, box, rows
):
    middle = F(half)
    buffer = np.empty((3, kx.size), np.float32)
    for j in rows:
        i = image[j]
        tx, ty = shifts[j, 0] / box, shifts[j, 1] / box
        a, share = scale[i], responsibility[j]
        w = weight[group[i]]
        for p in range(kx.size):
            sine, cosine = sine_cosine(tx * kx[p] + ty * ky[p])
            h = ctf[i, p] * a
            g = h * w[p] * share
            re, im = images[i, 2 * p], images[i, 2 * p + 1]
            buffer[0, p] = g * (re * cosine - im * sine)
            buffer[1, p] = g * (re * sine + im * cosine)
            buffer[2, p] = g * h
        r = rotations[j] * F(padding)
        for p in range(kx.size):
            u, v = kx[p], ky[p]
            x, y, z = r[0, 0] * u + r[1, 0] * v, r[0, 1] * u + r[1, 1] * v, r[0, 2] * u + r[1, 2] * v
            _deposit(sums, middle, x, y, z, buffer[0, p], buffer[1, p], buffer[2, p])
