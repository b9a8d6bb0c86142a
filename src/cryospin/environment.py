"""What a run computes with: versions of everything that has a hand in the result, and devices."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from cryospin.errors import InputError

_PACKAGES = ("cryospin", "torch", "numba", "numpy", "scipy", "pandas", "mrcfile", "gemmi", "torch-ctf", "roma")

_MOST_THREADS = 256
"""More than there are cores are allowed: as many threads as before give the same result."""


def versions() -> dict[str, str]:
    """Version of Python, the system and the packages, by name."""
    return {"python": platform.python_version(), "system": platform.platform(), **{n: _installed(n) for n in _PACKAGES}}


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def allowed_cores() -> int:
    """How many cores this process may use; not every system can say, and then all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_to_use(threads: int | None) -> int:
    """How many cores were asked for, or all this process may use; raises `InputError` for what no run can use."""
    if threads is None:
        return allowed_cores()
    most = max(_MOST_THREADS, allowed_cores())
    if not 1 <= threads <= most:
        raise InputError(
            f"--threads {threads} is not a number of cores that can be used", remedy=f"Give 1 to {most}; all by default"
        )
    return threads


@lru_cache
def quick_at_bfloat16() -> bool | None:
    """Whether the processor has instructions for bfloat16; without, it is many times slower at it than at float32.

    None where that is not known.
    """
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return any(features.get(name, False) for name in ("amx-bf16", "avx512bf16", "bf16")) if features else None


def devices() -> dict[str, str]:
    """The processor and every CUDA device with its memory."""
    import llvmlite.binding as llvm
    import torch

    found = {"cpu": llvm.get_host_cpu_name()}
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB"
    if len(found) == 1:
        built = torch.version.cuda is not None
        found["cuda"] = "none found" if built else "none: this PyTorch is built without CUDA"
    return found
