"""Pose errors after one global alignment, modulo symmetry, for either hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryospin.geometry.rotations import chordal_distance_squared, distance_deg, flip_hand, mean_rotation
from cryospin.geometry.symmetry import nearest_mate

_HYPOTHESES, _WITNESSES = 300, 1000
_WIDE, _NARROW = 0.3, 0.1
_GOOD_DEG = 10.0


@dataclass(frozen=True)
class PoseErrors:
    """Errors of N poses against the truth.

    rotation_deg: float64 `(N,)`
    shift: float64 `(N,)`, in the unit the shifts were given in
    flipped: whether the other hand matched
    turn: float64 `(3, 3)`, the Q of `R_true = R Q`
    """

    rotation_deg: Tensor
    shift: Tensor
    flipped: bool
    turn: Tensor

    def summary(self) -> dict[str, float]:
        """Mean and median rotation error in degrees, and the percentages within 5 and 10 degrees."""
        e = self.rotation_deg
        return {
            "mean": float(e.mean()),
            "median": float(e.median()),
            "within_5": float(100 * (e < 5).double().mean()),
            "within_10": float(100 * (e < 10).double().mean()),
        }


def pose_errors(
    rotation: Tensor, shift: Tensor, true_rotation: Tensor, true_shift: Tensor, group: Tensor | None = None
) -> PoseErrors:
    """Compare poses with true ones after the global turn, hand and origin that suit them best.

    rotation, true_rotation: `(N, 3, 3)`; shift, true_shift: `(N, 2)`, one unit
    group: rotations of the true map's point group `(order, 3, 3)`; C1 if None
    """
    group = torch.eye(3, device=rotation.device)[None] if group is None else group
    results = []
    for flipped in (False, True):
        own = (flip_hand(rotation) if flipped else rotation).double()
        turn = _global_turn(own, true_rotation.double(), group.double())
        nearest = nearest_mate(true_rotation.double(), own @ turn, group.double())
        # The hand that more poses agree with: where half of them are wrong, the median tells nothing.
        agreement = torch.exp(-chordal_distance_squared(own @ turn, nearest) / _WIDE**2).sum()
        results.append((float(agreement), distance_deg(own @ turn, nearest), flipped, turn))
    _, error, flipped, turn = max(results, key=lambda r: r[0])
    return PoseErrors(error, _shift_errors(rotation, shift, true_shift, error), flipped, turn)


def _global_turn(rotation: Tensor, true: Tensor, group: Tensor) -> Tensor:
    """The Q that brings most of `rotation @ Q` onto `true`, whatever the rest does."""
    sample = torch.randperm(len(rotation), generator=torch.Generator().manual_seed(0)).to(rotation.device)
    hypotheses = rotation[sample[:_HYPOTHESES]].mT @ true[sample[:_HYPOTHESES]]
    witness = sample[:_WITNESSES]
    turned = rotation[witness][None] @ hypotheses[:, None]
    miss = torch.stack([chordal_distance_squared(turned, true[witness] @ g) for g in group]).amin(0)
    turn = hypotheses[torch.exp(-miss / _WIDE**2).sum(1).argmax()]
    for width in (_WIDE, *[_NARROW] * 15):
        target = nearest_mate(true, rotation @ turn, group)
        weight = torch.exp(-chordal_distance_squared(rotation @ turn, target) / width**2)
        turn = mean_rotation(rotation.mT @ target, weight + 1e-12)
    return turn


def _shift_errors(rotation: Tensor, shift: Tensor, true_shift: Tensor, error: Tensor) -> Tensor:
    """Distance between shifts after the best common origin: a map moved by T moves its particles by `(R T)_xy`."""
    difference = (shift - true_shift).double()
    good = error < _GOOD_DEG
    if good.sum() >= 3:
        design = rotation[good][:, :2].double().flatten(0, 1)
        origin = torch.linalg.lstsq(design, difference[good].flatten()[:, None]).solution[:, 0]
        difference = difference - rotation[:, :2].double() @ origin
    return difference.norm(dim=1)
