"""Which of its mates an image shows, in a particle that is nearly symmetric.

Where images took sides at random, the map is symmetric and expectation-maximisation hardly leaves it. An image prefers the
pose it was inserted at; and images of neighbouring views, whose slices overlap the most, settle in patches that take
different sides. So every image is judged by a map that it has no part in, of the other folds of the images; and the
frequency limit starts so low that every slice meets many others, and rises in small steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.engine.half_sets import HalfSets, sums_of_halves
from cryospin.engine.problem import Problem
from cryospin.evenly import evenly_spaced
from cryospin.fourier import FourierGrid, low_pass, map_to_grid, resample_map
from cryospin.kernels.types import Observations, Poses
from cryospin.maps.fsc import fourier_shell_correlation
from cryospin.poses.gauss_newton import refine_poses
from cryospin.poses.modes import Modes
from cryospin.volume.accumulated import AccumulatedVolume
from cryospin.volume.mask import WIDE, outline_mask

SHELLS = (6, 8, 10, 12)
"""Frequency limits. All images are judged together, so the last is that of the map which half-sets start from."""

JUDGED = range(SHELLS[-1] + 2, SHELLS[-1] + 9)
"""Shells that had no part in taking sides, with one between."""

_PASSES, _FOLDS = 16, 8
_MOST_IMAGES = 5000
"""So many images find the sides; others are judged by the map of these."""


def mate_of(poses: Poses, turn: Tensor, about: Tensor) -> Poses:
    """Poses at which a map that is the same after a turn looks the same.

    turn: `(3, 3)`; about: `(3,)`, the point it leaves where it is, (x, y, z) in pixels from the box centre
    """
    moved = (poses.rotation @ (about - turn @ about))[:, :2]
    return Poses(poses.image, poses.rotation @ turn, poses.shift + moved)


def wide_outline(sets: HalfSets) -> Tensor:
    """The particle's outline with an edge so wide that its own lack of symmetry does not tell mates apart.

    The refinement's mask is of both halves, and its noise would make them agree: by 0.13 in a symmetric beta-galactosidase.
    """
    return outline_mask(sets.maps, sets.problem.mask_diameter, WIDE)


def take_sides(sets: HalfSets, best: Modes, turns: Tensor, about: Tensor) -> Modes:
    """Every image at each of its mates, with misfits whose differences are held out and up to `SHELLS` only.

    sets: with mask, noise and contrasts as they stand
    best: one pose of each image, by image
    turns: of the group, the identity first, `(order, 3, 3)`; about: see `mate_of`
    """
    problem, count, order = sets.problem, len(best), len(turns)
    poses = Poses.join([mate_of(best.poses, turn, about) for turn in turns])
    row = torch.arange(len(poses.image), device=problem.device).view(order, count)
    marching = evenly_spaced(count, _MOST_IMAGES, problem.device)
    folds = [row[:, marching[number::_FOLDS]] for number in range(_FOLDS)]
    misfit = torch.zeros(order, count, dtype=torch.float64, device=problem.device).flatten()
    share = (row < count).float().flatten()
    outline = wide_outline(sets)
    for shell in SHELLS:
        observations = sets.observations(min(shell, problem.last_shell))
        mask = resample_map(outline, FourierGrid(observations.disc.radius).box).clamp(0, 1)
        sums = [_sum(problem.early_group, observations, poses, share, fold) for fold in folds]
        for number, fold in [*enumerate(folds)] * _PASSES:
            others = sums[:number] + sums[number + 1 :]
            misfit[fold] = _misfit(problem, mask, others, observations, poses, fold)
            share[fold] = torch.softmax(-misfit[fold], 0).float()
            sums[number] = _sum(problem.early_group, observations, poses, share, fold)
    absent = torch.ones(count, dtype=torch.bool, device=problem.device)
    absent[marching] = False
    if bool(absent.any()):
        misfit[row[:, absent]] = _misfit(problem, mask, sums, observations, poses, row[:, absent])
    return Modes(poses, misfit, best.source.repeat(order))


def as_before(sides: Modes, order: int) -> Modes:
    """Hypotheses of `take_sides` with each image at the pose that it had."""
    misfit = torch.full_like(sides.misfit, torch.inf)
    misfit[: len(misfit) // order] = 0
    return sides.with_poses(sides.poses, misfit)


def asymmetry(sets: HalfSets, modes: Modes) -> float:
    """Mean FSC, over the shells `JUDGED`, of what the half maps hold beside their symmetric parts; 0 beyond the last shell.

    Sides that were taken by the noise give half maps that agree up to the last of `SHELLS`, where it was, and not beyond.

    modes: as of `take_sides`
    """
    last = min(JUDGED[-1], sets.problem.last_shell)
    if last < JUDGED[0]:
        return 0.0
    observations, group = sets.observations(last), sets.problem.early_group
    either_side = modes.with_poses(modes.poses, torch.zeros_like(modes.misfit))
    with_sides, without = (sums_of_halves(observations, m, sets.half, group) for m in (modes, either_side))
    maps = [taken.average() - symmetric.average() for taken, symmetric in zip(with_sides, without, strict=True)]
    # Shells that the halves share go first: the edge of a mask would smear them over those that are judged.
    mask = resample_map(wide_outline(sets), maps[0].shape[-1])
    first, second = ((part - low_pass(part, JUDGED[0] - 1)) * mask for part in maps)
    return float(fourier_shell_correlation(first, second)[JUDGED[0] : last + 1].mean())


def _sum(group: Tensor, observations: Observations, poses: Poses, share: Tensor, rows: Tensor) -> AccumulatedVolume:
    """Some hypotheses, weighted with their shares; rows: `(order, n)`."""
    volume = AccumulatedVolume(FourierGrid(observations.disc.radius), group)
    volume.add(observations, poses.take(rows.flatten()), share[rows.flatten()])
    return volume


def _misfit(
    problem: Problem, mask: Tensor, sums: list[AccumulatedVolume], observations: Observations, poses: Poses, rows: Tensor
) -> Tensor:
    """Of some hypotheses in the masked map of some folds, nats, shaped as `rows` `(order, n)`."""
    volume = AccumulatedVolume(sums[0].grid, sums[0].group)
    for part in sums:
        volume.numerator += part.numerator
        volume.denominator += part.denominator
    lattice = map_to_grid(volume.average() * mask, volume.grid)
    some = poses.take(rows.flatten())
    return refine_poses(lattice, volume.grid, observations, some, steps=0, shift_sd=problem.shift_sd)[1].view(rows.shape)
