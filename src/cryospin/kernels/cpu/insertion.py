"""Add images to a volume's sums: the adjoint of slicing."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.geometry.so3_grid import sorted_by_view
from cryospin.kernels.cpu.arithmetic import sine_cosine
from cryospin.kernels.cpu.compile import F, array, columns, compiled, floats, inlined
from cryospin.kernels.cpu.interpolation import locate, workspace
from cryospin.kernels.cpu.tiles import BLOCK, tiles
from cryospin.kernels.threads import for_each_part, parts
from cryospin.kernels.types import Observations, Poses

_BYTES_PER_POINT = 16


def insert(
    numerator: Tensor,
    denominator: Tensor,
    grid: FourierGrid,
    observations: Observations,
    poses: Poses,
    responsibility: Tensor,
) -> None:
    """Add images to a volume's sums at their poses, quickest in an order of views; see `reference.insert`."""
    o = observations
    data = (*columns(o), array(poses.image), array(poses.rotation), array(poses.shift), array(responsibility))
    box = F(o.box)

    def work(sums, rows):
        _insert_part(sums, grid.half, grid.padding, *data, box, rows)

    _spread(numerator, denominator, np.arange(len(poses.image)), work)


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
    own = numerator.numel() * _BYTES_PER_POINT
    sums = _workspace(tuple(numerator.shape), len(parts(len(order), own)))

    def insert_part(thread: int, start: int, stop: int) -> None:
        _clear(sums[thread])
        work(sums[thread], order[start:stop])

    for_each_part(insert_part, len(order), own)
    targets = torch.view_as_real(numerator).numpy(), denominator.numpy()
    for_each_part(lambda _, first, last: _collect(sums, first, last, *targets), len(numerator))


@lru_cache(maxsize=1)
def _workspace(shape: tuple[int, int, int], threads: int) -> np.ndarray:
    """Private sums of each thread, kept between calls: fresh memory costs as much as what is done with it."""
    return np.empty((threads, *shape, 4), np.float32)


@compiled
def _clear(sums):
    flat = sums.reshape(sums.size)
    for i in range(flat.size):
        flat[i] = F(0)


@compiled
def _collect(sums, start, stop, numerator, denominator):
    """Add the threads' sums between two planes to the volume's."""
    for t in range(sums.shape[0]):
        for z in range(start, stop):
            for y in range(sums.shape[2]):
                for x in range(sums.shape[3]):
                    numerator[z, y, x, 0] += sums[t, z, y, x, 0]
                    numerator[z, y, x, 1] += sums[t, z, y, x, 1]
                    denominator[z, y, x] += sums[t, z, y, x, 2]


@compiled
def _deposit(sums, half, padding, rotation, kx, ky, space, values):
    """Add weighted complex values to the eight lattice points about each of up to `BLOCK` points of a slice.

    sums: `(z, y, x, 4)`: real part, imaginary part, weight, and the weight again, so that a point is one vector
    values: `(p, 3)`: real part, imaginary part, weight
    """
    flat = sums.reshape(sums.size)
    cell, place, _ = space
    row, plane = np.uintp(4 * sums.shape[2]), np.uintp(4 * sums.shape[2] * sums.shape[1])
    locate(sums.shape, half, padding, rotation, kx, ky, cell, place)
    for p in range(kx.size):
        fx, fy, fz = place[0, p], place[1, p], place[2, p]
        re, im, w = values[p, 0], values[p, 1] * place[3, p], values[p, 2]
        i = np.uintp(4) * np.uintp(cell[p])
        low, high = F(1) - fz, fz
        _add_edge(flat, i, low * (F(1) - fy), fx, re, im, w)
        _add_edge(flat, i + row, low * fy, fx, re, im, w)
        _add_edge(flat, i + plane, high * (F(1) - fy), fx, re, im, w)
        _add_edge(flat, i + plane + row, high * fy, fx, re, im, w)


@inlined
def _add_edge(flat, i, share, fx, re, im, w):
    """Add to the two ends of an x edge."""
    right = share * fx
    left = share - right
    flat[i] += left * re
    flat[i + np.uintp(1)] += left * im
    flat[i + np.uintp(2)] += left * w
    flat[i + np.uintp(3)] += left * w
    flat[i + np.uintp(4)] += right * re
    flat[i + np.uintp(5)] += right * im
    flat[i + np.uintp(6)] += right * w
    flat[i + np.uintp(7)] += right * w


@compiled
def _insert_values_part(sums, half, padding, rotations, kx, ky, values, weights, rows):
    space, buffer = workspace(0), np.empty((BLOCK, 3), np.float32)
    for n, start, stop in tiles(rows.size, kx.size):
        j = rows[n]
        some, share = values[j, 2 * start : 2 * stop], weights[j, start:stop]
        for p in range(stop - start):
            buffer[p, 0], buffer[p, 1], buffer[p, 2] = some[2 * p], some[2 * p + 1], share[p]
        _deposit(sums, half, padding, rotations[j], kx[start:stop], ky[start:stop], space, buffer)


@compiled
def _insert_part(
    sums, half, padding, images, ctf, weight, group, scale, kx, ky, image, rotations, shifts, responsibility, box, rows
):
    space, buffer = workspace(0), np.empty((BLOCK, 3), np.float32)
    for n, start, stop in tiles(rows.size, kx.size):
        j, i = rows[n], image[rows[n]]
        some_x, some_y, some = kx[start:stop], ky[start:stop], images[i, 2 * start : 2 * stop]
        transfer, w = ctf[i, start:stop], weight[group[i], start:stop]
        tx, ty = shifts[j, 0] / box, shifts[j, 1] / box
        a, share = scale[i], responsibility[j]
        for p in range(stop - start):
            sine, cosine = sine_cosine(tx * some_x[p] + ty * some_y[p])
            h = transfer[p] * a
            g = h * w[p] * share
            re, im = some[2 * p], some[2 * p + 1]
            buffer[p, 0] = g * (re * cosine - im * sine)
            buffer[p, 1] = g * (re * sine + im * cosine)
            buffer[p, 2] = g * h
        _deposit(sums, half, padding, rotations[j], some_x, some_y, space, buffer)
