"""Trilinear reading of a volume along slices.

Three loops over a few hundred coefficients instead of one: computing where points lie and combining what was read
vectorise; reading does not, since processors gather slowly, but its corners are vectors of their own.
"""

from __future__ import annotations

import numpy as np

from cryospin.kernels.cpu.compile import F, compiled
from cryospin.kernels.cpu.tiles import BLOCK


@compiled
def workspace(numbers):
    """What is between the loops: first corners, places within cells, and `numbers` for each cell's x edge."""
    return np.empty(BLOCK, np.int32), np.empty((4, BLOCK), np.float32), np.empty((BLOCK, numbers), np.float32)


@compiled
def interpolate(volume, half, padding, rotation, kx, ky, space, out):
    """Value and gradient of the volume at up to `BLOCK` points of a slice.

    space: `workspace(12)`
    out: `(8, p)`: real and imaginary value, then real and imaginary derivative along x, y and z of the lattice
    """
    cell, place, edges = space
    locate(volume.shape, half, padding, rotation, kx, ky, cell, place)
    _read_edges(volume, cell[: kx.size], place, edges)
    _combine_edges(edges, place, kx.size, out)


@compiled
def interpolate_values(volume, half, padding, rotation, kx, ky, space, out):
    """Value of the volume at up to `BLOCK` points of a slice, without its gradient.

    space: `workspace(4)`
    out: `(2, p)`, real and imaginary part
    """
    cell, place, edges = space
    locate(volume.shape, half, padding, rotation, kx, ky, cell, place)
    _read_values(volume, cell[: kx.size], place, edges)
    for p in range(kx.size):
        fx = place[0, p]
        out[0, p] = edges[p, 0] + fx * (edges[p, 2] - edges[p, 0])
        out[1, p] = (edges[p, 1] + fx * (edges[p, 3] - edges[p, 1])) * place[3, p]


@compiled
def locate(shape, half, padding, rotation, kx, ky, cell, place):
    """Where the points of a slice lie on the half-grid; a loop of its own, because it vectorises and reading does not.

    cell: `(p,)`, first corner of each point's cell, counted in lattice points
    place: `(4, p)`, position within the cell along x, y and z, and -1 where the Hermitian mate is read
    """
    row, plane = np.int32(shape[2]), np.int32(shape[2] * shape[1])
    ax, ay, az = F(rotation[0, 0] * padding), F(rotation[0, 1] * padding), F(rotation[0, 2] * padding)
    bx, by, bz = F(rotation[1, 0] * padding), F(rotation[1, 1] * padding), F(rotation[1, 2] * padding)
    middle = F(half)
    for p in range(kx.size):
        u, v = kx[p], ky[p]
        x = ax * u + bx * v
        sign = F(-1) if x < F(0) else F(1)
        x = x * sign
        y = (ay * u + by * v) * sign + middle
        z = (az * u + bz * v) * sign + middle
        ix, iy, iz = np.int32(x), np.int32(y), np.int32(z)
        place[0, p], place[1, p], place[2, p], place[3, p] = x - F(ix), y - F(iy), z - F(iz), sign
        cell[p] = np.int32(iz * plane + iy * row + ix)


