"""Poses that keep going the way they went."""

from __future__ import annotations

from cryospin.geometry.rotations import to_rotation_vectors, turn
from cryospin.kernels.types import Poses

_FARTHEST = 0.1
"""Radians beyond which a pose did not drift but jumped."""


def ahead(poses: Poses, before: Poses, momentum: float) -> Poses:
    """Poses beyond where they are, by so much of what they moved since before; those that jumped stay where they are."""
    drift = to_rotation_vectors(poses.rotation @ before.rotation.mT)
    goes_on = momentum * (drift.norm(dim=1, keepdim=True) < _FARTHEST)
    return Poses(
        poses.image,
        turn(poses.rotation, goes_on * drift),
        poses.shift + goes_on * (poses.shift - before.shift),
    )
