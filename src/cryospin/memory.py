"""What a run needs of memory, and what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from cryospin.kernels.threads import PRIVATE_BYTES
from cryospin.packing import bytes_packed

_GIB = 2**30

# With images in memory, 50,000 of 128 pixels are put at 5.65 GiB; their run's peak was 5.49 (docs/benchmarks.md).
# With images on disk a run also holds blocks of them, and pages of the file that are mapped while they are read, which
# are not counted here.
_START_GIB, _BYTES_PER_VOXEL, _BYTES_PER_PARTICLE = 0.9, 382.0, 6000.0

_BYTES_PER_VOXEL_AND_THREAD = 64.0
"""Of sums that each thread has to itself."""

_USABLE = 0.7
"""Share of the free memory that a run may take unless told otherwise."""


def needed_gib(count: int, box: int, threads: int, *, on_disk: bool = False) -> float:
    """Peak of a run of `count` particles at a working box, its packed images in memory or on disk."""
    packed = 0 if on_disk else bytes_packed(count, box)
    private = min(threads * box**3 * _BYTES_PER_VOXEL_AND_THREAD, max(PRIVATE_BYTES, box**3 * _BYTES_PER_VOXEL_AND_THREAD))
    return _START_GIB + (packed + count * _BYTES_PER_PARTICLE + box**3 * _BYTES_PER_VOXEL + private) / _GIB


def available_gib(system: Path = Path("/")) -> float | None:
    """Memory that can be had without swapping, and within what a container or a batch job may take; None if not known.

    system: where the system's own files are
    """
    rooms = [_free_on_machine(system), *_left_to_groups(system)]
    known = [room for room in rooms if room is not None]
    return max(0, min(known)) / _GIB if known else None


def _free_on_machine(system: Path) -> int | None:
    """Bytes."""
    lines = _text(system / "proc/meminfo").splitlines()
    kib = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kib[0] * 1024 if kib else None


def _left_to_groups(system: Path) -> Iterator[int]:
    """Bytes left to each control group that this process is in and that has a limit (cgroups, version 1 and 2)."""
    for line in _text(system / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = system / "sys/fs/cgroup" / controllers
        most, used = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        inner = root / name.strip("/")
        for folder in (inner, *inner.parents[: len(inner.relative_to(root).parts)]):
            limit, taken = _text(folder / most).strip(), _text(folder / used).strip()
            if limit.isdigit() and taken.isdigit():
                # Cached files count as taken, but make room when it is needed.
                cached = re.search(r"^inactive_file (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
                yield int(limit) - int(taken) + (int(cached[1]) if cached else 0)


def _text(path: Path) -> str:
    """What a file says; nothing where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def fits_on(device: torch.device, count: int, box: int) -> bool:
    """Whether packed images can stay on a CUDA device, beside what is computed there."""
    free, _ = torch.cuda.mem_get_info(device)
    return bytes_packed(count, box) <= _USABLE * free


def fits_in_memory(count: int, box: int, threads: int, budget: float | None) -> bool:
    """Whether packed images can stay in memory.

    budget: GiB the run may take; None for most of what is free
    """
    if budget is None and (free := available_gib()) is not None:
        budget = _USABLE * free
    return budget is None or needed_gib(count, box, threads) <= budget