@compiled
def _read_edges(volume, cell, place, edges):
    """Volume at both ends of each cell's x edge, and its derivatives along y and z there: `(p, 12)`."""
    flat = volume.reshape(volume.size)
    row, plane = np.uintp(2 * volume.shape[2]), np.uintp(2 * volume.shape[2] * volume.shape[1])
    one, two, three = np.uintp(1), np.uintp(2), np.uintp(3)
    for p in range(cell.size):
        # Unsigned indices spare numba's test for counting from the end.
        i = np.uintp(2) * np.uintp(cell[p])
        j = i + row
        k = i + plane
        m = j + plane
        fy, fz = place[1, p], place[2, p]
        i0, i1, i2, i3 = flat[i], flat[i + one], flat[i + two], flat[i + three]
        j0, j1, j2, j3 = flat[j], flat[j + one], flat[j + two], flat[j + three]
        k0, k1, k2, k3 = flat[k], flat[k + one], flat[k + two], flat[k + three]
        m0, m1, m2, m3 = flat[m], flat[m + one], flat[m + two], flat[m + three]
        p0, p1, p2, p3 = k0 - i0, k1 - i1, k2 - i2, k3 - i3
        q0, q1, q2, q3 = m0 - j0, m1 - j1, m2 - j2, m3 - j3
        i0, i1, i2, i3 = i0 + fz * p0, i1 + fz * p1, i2 + fz * p2, i3 + fz * p3
        j0, j1, j2, j3 = j0 + fz * q0, j1 + fz * q1, j2 + fz * q2, j3 + fz * q3
        e0, e1, e2, e3 = j0 - i0, j1 - i1, j2 - i2, j3 - i3
        edges[p, 0], edges[p, 1], edges[p, 2], edges[p, 3] = i0 + fy * e0, i1 + fy * e1, i2 + fy * e2, i3 + fy * e3
        edges[p, 4], edges[p, 5], edges[p, 6], edges[p, 7] = e0, e1, e2, e3
        edges[p, 8], edges[p, 9] = p0 + fy * (q0 - p0), p1 + fy * (q1 - p1)
        edges[p, 10], edges[p, 11] = p2 + fy * (q2 - p2), p3 + fy * (q3 - p3)


@compiled
def _combine_edges(edges, place, count, out):
    """Interpolate along x for `count` cells: `(p, 12)` and the place in the cell to `(8, p)`."""
    for p in range(count):
        fx, sign = place[0, p], place[3, p]
        xr, xi = edges[p, 2] - edges[p, 0], edges[p, 3] - edges[p, 1]
        out[0, p] = edges[p, 0] + fx * xr
        out[1, p] = (edges[p, 1] + fx * xi) * sign
        out[2, p] = xr * sign
        out[3, p] = xi
        out[4, p] = (edges[p, 4] + fx * (edges[p, 6] - edges[p, 4])) * sign
        out[5, p] = edges[p, 5] + fx * (edges[p, 7] - edges[p, 5])
        out[6, p] = (edges[p, 8] + fx * (edges[p, 10] - edges[p, 8])) * sign
        out[7, p] = edges[p, 9] + fx * (edges[p, 11] - edges[p, 9])


@compiled
def _read_values(volume, cell, place, edges):
    """Volume at both ends of each cell's x edge: `(p, 4)`."""
    flat = volume.reshape(volume.size)
    row, plane = np.uintp(2 * volume.shape[2]), np.uintp(2 * volume.shape[2] * volume.shape[1])
    one, two, three = np.uintp(1), np.uintp(2), np.uintp(3)
    for p in range(cell.size):
        i = np.uintp(2) * np.uintp(cell[p])
        j = i + row
        k = i + plane
        m = j + plane
        fy, fz = place[1, p], place[2, p]
        i0, i1, i2, i3 = flat[i], flat[i + one], flat[i + two], flat[i + three]
        j0, j1, j2, j3 = flat[j], flat[j + one], flat[j + two], flat[j + three]
        i0, i1, i2, i3 = i0 + fy * (j0 - i0), i1 + fy * (j1 - i1), i2 + fy * (j2 - i2), i3 + fy * (j3 - i3)
        k0, k1, k2, k3 = flat[k], flat[k + one], flat[k + two], flat[k + three]
        m0, m1, m2, m3 = flat[m], flat[m + one], flat[m + two], flat[m + three]
        k0, k1, k2, k3 = k0 + fy * (m0 - k0), k1 + fy * (m1 - k1), k2 + fy * (m2 - k2), k3 + fy * (m3 - k3)
        edges[p, 0], edges[p, 1] = i0 + fz * (k0 - i0), i1 + fz * (k1 - i1)
        edges[p, 2], edges[p, 3] = i2 + fz * (k2 - i2), i3 + fz * (k3 - i3)
