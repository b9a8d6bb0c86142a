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


def refine_poses(
    volume: Tensor, grid: FourierGrid, observations: Observations, poses: Poses, *, steps: int, shift_sd: float
) -> tuple[Poses, Tensor]:
    """Levenberg-Marquardt on (turn, shift) of every hypothesis; only steps that lower the misfit are taken.

    volume: complex `grid.shape`
    steps: number of trial steps; 0 only evaluates
    shift_sd: standard deviation of the Gaussian prior on shifts, pixels
    returns: the poses, and their misfit with the prior's share, float64 `(n,)`, nats
    """
    scale = observations.scale[poses.image].double()

    def misfit_of(fit: Fit, trial: Poses) -> Tensor:
        return fit.misfit(scale) + shift_penalty(trial.shift, shift_sd)

    if steps == 0:
        return poses, misfit_of(kernels.fits(volume, grid, observations, poses), poses)
    equations = kernels.normal_equations(volume, grid, observations, poses)
    misfit = misfit_of(equations.fit, poses)
    damping = torch.full_like(misfit, _FIRST_DAMPING)
    for step in range(1, steps + 1):
        trial = _step(poses, equations, damping, shift_sd)
        if step == steps:
            # No step follows, so the derivatives are not needed.
            trial_misfit = misfit_of(kernels.fits(volume, grid, observations, trial), trial)
        else:
            trial_equations = kernels.normal_equations(volume, grid, observations, trial)
            trial_misfit = misfit_of(trial_equations.fit, trial)
        better = trial_misfit < misfit
        poses = Poses(poses.image, *(_choose(better, new, old) for new, old in zip(trial[1:], poses[1:], strict=True)))
        misfit = torch.where(better, trial_misfit, misfit)
        if step < steps:
            parts = zip(trial_equations, equations, strict=True)
            equations = NormalEquations(*(_choose(better, new, old) for new, old in parts))
            damping = damping * torch.where(better, _RELAX, _TIGHTEN)
    return poses, misfit


def shift_penalty(shift: Tensor, shift_sd: float) -> Tensor:
    """Minus the log-prior of shifts `(n, 2)` in pixels, float64 `(n,)`, nats."""
    return (shift.double() ** 2).sum(1) / (2 * shift_sd**2)


def _step(poses: Poses, equations: NormalEquations, damping: Tensor, shift_sd: float) -> Poses:
    """One damped step. The equations are halves of the misfit's derivatives, so the prior enters at half too."""
    matrix, gradient = equations.matrix.clone(), equations.gradient.clone()
    matrix[:, 3, 3] += 0.5 / shift_sd**2
    matrix[:, 4, 4] += 0.5 / shift_sd**2
    gradient[:, 3:] += 0.5 * poses.shift.double() / shift_sd**2
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    diagonal += damping[:, None] * diagonal + 1e-6
    move = -torch.linalg.solve(matrix, gradient)
    return Poses(poses.image, turn(poses.rotation, move[:, :3]), poses.shift + move[:, 3:].float())


def _choose(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(mask.view(-1, *[1] * (a.dim() - 1)), a, b)
