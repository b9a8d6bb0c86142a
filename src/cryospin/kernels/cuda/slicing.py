"""Central slices of a volume, with gradients to the volume and the rotations."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.kernels.cuda.insertion import spread
from cryospin.kernels.cuda.interpolation import joined, locate, parts, read, read_gradient
from cryospin.kernels.cuda.launch import BLOCK, blocks, floats, lattice, launch, words


def slices(volume: Tensor, grid: FourierGrid, rotations: Tensor, disc: HalfDisc) -> Tensor:
    """Central slices by trilinear interpolation; see `reference.slices`. Differentiable."""
    return _Slices.apply(volume, rotations, grid, disc)


class _Slices(torch.autograd.Function):
    """Slicing with its adjoint (insertion) and its derivative along the rotation as the backward pass."""

    @staticmethod
    def forward(ctx, volume, rotations, grid, disc):
        ctx.save_for_backward(volume, rotations)
        ctx.grid, ctx.disc = grid, disc
        out = torch.empty(len(rotations), len(disc), dtype=torch.complex64, device=volume.device)
        places = floats(rotations), floats(disc.kx), floats(disc.ky), len(disc)
        programs = len(rotations), blocks(len(disc))
        launch(_slice_kernel, programs, *lattice(volume, grid), *places, words(out), BLOCK=BLOCK)
        return out

    @staticmethod
    def backward(ctx, upstream):
        volume, rotations = ctx.saved_tensors
        grid, disc = ctx.grid, ctx.disc
        to_volume = to_rotations = None
        if ctx.needs_input_grad[0]:
            to_volume = torch.zeros(grid.shape, dtype=torch.complex64, device=volume.device)
            spread(to_volume, None, grid, rotations, disc, upstream, None)
        if ctx.needs_input_grad[1]:
            to_rotations = torch.zeros_like(rotations, dtype=torch.float32, memory_format=torch.contiguous_format)
            places = floats(rotations), floats(disc.kx), floats(disc.ky), len(disc)
            source = words(upstream.contiguous())
            launch(_slice_back_kernel, (len(rotations),), *lattice(volume, grid), *places, source, to_rotations, BLOCK=BLOCK)
        return to_volume, to_rotations, None, None


@triton.jit
def _slice_kernel(volume, half, padding, rotations, kx, ky, count, out, BLOCK: tl.constexpr):
    j = tl.program_id(0).to(tl.int64)
    p = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = p < count
    u, v = tl.load(kx + p, mask=inside, other=0.0), tl.load(ky + p, mask=inside, other=0.0)
    cell, fx, fy, fz, sign = locate(rotations + 9 * j, half, padding, u, v)
    real, imaginary = read(volume, half, cell, fx, fy, fz, sign)
    tl.store(out + j * count + p, joined(real, imaginary), mask=inside)


@triton.jit
def _slice_back_kernel(volume, half, padding, rotations, kx, ky, count, upstream, out, BLOCK: tl.constexpr):
    """Gradient with respect to the first two rows of each rotation (the third is not used by a slice)."""
    j = tl.program_id(0).to(tl.int64)
    zero = tl.zeros([BLOCK], tl.float32)
    xu, yu, zu, xv, yv, zv = zero, zero, zero, zero, zero, zero
    for start in range(0, count, BLOCK):
        p = start + tl.arange(0, BLOCK)
        inside = p < count
        u, v = tl.load(kx + p, mask=inside, other=0.0), tl.load(ky + p, mask=inside, other=0.0)
        real, imaginary = parts(tl.load(upstream + j * count + p, mask=inside, other=0))
        cell, fx, fy, fz, sign = locate(rotations + 9 * j, half, padding, u, v)
        _, _, xr, xi, yr, yi, zr, zi = read_gradient(volume, half, cell, fx, fy, fz, sign)
        x, y, z = real * xr + imaginary * xi, real * yr + imaginary * yi, real * zr + imaginary * zi
        xu, yu, zu = xu + u * x, yu + u * y, zu + u * z
        xv, yv, zv = xv + v * x, yv + v * y, zv + v * z
    out += 9 * j
    tl.store(out, tl.sum(xu, 0) * padding)
    tl.store(out + 1, tl.sum(yu, 0) * padding)
    tl.store(out + 2, tl.sum(zu, 0) * padding)
    tl.store(out + 3, tl.sum(xv, 0) * padding)
    tl.store(out + 4, tl.sum(yv, 0) * padding)
    tl.store(out + 5, tl.sum(zv, 0) * padding)
