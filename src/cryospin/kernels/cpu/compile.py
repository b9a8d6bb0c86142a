"""How the CPU kernels are compiled, and how tensors reach them."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from cryospin.fourier import FourierGrid
from cryospin.kernels.types import Observations

FAST = {"reassoc", "nsz", "arcp", "contract", "afn"}
"""Licence to reorder sums and fuse products; infinities and NaN keep their meaning."""


def _has_room_to_keep() -> bool:
    """Whether compiled code can be kept for the next process: this folder or the user's cache can be written."""
    try:
        njit(cache=True)(_has_room_to_keep)
    except RuntimeError:
        return False
    return True


KEPT = _has_room_to_keep()
"""False in a read-only installation of a user without a writable home, as containers have them: every run compiles anew."""

compiled = njit(nogil=True, cache=KEPT, fastmath=FAST, error_model="numpy")
inlined = njit(nogil=True, cache=KEPT, fastmath=FAST, error_model="numpy", inline="always")
F = np.float32


def array(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()


def floats(x: Tensor) -> np.ndarray:
    """A complex tensor's memory as floats, real and imaginary parts in turn along the last axis."""
    return torch.view_as_real(x.detach().resolve_conj()).flatten(-2).numpy()


def lattice(volume: Tensor, grid: FourierGrid) -> tuple[np.ndarray, int, int]:
    return torch.view_as_real(volume.detach().contiguous()).numpy(), grid.half, grid.padding


def whole_rows(x: Tensor) -> Tensor:
    """Columns `(N, P)` with the rest of the rows they were cut from: contiguous, without a copy.

    Kernels read as many columns as there are frequencies. Contiguous memory lets them vectorise, and rounds all sums alike
    whatever the images were cut from.
    """
    if x.is_contiguous():
        return x
    width = x.stride(0)
    cut = x.stride(1) == 1 and x.storage_offset() + len(x) * width <= x.untyped_storage().size() // x.element_size()
    return x.as_strided((len(x), width), (width, 1)) if cut else x.contiguous()


def columns(o: Observations) -> tuple[np.ndarray, ...]:
    return (
        floats(whole_rows(o.images)),
        whole_rows(o.ctf).numpy(),
        whole_rows(o.weight).numpy(),
        array(o.group),
        array(o.scale),
        array(o.disc.kx),
        array(o.disc.ky),
    )
