"""Point groups by their usual names, with their axes where RELION has them."""

from __future__ import annotations

import math
import re

import numpy as np
import roma
import torch
from torch import Tensor

from cryospin.errors import InputError
from cryospin.geometry.rotations import chordal_distance_squared, distance_deg

_GOLDEN = (1 + math.sqrt(5)) / 2

# An axis on a line, and on the other side of a plane, as the polyhedral groups have them.
_FIVE, _THREE = (1.0, _GOLDEN), (1.0, _GOLDEN**2)

_GENERATORS: dict[str, tuple[tuple[int, tuple[float, float, float]], ...]] = {
    "T": ((3, (0, 0, 1)), (2, (0, math.sqrt(2), 1))),
    "O": ((4, (0, 0, 1)), (3, (1, 1, 1))),
    "I1": ((2, (1, 0, 0)), (5, (_FIVE[1], 0, -_FIVE[0])), (3, (_THREE[1], _THREE[0], 0))),
    "I2": ((2, (0, 0, 1)), (5, (_FIVE[0], 0, _FIVE[1])), (3, (0, *_THREE))),
    "I3": ((5, (0, 0, 1)), (2, (-_FIVE[0], 0, _FIVE[1]))),
    "I4": ((5, (0, 0, 1)), (2, (_FIVE[0], 0, _FIVE[1]))),
}
"""Order and direction (x, y, z) of the axes that generate a polyhedral group."""

_REFERENCE_TILT = math.radians(10.0)
"""The asymmetric unit lies about this direction, in the plane of x and z; no group here has an axis there."""

_CHUNK = 1 << 18


def point_group(name: str) -> Tensor:
    """Rotations of a point group, float32 `(order, 3, 3)`; the first is the identity.

    Axes stand as in RELION 3.1: the main one along z; for D groups a 2-fold along x; for O the 4-folds along x, y and z;
    for T a 3-fold along z and a 2-fold in the plane of y and z; for I (the same as I2) 2-folds along x, y and z and
    the 5-folds nearest to z in the plane of x and z. I1 is I2 turned by 90 degrees about z; I3 and I4 have a 5-fold along
    z and a 2-fold in the plane of x and z, at negative x or at positive.

    name: `C1`, `C3`, `D7`, `T`, `O`, `I`, `I1` and so on
    raises: `InputError` for a name that is no rotational point group
    """
    label = name.strip().upper()
    if not re.fullmatch(r"[CD][1-9]\d{0,2}|[TO]|I[1-4]?", label):
        raise InputError(
            f"--symmetry {name} is not a point group", remedy="Give C1, C2, ..., D2, D3, ..., T, O, I, or I1 to I4"
        )
    if label[0] in "CD":
        group = _about((0, 0, 1), int(label[1:]))
        group = torch.cat([group, group @ _about((1, 0, 0), 2)[1]]) if label[0] == "D" else group
    else:
        group = _generated(_GENERATORS["I2" if label == "I" else label])
    order = torch.argsort((group - torch.eye(3)).square().sum((1, 2)).round(decimals=6), stable=True)
    return group[order].float()


def in_asymmetric_unit(rotations: Tensor, group: Tensor) -> Tensor:
    """The symmetry mate of each pose whose view lies in the asymmetric unit.

    The unit is all views nearer to one direction (10 degrees from z towards x) than to its mates: |rot| up to 180/n for
    Cn, with tilt up to 90 as well for Dn.

    rotations: `(n, 3, 3)`; group: `(order, 3, 3)`
    returns: `(n, 3, 3)`
    """
    # Row z of `R g` is the particle's direction seen from the front, turned by the mate.
    nearness = rotations[:, 2].double() @ group.double() @ _reference()
    return rotations @ group[nearness.T.argmax(1)].to(rotations.dtype)


def distance_modulo_deg(a: Tensor, b: Tensor, group: Tensor) -> Tensor:
    """Least geodesic distance in degrees between rotations `(n, 3, 3)` or their symmetry mates: float64 `(n,)`."""
    return distance_deg(a, nearest_mate(b, a, group))


def nearest_mate(rotations: Tensor, targets: Tensor, group: Tensor) -> Tensor:
    """The symmetry mate of each rotation `(n, 3, 3)` that lies nearest to its target `(n, 3, 3)`."""
    if len(group) == 1:
        return rotations
    found = []
    for some, target in zip(rotations.split(_CHUNK // len(group) + 1), targets.split(_CHUNK // len(group) + 1), strict=True):
        mates = some[:, None] @ group.to(some.dtype)
        which = chordal_distance_squared(mates, target[:, None]).argmin(1)
        found.append(mates[torch.arange(len(some)), which])
    return torch.cat(found)


def _reference() -> Tensor:
    return torch.tensor([math.sin(_REFERENCE_TILT), 0.0, math.cos(_REFERENCE_TILT)], dtype=torch.float64)


def _about(axis: tuple[float, float, float], fold: int) -> Tensor:
    """Rotations about an axis by multiples of a turn's n-th part, float64 `(fold, 3, 3)`."""
    direction = np.array(axis, dtype=float) / np.linalg.norm(axis)
    angle = 2 * math.pi * torch.arange(fold, dtype=torch.float64) / fold
    return roma.rotvec_to_rotmat(angle[:, None] * torch.from_numpy(direction))


def _generated(axes: tuple[tuple[int, tuple[float, float, float]], ...]) -> Tensor:
    """All products of rotations about axes."""
    generators = torch.cat([_about(axis, fold) for fold, axis in axes])
    group = torch.eye(3, dtype=torch.float64)[None]
    while True:
        products = (group[:, None] @ generators).flatten(0, 1)
        distinct = _distinct(torch.cat([group, products]))
        if len(distinct) == len(group):
            return group
        group = distinct


def _distinct(rotations: Tensor) -> Tensor:
    """The rotations of a list without those that occur before."""
    flat = rotations.flatten(1)
    same = torch.cdist(flat, flat) < 1e-3
    return rotations[~same.tril(-1).any(1)]
