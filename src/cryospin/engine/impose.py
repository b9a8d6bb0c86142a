"""Put a map that was found without symmetry on the axes of its point group, and the particles with it."""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.engine.problem import Problem
from cryospin.geometry.symmetry import point_group
from cryospin.kernels.types import Poses
from cryospin.maps.alignment import move_map
from cryospin.maps.point_groups import Symmetry, find_symmetry
from cryospin.volume.mask import WIDE, outline_mask


def axes_in(density: Tensor, problem: Problem, name: str) -> Symmetry:
    """A point group's best axes in a map `(d, d, d)`, any `d` of the problem's physical size; on the CPU."""
    density = density.cpu()
    radius = min(problem.last_shell, density.shape[-1] // 2 - 1)
    mask = outline_mask([density], problem.mask_diameter, WIDE)
    return find_symmetry(density * mask, name, radius)


def upright(density: Tensor, found: Symmetry) -> Tensor:
    """The map `(d, d, d)` turned and moved until a point group's axes in it stand as `point_group` has them."""
    return move_map(density.cpu(), found.frame.T, -found.frame.T @ found.centre).to(density.device)


def averaged(density: Tensor, found: Symmetry) -> Tensor:
    """The map `upright`, averaged over its mates."""
    standing = upright(density.cpu(), found)
    mates = [move_map(standing, mate, torch.zeros(3)) for mate in point_group(found.name)]
    return torch.stack(mates).mean(0).to(density.device)


def put_on_axes(density: Tensor, poses: Poses, problem: Problem, found: Symmetry) -> tuple[Tensor, Poses]:
    """The map `upright`, and its particles turned with it.

    In the map's frame a point of the particle is `x = Q y + c`, with the standard frame's `y`; so an image of `R x + t` is
    one of `R Q y + (R c + t)`.

    density: `(d, d, d)`, any `d` of the problem's physical size; found: the axes in it
    """
    turn, centre = (x.to(poses.rotation.device) for x in (found.frame, found.centre))
    offset = poses.rotation[:, :2].double() @ (centre * problem.box / density.shape[-1])
    rotation = (poses.rotation.double() @ turn).to(poses.rotation.dtype)
    return upright(density, found), poses._replace(rotation=rotation, shift=poses.shift + offset.float())
