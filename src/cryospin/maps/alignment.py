"""Bring one map onto another: rotation, shift and hand, without a starting guess."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc, grid_to_map, interpolation_envelope, map_to_grid
from cryospin.geometry.rotations import mean_rotation, random_rotations
from cryospin.geometry.so3_grid import rotation_grid
from cryospin.kernels import dispatch as kernels
from cryospin.kernels.reference import sample
from cryospin.kernels.types import Observations, Poses
from cryospin.maps.fsc import fourier_shell_correlation
from cryospin.noise import shell_mean
from cryospin.poses.gauss_newton import refine_poses

_VIEWS = 30
_COARSE_RADIUS, _COARSE_STEP_DEG = 6, 12.0
_CANDIDATES = 12
_LOOSE = 1e3


@dataclass(frozen=True)
class MapAlignment:
    """How to bring a moving map onto a fixed one: flip its hand, turn it, shift it.

    flipped: mirror the moving map along z first
    turn: float64 `(3, 3)`, Q; the aligned transform is `moving(Q^T k) exp(-2 pi i k.shift / d)`
    shift: float64 `(3,)`, (x, y, z) in voxels
    correlation: of the low-passed maps after alignment
    """

    flipped: bool
    turn: Tensor
    shift: Tensor
    correlation: float


def mirror(density: Tensor) -> Tensor:
    """A map of the other hand: mirrored along z about the box centre."""
    flipped = density.flip(0)
    return flipped if density.shape[0] % 2 else flipped.roll(1, 0)


def align_maps(moving: Tensor, fixed: Tensor, radius: int | None = None) -> MapAlignment:
    """Find the rotation, shift and hand that bring `moving` onto `fixed`.

    Central slices of the fixed map stand in for particle images without noise: a grid over all rotations at low
    frequency gives candidates, Gauss-Newton brings each slice home, and the slices vote on one rigid motion.

    moving, fixed: `(d, d, d)` each, of one physical size
    radius: last shell to use; by default a third of the box
    """
    box = fixed.shape[-1]
    radius = min(radius or box // 3, box // 2 - 1)
    results = [_align(mirror(moving) if flip else moving, fixed, radius, flip) for flip in (False, True)]
    return max(results, key=lambda r: r.correlation)


def apply_alignment(moving: Tensor, alignment: MapAlignment) -> Tensor:
    """The moving map in the fixed map's frame: `(d, d, d)`."""
    source = mirror(moving) if alignment.flipped else moving
    return move_map(source, alignment.turn, alignment.shift)


def map_likeness(moving: Tensor, fixed: Tensor, radius: int) -> float:
    """Mean FSC of two maps in shells 1 to `radius` after one was brought onto the other, in the hand that suits better.

    moving, fixed: `(d, d, d)` each, of one physical size
    """
    aligned = apply_alignment(moving, align_maps(moving, fixed, radius))
    return float(fourier_shell_correlation(aligned, fixed)[1 : radius + 1].mean())


