"""Run a kernel over pose hypotheses: what they have in common before and after."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid
from cryospin.geometry.so3_grid import sorted_by_view
from cryospin.kernels.cpu.compile import F, array, columns, lattice
from cryospin.kernels.threads import for_each_part
from cryospin.kernels.types import Observations, Poses


def each_pose(
    part: Callable[..., None], width: int, volume: Tensor, grid: FourierGrid, o: Observations, poses: Poses
) -> Tensor:
    """Fill a row of `width` numbers for each hypothesis: float64 `(n, width)`.

    part: kernel over some hypotheses, neighbours in view so that they share what the cache holds
    """
    out = torch.zeros(len(poses.image), width)
    target = out.numpy()
    arguments = (*lattice(volume, grid), *columns(o), array(poses.image), array(poses.rotation), array(poses.shift))
    box = F(o.box)
    order = sorted_by_view(poses.rotation).numpy()
    for_each_part(lambda _, a, b: part(*arguments, box, order[a:b], target), len(order))
    return out.double()
