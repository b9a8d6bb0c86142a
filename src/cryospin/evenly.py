"""Some of many, evenly spaced: what stands for a whole table whose order may mean something."""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.fourier import CPU


def evenly_spaced(count: int, most: int, device: torch.device = CPU) -> Tensor:
    """At most so many of the numbers from 0 to `count - 1`, the first and the last among them: int64 `(n,)`."""
    chosen = min(count, most)
    return torch.arange(chosen, device=device) * (count - 1) // max(chosen - 1, 1)
