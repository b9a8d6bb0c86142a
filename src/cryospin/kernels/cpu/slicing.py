"""Central slices of a volume, with gradients to the volume and the rotations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.geometry.so3_grid import sorted_by_view
from cryospin.kernels.cpu.compile import F, array, compiled, floats, lattice
from cryospin.kernels.cpu.insertion import insert_values
from cryospin.kernels.cpu.interpolation import interpolate, interpolate_values, workspace
from cryospin.kernels.cpu.tiles import BLOCK, tiles
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
def _slice_part(volume, half, padding, rotations, kx, ky, rows, out):
    space, buffer = workspace(4), np.empty((2, BLOCK), np.float32)
    for n, start, stop in tiles(rows.size, kx.size):
        j = rows[n]
        interpolate_values(volume, half, padding, rotations[j], kx[start:stop], ky[start:stop], space, buffer)
        target = out[j, 2 * start : 2 * stop]
        for p in range(stop - start):
            target[2 * p] = buffer[0, p]
            target[2 * p + 1] = buffer[1, p]


@compiled
def _slice_back_part(volume, half, padding, rotations, kx, ky, rows, upstream, out):
    """Gradient with respect to the first two rows of each rotation (the third is not used by a slice)."""
    space, buffer = workspace(12), np.empty((8, BLOCK), np.float32)
    for n, start, stop in tiles(rows.size, kx.size):
        j = rows[n]
        some_x, some_y, above = kx[start:stop], ky[start:stop], upstream[j, 2 * start : 2 * stop]
        interpolate(volume, half, padding, rotations[j], some_x, some_y, space, buffer)
        for axis in range(3):
            along_u = F(0)
            along_v = F(0)
            for p in range(stop - start):
                d = above[2 * p] * buffer[2 + 2 * axis, p] + above[2 * p + 1] * buffer[3 + 2 * axis, p]
                along_u += some_x[p] * d
                along_v += some_y[p] * d
            out[j, 0, axis] += along_u * padding
            out[j, 1, axis] += along_v * padding
