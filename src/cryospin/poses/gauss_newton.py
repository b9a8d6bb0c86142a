"""Optimise poses image by image: damped Gauss-Newton steps on rotation and shift."""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid
from cryospin.geometry.rotations import turn
from cryospin.kernels import dispatch as kernels
from cryospin.kernels.types import Fit, NormalEquations, Observations, Poses

_FIRST_DAMPING = 1e-2
_RELAX, _TIGHTEN = 0.25, 8.0
_WORTHWHILE = 3e-3
"""Nats that a step must promise: less moves a pose by less than a tenth of its standard error."""


def refine_poses(
    volume: Tensor, grid: FourierGrid, observations: Observations, poses: Poses, *, steps: int, shift_sd: float
) -> tuple[Poses, Tensor]:
    """Levenberg-Marquardt on (turn, shift) of every hypothesis; only steps that lower the misfit are taken.

    volume: complex `grid.shape`
    steps: number of trial steps; 0 only evaluates. A hypothesis that has nothing to gain from its next step takes none
    shift_sd: standard deviation of the Gaussian prior on shifts, pixels
    returns: the poses, and their misfit with the prior's share, float64 `(n,)`, nats
    """
    rotation, shift = poses.rotation.clone(), poses.shift.clone()
    misfit = torch.empty(len(poses.image), dtype=torch.float64, device=volume.device)
    for some, block, rows in observations.blocks(poses):
        fitting = _Fitting(volume, grid, some, block, shift_sd, derivatives=steps > 0)
        for step in range(steps):
            fitting.step(last=step == steps - 1)
        rotation[rows], shift[rows], misfit[rows] = fitting.poses.rotation, fitting.poses.shift, fitting.misfit
    return Poses(poses.image, rotation, shift), misfit


def fits_of(volume: Tensor, grid: FourierGrid, observations: Observations, poses: Poses) -> Fit:
    """How each hypothesis fits its image, however many there are; see `kernels.reference.fits`."""
    fit = Fit(*torch.empty(2, len(poses.image), dtype=torch.float64, device=volume.device))
    for some, block, rows in observations.blocks(poses):
        fit.cross[rows], fit.power[rows] = kernels.fits(volume, grid, some, block)
    return fit


class _Fitting:
    """Levenberg-Marquardt on some hypotheses: where they stand, and the quadratic model there.

    poses, misfit: as they stand, float64 `(n,)`
    equations: at those poses; None where no step follows
    """

    def __init__(
        self,
        volume: Tensor,
        grid: FourierGrid,
        observations: Observations,
        poses: Poses,
        shift_sd: float,
        *,
        derivatives: bool,
    ) -> None:
        self.volume, self.grid, self.observations, self.shift_sd = volume, grid, observations, shift_sd
        self.poses = poses
        self.misfit, self.equations = self._evaluate(poses, derivatives)
        self.damping = torch.full_like(self.misfit, _FIRST_DAMPING)

    def step(self, *, last: bool) -> None:
        """One trial step of each hypothesis that may gain from it; kept where it lowers the misfit."""
        assert self.equations is not None, "a step needs derivatives"
        move, gain = _proposed(self.poses, self.equations, self.damping, self.shift_sd)
        going = (gain > _WORTHWHILE).nonzero()[:, 0]
        if len(going) == 0:
            return
        poses, move = self.poses.take(going), move[going]
        trial = Poses(poses.image, turn(poses.rotation, move[:, :3]), poses.shift + move[:, 3:].float())
        # After the last step nobody asks for derivatives.
        misfit, equations = self._evaluate(trial, derivatives=not last)
        better = misfit < self.misfit[going]
        rows = going[better]
        self.poses = Poses(
            self.poses.image,
            self.poses.rotation.index_copy(0, rows, trial.rotation[better]),
            self.poses.shift.index_copy(0, rows, trial.shift[better]),
        )
        self.misfit[rows] = misfit[better]
        self.damping[going] *= torch.where(better, _RELAX, _TIGHTEN)
        if equations is not None:
            for old, new in zip(self.equations, equations, strict=True):
                old[rows] = new[better]

    def _evaluate(self, poses: Poses, derivatives: bool) -> tuple[Tensor, NormalEquations | None]:
        """Misfit with the prior's share and, if asked for, its derivatives."""
        arguments = (self.volume, self.grid, self.observations, poses)
        equations = kernels.normal_equations(*arguments) if derivatives else None
        fit = kernels.fits(*arguments) if equations is None else equations.fit
        scale = self.observations.scale[poses.image].double()
        return fit.misfit(scale) + shift_penalty(poses.shift, self.shift_sd), equations


def shift_penalty(shift: Tensor, shift_sd: float) -> Tensor:
    """Minus the log-prior of shifts `(n, 2)` in pixels, float64 `(n,)`, nats."""
    return (shift.double() ** 2).sum(1) / (2 * shift_sd**2)


def _proposed(poses: Poses, equations: NormalEquations, damping: Tensor, shift_sd: float) -> tuple[Tensor, Tensor]:
    """Damped steps `(n, 5)`, and by how much the misfit should fall, `(n,)`, nats.

    The equations are halves of the misfit's derivatives, so the prior enters at half too.
    """
    matrix, gradient = equations.matrix.clone(), equations.gradient.clone()
    matrix[:, 3, 3] += 0.5 / shift_sd**2
    matrix[:, 4, 4] += 0.5 / shift_sd**2
    gradient[:, 3:] += 0.5 * poses.shift.double() / shift_sd**2
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    diagonal += damping[:, None] * diagonal + 1e-6
    move = -torch.linalg.solve(matrix, gradient)
    return move, -(move * gradient).sum(1)
