"""Central slices of a volume, with gradients to the volume and the rotations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.geometry.so3_grid import sorted_by_view
from cryospin.kernels.cpu.compile import F, array, compiled, floats, lattice
from cryospin.kernels.cpu.insertion import insert_values
from cryospin.kernels.threads import for_each_part


def slices(volume: Tensor, grid: FourierGrid, rotations: Tensor, disc: HalfDisc) -> Tensor:
    """Central slices by trilinear interpolation; see `reference.slices`. Differentiable."""
    return _Slices.apply(volume, rotations, grid, disc)


class _Slices(torch.autograd.Function):
    """Slicing with its adjoint (insertion) and its derivative along the rotation as the backward pass."""

    @staticmethod
    def forward(ctx, volume, rotations, grid, disc):
        ctx.save_for_backward(volume, rotations)
        ctx.grid, ctx.disc = grid, disc
        out = torch.empty(len(rotations), len(disc), dtype=torch.complex64)
        arguments = (*lattice(volume, grid), array(rotations), array(disc.kx), array(disc.ky))
        target = floats(out)
        order = sorted_by_view(rotations.detach()).numpy()
        for_each_part(lambda _, a, b: _slice_part(*arguments, order[a:b], target), len(order))
        return out

    @staticmethod
    def backward(ctx, upstream):
        volume, rotations = ctx.saved_tensors
        grid, disc = ctx.grid, ctx.disc
        upstream = upstream.contiguous()
        to_volume = to_rotations = None
        if ctx.needs_input_grad[0]:
            to_volume = torch.zeros_like(volume)
            unused = torch.zeros(grid.shape)
            insert_values(to_volume, unused, grid, rotations, disc, upstream, torch.zeros(upstream.shape))
        if ctx.needs_input_grad[1]:
            to_rotations = torch.zeros_like(rotations)
            arguments = (*lattice(volume, grid), array(rotations), array(disc.kx), array(disc.ky))
            source, target = floats(upstream), array(to_rotations)
            order = sorted_by_view(rotations).numpy()
            for_each_part(lambda _, a, b: _slice_back_part(*arguments, order[a:b], source, target), len(order))
        return to_volume, to_rotations, None, None


@compiled
def interpolate(volume, half, padding, rotation, kx, ky, out):
    """Value and gradient of the volume along a slice.

    out: `(8, P)`: real and imaginary value, then real and imaginary derivative along x, y and z of the lattice
    """
    _, ny, nx, _ = volume.shape
    flat = volume.reshape(volume.size)
    row, plane = 2 * nx, 2 * nx * ny
    ax, ay, az = rotation[0, 0] * padding, rotation[0, 1] * padding, rotation[0, 2] * padding
    bx, by, bz = rotation[1, 0] * padding, rotation[1, 1] * padding, rotation[1, 2] * padding
    ax, ay, az, bx, by, bz = F(ax), F(ay), F(az), F(bx), F(by), F(bz)
    middle = F(half)
    for p in range(kx.size):
        u, v = kx[p], ky[p]
        x = ax * u + bx * v
        sign = F(-1) if x < F(0) else F(1)
        x = x * sign
        y = (ay * u + by * v) * sign + middle
        z = (az * u + bz * v) * sign + middle
        ix, iy, iz = np.int32(x), np.int32(y), np.int32(z)
        fx, fy, fz = x - F(ix), y - F(iy), z - F(iz)
        # Unsigned indices spare numba's test for counting from the end.
        i = np.uintp(iz * plane + iy * row + 2 * ix)
        j = i + np.uintp(row)
        k = i + np.uintp(plane)
        m = j + np.uintp(plane)
        one, two, three = np.uintp(1), np.uintp(2), np.uintp(3)
        i0, i1, i2, i3 = flat[i], flat[i + one], flat[i + two], flat[i + three]
        j0, j1, j2, j3 = flat[j], flat[j + one], flat[j + two], flat[j + three]
        k0, k1, k2, k3 = flat[k], flat[k + one], flat[k + two], flat[k + three]
        m0, m1, m2, m3 = flat[m], flat[m + one], flat[m + two], flat[m + three]
        p0, p1, p2, p3 = k0 - i0, k1 - i1, k2 - i2, k3 - i3
        q0, q1, q2, q3 = m0 - j0, m1 - j1, m2 - j2, m3 - j3
        i0, i1, i2, i3 = i0 + fz * p0, i1 + fz * p1, i2 + fz * p2, i3 + fz * p3
        j0, j1, j2, j3 = j0 + fz * q0, j1 + fz * q1, j2 + fz * q2, j3 + fz * q3
        e0, e1, e2, e3 = j0 - i0, j1 - i1, j2 - i2, j3 - i3
        s0, s1, s2, s3 = i0 + fy * e0, i1 + fy * e1, i2 + fy * e2, i3 + fy * e3
        z0, z1, z2, z3 = p0 + fy * (q0 - p0), p1 + fy * (q1 - p1), p2 + fy * (q2 - p2), p3 + fy * (q3 - p3)
        xr, xi = s2 - s0, s3 - s1
        out[0, p] = s0 + fx * xr
        out[1, p] = (s1 + fx * xi) * sign
        out[2, p] = xr * sign
        out[3, p] = xi
        out[4, p] = (e0 + fx * (e2 - e0)) * sign
        out[5, p] = e1 + fx * (e3 - e1)
        out[6, p] = (z0 + fx * (z2 - z0)) * sign
        out[7, p] = z1 + fx * (z3 - z1)


@compiled
def interpolate_values(volume, half, padding, rotation, kx, ky, out):
    """Value of the volume along a slice, without its gradient.

    out: `(2, P)`, real and imaginary part
    """
    _, ny, nx, _ = volume.shape
    flat = volume.reshape(volume.size)
    row, plane = 2 * nx, 2 * nx * ny
    ax, ay, az = F(rotation[0, 0] * padding), F(rotation[0, 1] * padding), F(rotation[0, 2] * padding)
    bx, by, bz = F(rotation[1, 0] * padding), F(rotation[1, 1] * padding), F(rotation[1, 2] * padding)
    middle = F(half)
    one, two, three = np.uintp(1), np.uintp(2), np.uintp(3)
    for p in range(kx.size):
        u, v = kx[p], ky[p]
        x = ax * u + bx * v
        sign = F(-1) if x < F(0) else F(1)
        x = x * sign
        y = (ay * u + by * v) * sign + middle
        z = (az * u + bz * v) * sign + middle
        ix, iy, iz = np.int32(x), np.int32(y), np.int32(z)
        fx, fy, fz = x - F(ix), y - F(iy), z - F(iz)
        i = np.uintp(iz * plane + iy * row + 2 * ix)
        j = i + np.uintp(row)
        k = i + np.uintp(plane)
        m = j + np.uintp(plane)
        gx = F(1) - fx
        i0, i1 = gx * flat[i] + fx * flat[i + two], gx * flat[i + one] + fx * flat[i + three]
        j0, j1 = gx * flat[j] + fx * flat[j + two], gx * flat[j + one] + fx * flat[j + three]
        k0, k1 = gx * flat[k] + fx * flat[k + two], gx * flat[k + one] + fx * flat[k + three]
        m0, m1 = gx * flat[m] + fx * flat[m + two], gx * flat[m + one] + fx * flat[m + three]
        s0, s1 = i0 + fy * (j0 - i0), i1 + fy * (j1 - i1)
        t0, t1 = k0 + fy * (m0 - k0), k1 + fy * (m1 - k1)
        out[0, p] = s0 + fz * (t0 - s0)
        out[1, p] = (s1 + fz * (t1 - s1)) * sign


@compiled
def _slice_part(volume, half, padding, rotations, kx, ky, rows, out):
    buffer = np.empty((2, kx.size), np.float32)
    for j in rows:
        interpolate_values(volume, half, padding, rotations[j], kx, ky, buffer)
        for p in range(kx.size):
            out[j, 2 * p] = buffer[0, p]
            out[j, 2 * p + 1] = buffer[1, p]


@compiled
def _slice_back_part(volume, half, padding, rotations, kx, ky, rows, upstream, out):
    """Gradient with respect to the first two rows of each rotation (the third is not used by a slice)."""
    buffer = np.empty((8, kx.size), np.float32)
    for j in rows:
        interpolate(volume, half, padding, rotations[j], kx, ky, buffer)
        for axis in range(3):
            along_u = F(0)
            along_v = F(0)
            for p in range(kx.size):
                d = upstream[j, 2 * p] * buffer[2 + 2 * axis, p] + upstream[j, 2 * p + 1] * buffer[3 + 2 * axis, p]
                along_u += kx[p] * d
                along_v += ky[p] * d
            out[j, 0, axis] = along_u * padding
            out[j, 1, axis] = along_v * padding
