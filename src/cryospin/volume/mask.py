"""Soft masks."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

EDGE = 0.06
"""Width of a spherical mask's soft edge, as a fraction of the box."""


@lru_cache(maxsize=64)
def spherical_mask(box: int, diameter: float, edge: float = EDGE) -> Tensor:
    """A ball about the box centre with a raised-cosine edge outside it.

    diameter, edge: fractions of the box; returns: float32 `(box, box, box)` from 0 to 1
    """
    x = (torch.arange(box) - box // 2) / box
    distance = (x[:, None, None] ** 2 + x[None, :, None] ** 2 + x**2).sqrt()
    return 0.5 + 0.5 * torch.cos(math.pi * ((distance - diameter / 2) / edge).clamp(0, 1))