def move_map(density: Tensor, turn: Tensor, shift: Tensor) -> Tensor:
    """A map turned by `turn` (its transform becomes `V(Q^T k)`) and moved by `shift` (x, y, z) in voxels."""
    box = density.shape[-1]
    fine, plain = (FourierGrid(box // 2 - 1, padding=p) for p in (3, 1))
    k = plain.points(density.device)
    k = k[k.norm(dim=-1) < plain.radius + 0.5]
    phase = -2 * math.pi / box * (k.double() @ shift.double())
    values = torch.zeros(plain.shape, dtype=torch.complex64, device=density.device)
    inside = plain.shell_of_points(density.device) < plain.radius + 0.5
    moved = sample(map_to_grid(density, fine), fine, k @ turn.to(k.dtype))
    values[inside] = moved * torch.polar(torch.ones_like(phase), phase).to(moved.dtype)
    # With one lattice point per frequency nothing was interpolated, so there is no envelope to take off.
    return grid_to_map(values, plain, box) * interpolation_envelope(box, 1, density.device)


def _align(moving: Tensor, fixed: Tensor, radius: int, flipped: bool) -> MapAlignment:
    """Best rigid motion for one hand."""
    turns = _coarse_turns(moving, fixed, fixed.shape[-1])
    shifts = torch.zeros(len(turns), 3, dtype=torch.float64)
    steps = sorted({min(r, radius) for r in (_COARSE_RADIUS, 10, 16, 24, 40, radius)})
    for r in steps:
        turns, shifts, agreement = refine_motions(moving, fixed, turns, shifts, r)
        best = agreement.argsort(descending=True)[: max(1, len(turns) // 2)]
        turns, shifts, agreement = turns[best], shifts[best], agreement[best]
    return MapAlignment(flipped, turns[0], shifts[0], float(agreement[0]))


def _views(count: int = _VIEWS) -> Tensor:
    """Random directions to cut slices in, the same at every call."""
    return random_rotations(_VIEWS, torch.Generator().manual_seed(0))[:count]


def _coarse_turns(moving: Tensor, fixed: Tensor, box: int) -> Tensor:
    """The turns of a grid under which a few slices of the maps agree best at low frequency: `(n, 3, 3)`."""
    grid = FourierGrid(min(_COARSE_RADIUS, box // 2 - 1))
    disc = HalfDisc.build(grid.radius)
    turns = rotation_grid(_COARSE_STEP_DEG)
    some = _views(10)
    target = _whitened(kernels.slices(map_to_grid(fixed, grid), grid, some, disc), disc)
    volume = map_to_grid(moving, grid)
    score = torch.zeros(len(turns))
    for view, want in zip(some, target, strict=True):
        got = _whitened(kernels.slices(volume, grid, view @ turns, disc), disc)
        score += (got * want.conj()).real.sum(1)
    return turns[score.topk(_CANDIDATES).indices].double()


def refine_motions(
    moving: Tensor, fixed: Tensor, turns: Tensor, shifts: Tensor, radius: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rigid motions that bring one map onto another, each brought to its optimum nearby.

    Slices of the fixed map find their poses in the moving one by Gauss-Newton, and one motion is fitted to them.

    moving, fixed: `(d, d, d)`; radius: last shell to compare
    turns, shifts: float64 `(n, 3, 3)` and `(n, 3)`, as in `MapAlignment`
    returns: turns, shifts, and the mean correlation of the slices, `(n,)`
    """
    views = _views()
    grid, disc = FourierGrid(radius), HalfDisc.build(radius)
    box = fixed.shape[-1]
    volume, target = map_to_grid(moving, grid), kernels.slices(map_to_grid(fixed, grid), grid, views, disc)
    observations = _as_observations(target, kernels.slices(volume, grid, views, disc), disc, box)
    count = len(turns)
    start = Poses(
        torch.arange(len(views)).repeat(count),
        (views.double()[None] @ turns[:, None]).float().flatten(0, 1),
        (views.double()[None, :, :2] @ shifts[:, None, :, None])[..., 0].float().flatten(0, 1),
    )
    poses, _ = refine_poses(volume, grid, observations, start, steps=6, shift_sd=_LOOSE)
    found = poses.rotation.double().unflatten(0, (count, len(views)))
    moved = poses.shift.double().unflatten(0, (count, len(views)))
    turns = torch.stack([mean_rotation(views.double().mT @ f, torch.ones(len(views))) for f in found])
    design = views[:, :2].double().flatten(0, 1)
    shifts = torch.stack([torch.linalg.lstsq(design, m.flatten()[:, None]).solution[:, 0] for m in moved])
    fitted = Poses(
        start.image,
        (views.double()[None] @ turns[:, None]).float().flatten(0, 1),
        (views.double()[None, :, :2] @ shifts[:, None, :, None])[..., 0].float().flatten(0, 1),
    )
    fit = kernels.fits(volume, grid, observations, fitted)
    own = (observations.weight * target.abs() ** 2).sum(1).repeat(count).double()
    agreement = fit.cross / (fit.power * own).sqrt().clamp_min(1e-30)
    return turns, shifts, agreement.unflatten(0, (count, len(views))).mean(1)


def _as_observations(target: Tensor, model: Tensor, disc: HalfDisc, box: int) -> Observations:
    """Slices of the fixed map as images without CTF, each shell weighted alike, in the moving map's units."""
    strength = shell_mean((target.abs() ** 2).mean(0), disc)
    own = shell_mean((model.abs() ** 2).mean(0), disc)
    weight = (1 / strength.clamp_min(1e-30))[disc.shell].float()
    weight[0] = 0
    scale = float((strength[1:] / own[1:].clamp_min(1e-30)).median().sqrt())
    return Observations(
        images=target,
        ctf=torch.ones(target.shape),
        weight=weight[None],
        group=torch.zeros(len(target), dtype=torch.long),
        scale=torch.full((len(target),), scale),
        disc=disc,
        box=box,
    )


def _whitened(slices: Tensor, disc: HalfDisc) -> Tensor:
    """Slices with equal power in every shell and none at frequency 0."""
    strength = shell_mean((slices.abs() ** 2).mean(0), disc).clamp_min(1e-30).sqrt()
    out = slices / strength[disc.shell].float()
    out[:, 0] = 0
    return out
