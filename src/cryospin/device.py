"""Which device a run computes on."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from typing import NamedTuple

import torch

from cryospin.errors import InputError
from cryospin.fourier import CPU

_LEAST_CAPABILITY = (8, 0)
"""Triton supports NVIDIA's devices from this compute capability on."""

_COMPILERS = ("gcc", "clang")


class Choice(NamedTuple):
    """A device and why it was taken, as the log says it."""

    device: torch.device
    reason: str


def choose(name: str) -> Choice:
    """The device that `auto`, `cpu`, `cuda` or `cuda:n` means on this machine.

    `auto` takes the first CUDA device that the kernels can use, and the CPU where there is none.

    raises: `InputError` for other names, and for CUDA where it cannot be used
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise InputError(f"--device {name} is not known", remedy="Give auto, cpu, cuda or cuda:0, cuda:1 and so on")
    if name == "cpu":
        return Choice(CPU, "as asked")
    index = int(name.partition(":")[2] or 0)
    if problem := obstacle(index):
        if name == "auto":
            return Choice(CPU, problem[0])
        raise InputError(f"--device {name} cannot be used: {problem[0]}", remedy=f"{problem[1]}, or give --device cpu")
    card = torch.cuda.get_device_properties(index)
    return Choice(torch.device("cuda", index), f"{card.name}, {card.total_memory / 2**30:.0f} GiB")


def obstacle(index: int = 0) -> tuple[str, str] | None:
    """Why a CUDA device cannot be used, and what to do about it; None if it can."""
    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return "this PyTorch is built without CUDA", "Install a PyTorch with CUDA"
        return "PyTorch finds no CUDA device", "Check the driver with nvidia-smi"
    count = torch.cuda.device_count()
    if index >= count:
        return f"there are only {count} CUDA devices, counted from 0", f"Give cuda:0 to cuda:{count - 1}"
    if torch.cuda.get_device_capability(index) < _LEAST_CAPABILITY:
        name = torch.cuda.get_device_name(index)
        return f"{name} is older than the kernels support", "Use a device of compute capability 8.0 or later"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed", "Install it with pip install triton"
    if not os.environ.get("CC") and not any(shutil.which(c) for c in _COMPILERS):
        return "Triton finds no C compiler", "Install gcc, or name a compiler in CC"
    return None
