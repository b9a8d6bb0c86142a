"""Run a kernel over pose hypotheses: what they have in common before and after."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cryospin.fourier import FourierGrid
from cryospin.kernels.cpu.compile import F, array, columns, lattice
from cryospin.kernels.threads import for_each_part
from cryospin.kernels.types import Observations, Poses


def each_pose(
    part: Callable[..., None], width: int, volume: Tensor, grid: FourierGrid, o: Observations, poses: Poses
) -> Tensor:
    """Fill a row of `width` numbers for each hypothesis: float64 `(n, width)`.

    part: kernel over some hypotheses
    poses: quickest where neighbours in view, which share what the cache holds, follow each other
    """
    out = torch.zeros(len(poses.image), width)
    target = out.numpy()
    arguments = (*lattice(volume, grid), *columns(o), array(poses.image), array(poses.rotation), array(poses.shift))
    box = F(o.box)
    for_each_part(lambda _, a, b: part(*arguments, box, np.arange(a, b), target), len(out))
    return out.double()
