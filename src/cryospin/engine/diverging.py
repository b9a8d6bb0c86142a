"""Gradient descent whose steps are too long ends in numbers that are none; nothing may be made of those."""

from __future__ import annotations

from torch import Tensor

from cryospin.errors import InputError


def refuse_diverged(stage: str, rotation: Tensor, shift: Tensor) -> None:
    """Raise `InputError` for poses that are not numbers: the kernels would look for them outside of the volume.

    stage: what is under way, for the message
    """
    if not (rotation.isfinite().all() and shift.isfinite().all()):
        raise InputError(
            f"{stage} diverged: poses are no longer numbers", remedy="Lower the rates that --set raised, or leave them be"
        )
