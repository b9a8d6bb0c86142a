"""Trilinear reading of a volume along slices, and the phases of shifts: what the kernels have in common."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def parts(word):
    """Real and imaginary part of a 64-bit word."""
    real = word.to(tl.int32).to(tl.float32, bitcast=True)
    imaginary = (word >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    return real, imaginary


@triton.jit
def joined(real, imaginary):
    """The 64-bit word of a real and an imaginary part."""
    low = real.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    return (imaginary.to(tl.int32, bitcast=True).to(tl.int64) << 32) | low


@triton.jit
def phase(shift, box, u, v):
    """Sine and cosine of `2 pi k.t / D`, to about 1e-6; `shift` points to t.

    Plain arithmetic on a quarter turn: the library's sine prepares for angles that no shift ever makes.
    """
    turns = (tl.load(shift) * u + tl.load(shift + 1) * v) / box
    quarter = (turns - tl.floor(turns + 0.5)) * 4
    nearest = tl.floor(quarter + 0.5)
    x = (quarter - nearest) * 1.5707963267948966
    xx = x * x
    s = x * (1 + xx * (-1 / 6 + xx * (1 / 120 + xx * (-1 / 5040))))
    c = 1 + xx * (-1 / 2 + xx * (1 / 24 + xx * (-1 / 720 + xx * (1 / 40320))))
    q = nearest.to(tl.int32)
    odd = (q & 1) != 0
    sine, cosine = tl.where(odd, c, s), tl.where(odd, s, c)
    return tl.where((q & 2) != 0, -sine, sine), tl.where(((q + 1) & 2) != 0, -cosine, cosine)


@triton.jit
def locate(rotation, half, padding, u, v):
    """Where points of a slice lie on the half-grid: first corner of the cell, place within it, and -1 for mates.

    rotation: points to the nine numbers of a matrix
    """
    x = (tl.load(rotation) * u + tl.load(rotation + 3) * v) * padding
    y = (tl.load(rotation + 1) * u + tl.load(rotation + 4) * v) * padding
    z = (tl.load(rotation + 2) * u + tl.load(rotation + 5) * v) * padding
    sign = tl.where(x < 0, -1.0, 1.0)
    x, y, z = x * sign, y * sign + half, z * sign + half
    ix, iy, iz = x.to(tl.int32), y.to(tl.int32), z.to(tl.int32)
    cell = (iz * (2 * half + 1) + iy) * (half + 2) + ix
    return cell, x - ix, y - iy, z - iz, sign


@triton.jit
def read(volume, half, cell, fx, fy, fz, sign):
    """Real and imaginary part of the volume at points of a slice."""
    row = half + 2
    plane = row * (2 * half + 1)
    ar, ai = _edge(volume + cell, fx)
    br, bi = _edge(volume + cell + row, fx)
    cr, ci = _edge(volume + cell + plane, fx)
    dr, di = _edge(volume + cell + plane + row, fx)
    ar, ai = ar + fy * (br - ar), ai + fy * (bi - ai)
    cr, ci = cr + fy * (dr - cr), ci + fy * (di - ci)
    return ar + fz * (cr - ar), (ai + fz * (ci - ai)) * sign


@triton.jit
def _edge(start, fx):
    """Interpolation between a lattice point and its neighbour along x."""
    ar, ai = parts(tl.load(start))
    br, bi = parts(tl.load(start + 1))
    return ar + fx * (br - ar), ai + fx * (bi - ai)


@triton.jit
def read_gradient(volume, half, cell, fx, fy, fz, sign):
    """The volume at points of a slice, and its derivatives along x, y and z of the lattice, each as two parts.

    The value of a mate is a conjugate and its place is mirrored, so the signs of a derivative's parts are those of a
    value's the other way round.
    """
    row = half + 2
    plane = row * (2 * half + 1)
    ar, ai, axr, axi = _edge_gradient(volume + cell, fx)
    br, bi, bxr, bxi = _edge_gradient(volume + cell + row, fx)
    cr, ci, cxr, cxi = _edge_gradient(volume + cell + plane, fx)
    dr, di, dxr, dxi = _edge_gradient(volume + cell + plane + row, fx)
    lowr, lowi = ar + fy * (br - ar), ai + fy * (bi - ai)
    highr, highi = cr + fy * (dr - cr), ci + fy * (di - ci)
    xr, xi = axr + fy * (bxr - axr), axi + fy * (bxi - axi)
    xr, xi = xr + fz * (cxr + fy * (dxr - cxr) - xr), xi + fz * (cxi + fy * (dxi - cxi) - xi)
    yr, yi = br - ar, bi - ai
    yr, yi = yr + fz * (dr - cr - yr), yi + fz * (di - ci - yi)
    zr, zi = highr - lowr, highi - lowi
    return lowr + fz * zr, (lowi + fz * zi) * sign, xr * sign, xi, yr * sign, yi, zr * sign, zi


@triton.jit
def _edge_gradient(start, fx):
    """Value and derivative along an edge in x."""
    ar, ai = parts(tl.load(start))
    br, bi = parts(tl.load(start + 1))
    dr, di = br - ar, bi - ai
    return ar + fx * dr, ai + fx * di, dr, di
