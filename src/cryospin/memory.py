"""What a run needs of memory, and what there is."""

from __future__ import annotations

from pathlib import Path

import torch

from cryospin.packing import bytes_packed

_GIB = 2**30

# Fitted to the peaks of whole runs (docs/benchmarks.md).
_START_GIB, _BYTES_PER_VOXEL, _BYTES_PER_PARTICLE = 0.9, 510.0, 6000.0

_USABLE = 0.7
"""Share of the free memory that a run may take unless told otherwise."""


def needed_gib(count: int, box: int, *, on_disk: bool = False) -> float:
    """Peak of a run of `count` particles at a working box, its packed images in memory or on disk."""
    packed = 0 if on_disk else bytes_packed(count, box)
    return _START_GIB + (packed + count * _BYTES_PER_PARTICLE + box**3 * _BYTES_PER_VOXEL) / _GIB


def available_gib() -> float | None:
    """Memory that can be had without swapping; None where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kib[0] / 2**20 if kib else None


def fits_on(device: torch.device, count: int, box: int) -> bool:
    """Whether packed images can stay on a CUDA device, beside what is computed there."""
    free, _ = torch.cuda.mem_get_info(device)
    return bytes_packed(count, box) <= _USABLE * free


def fits_in_memory(count: int, box: int, budget: float | None) -> bool:
    """Whether packed images can stay in memory.

    budget: GiB the run may take; None for most of what is free
    """
    if budget is None and (free := available_gib()) is not None:
        budget = _USABLE * free
    return budget is None or needed_gib(count, box) <= budget
