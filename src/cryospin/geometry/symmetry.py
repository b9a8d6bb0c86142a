"""Point groups by their usual names."""

from __future__ import annotations

import re

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from cryospin.errors import InputError


def point_group(name: str) -> Tensor:
    """Rotations of a point group with its main axis along z, float32 `(order, 3, 3)`; the first is the identity.

    name: `C1`, `C3`, `D7`, `T`, `O`, `I` and so on
    raises: `InputError` for a name that is no rotational point group
    """
    label = name.strip().upper()
    if not re.fullmatch(r"[CD][1-9]\d*|[TOI]", label):
        raise InputError(f"--symmetry {name} is not a point group", remedy="Give C1, C2, ..., D2, D3, ..., T, O or I")
    group = torch.from_numpy(Rotation.create_group(label).as_matrix()).float()
    order = torch.argsort((group - torch.eye(3)).square().sum((1, 2)), stable=True)
    return group[order]
