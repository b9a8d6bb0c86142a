"""How tensors reach the Triton kernels."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid
from cryospin.kernels.types import Observations, Poses

BLOCK = 128
"""Coefficients a program works on at a time: one for each thread of four warps."""


def launch(kernel: Any, programs: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run a kernel on the device of its first tensor, with so many programs along each axis; none is nothing to do.

    Products and sums are fused, which is faster and rounds once; said here because Triton's own default changes.
    """
    if 0 in programs:
        return
    device = next(a.device for a in arguments if isinstance(a, Tensor))
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[programs](*arguments, **constants, enable_fp_fusion=True)


def blocks(count: int, size: int = BLOCK) -> int:
    """How many blocks cover so many coefficients."""
    return -(-count // size)


def words(x: Tensor) -> Tensor:
    """Complex numbers as 64-bit words of a real and an imaginary part, so that each is read and written at once."""
    return x.detach().to(torch.complex64).resolve_conj().view(torch.int64)


def floats(x: Tensor) -> Tensor:
    """Real numbers the way kernels want them."""
    return x.detach().float().contiguous()


def lattice(volume: Tensor, grid: FourierGrid) -> tuple[Tensor, int, int]:
    """A volume's words with its geometry."""
    return words(volume.detach().contiguous()), grid.half, grid.padding


def columns(o: Observations) -> tuple[Tensor | int, ...]:
    """What is known of images and their coefficients; rows may lie apart, as those of a lower frequency limit do."""
    images, ctf, weight = words(_adjacent(o.images)), _adjacent(o.ctf), _adjacent(o.weight)
    return (
        *(images, images.stride(0), ctf, ctf.stride(0), weight, weight.stride(0)),
        *(o.group, floats(o.scale), floats(o.disc.kx), floats(o.disc.ky)),
    )


def hypotheses(poses: Poses) -> tuple[Tensor, Tensor, Tensor]:
    """Images, rotations and shifts of pose hypotheses."""
    return poses.image.contiguous(), floats(poses.rotation), floats(poses.shift)


def _adjacent(x: Tensor) -> Tensor:
    """Rows whose numbers lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()
