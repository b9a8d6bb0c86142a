"""Put the particle in the middle of the box, where its mask and the prior on shifts expect it."""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.engine.problem import Problem
from cryospin.kernels.types import Poses
from cryospin.maps.alignment import move_map
from cryospin.volume.mask import WIDE, outline_mask


def recentre(density: Tensor, poses: Poses, problem: Problem) -> tuple[Tensor, Poses]:
    """Move a map's centre of mass to the box centre, and the particles with it.

    Where the map moves by `T`, a particle's displacement from it becomes less by `(R T)_xy`, and its image stays what it
    was. With a point group, only the part of `T` that it leaves alone is taken, which keeps the axes where they are.

    density: `(d, d, d)`, any `d` of the problem's physical size
    """
    box = density.shape[-1]
    weight = (density * outline_mask([density], problem.mask_diameter, WIDE)).clamp_min(0)
    k = (torch.arange(box, device=density.device) - box // 2).float()
    x, y, z = (float((weight.sum(axes) * k).sum() / weight.sum()) for axes in ((0, 1), (0, 2), (1, 2)))
    move = -(problem.early_group @ problem.early_group.new_tensor([x, y, z])).mean(0)
    shift = poses.shift - (poses.rotation[:, :2] @ (move * problem.box / box))
    return move_map(density, torch.eye(3, device=density.device), move), poses._replace(shift=shift)
