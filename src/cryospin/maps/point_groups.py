"""Which point group a map has, and how its axes stand.

A map of symmetry G correlates with itself turned by any element of G as well as it correlates with the truth. The axes are
found at low frequency from the map's angular waves about every axis (`maps.axes`); Gauss-Newton then brings the map
onto its turned self, which gives each axis to a fraction of a degree and the point where the axes meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import roma
import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, map_to_grid
from cryospin.geometry.rotations import in_plane, random_rotations, to_rotation_vectors
from cryospin.geometry.symmetry import point_group
from cryospin.kernels.reference import sample
from cryospin.maps.alignment import refine_motions
from cryospin.maps.axes import COARSE, AxisSpectra

_COARSE_SHELL, _MOST_SHELLS = 8, 20
_STEPS = (6, 10, 16)
_FRAMES = 3
_LAST_FOLD = 12
_REFINED = {"C": 3, "D": 3, "TOI": 2}
"""Groups of each kind whose axes are refined, those of the best scores at low frequency."""

_PROMISING = 0.3
_TURNS_REFINED = 12
_NULL_FRAMES, _NULL_TURNS = 20, 8
_MOST_POINTS = 5000
_HOLD = 1e-3
_WANDERED = 0.2
_RECOGNISED = 0.5
"""A map may have a group if it agrees with its turned self this well, over how well its halves say that it could."""

_AS_GOOD = 0.85
"""A larger group is believed where its score is this share of the best: all turns of a true one are alike."""

_OF_ITS_OWN = 0.1
"""By so much must an n-fold axis' own turns beat those half-way between them, or n is not determined."""

_GLANCE_SHELL, _GLANCED = 6, 0.35
"""Frequency limit of the first look, and the score there that deserves a second; its axes are off by some degrees."""

_SUSPICIOUS, _STANDING_OUT, _NEARLY_PERFECT = 0.45, 3.5, 0.9
"""A group is suspected from such a score on, if it is so many standard deviations above that of random axes, or from the
third on in any case. A bent map of a symmetric particle still scores as much for a part of its group."""

_ALMOST_STANDING_OUT, _MOSTLY = 2.5, 0.5
"""So few standard deviations are enough if turns half-way between those of the main axis score less by this share: in a
round map they score as much."""

_NEARLY, _PARTLY = 0.75, 0.6
"""A larger group is preferred that scores this share of the best one, or the second where the map is bent badly."""


@dataclass(frozen=True)
class Symmetry:
    """A point group's best axes in a map.

    name: of the group
    frame: float64 `(3, 3)`, Q: columns are the group's x, y and z axes in the map, so its turns there are `Q g Q^T`
    centre: float64 `(3,)`, where the axes meet, (x, y, z) in voxels from the box centre; 0 along a single axis
    score: mean correlation of the map with itself over all turns but none, spherical average taken off; 1 is perfect
    between: the same for turns about the main axis half-way between its own
    random: the same for random axes, mean and standard deviation
    """

    name: str
    frame: Tensor
    centre: Tensor
    score: float
    between: float
    random: tuple[float, float]

    @property
    def group(self) -> Tensor:
        """The group's turns in the map's frame, float32 `(order, 3, 3)`."""
        return (self.frame @ point_group(self.name).double() @ self.frame.T).float()

    def holds(self, expected: float = 1.0) -> bool:
        """Whether the map has this symmetry; `expected` is the score that a map of its quality could have."""
        return self.score >= _RECOGNISED * expected and self.has_its_own_fold

    @property
    def stands_out(self) -> bool:
        """Whether the map may be one of a particle with this symmetry whose poses are not yet right."""
        mean, spread = self.random
        sharp = self.score - self.between >= _MOSTLY * self.score
        least = mean + (_ALMOST_STANDING_OUT if sharp else _STANDING_OUT) * spread
        return self.score >= min(least, _NEARLY_PERFECT) and self.has_its_own_fold

    @property
    def has_its_own_fold(self) -> bool:
        """Whether the main axis' own turns beat those half-way between them."""
        return self.score - self.between >= _OF_ITS_OWN


@dataclass(frozen=True)
class Candidates:
    """Point groups that a map may have.

    found: those whose axes were refined, best score first
    expected: score of a true symmetry in a map of this quality
    resolution_shell: last shell compared
    """

    found: tuple[Symmetry, ...]
    expected: float
    resolution_shell: int

    @property
    def best(self) -> Symmetry | None:
        """The largest group that the map has, or None: every subgroup of it is among the candidates too."""
        return _largest([s for s in self.found if s.holds(self.expected)], _AS_GOOD)

    def lines(self, size_angstrom: float) -> list[str]:
        """What was found, in words; `size_angstrom` is the side of the box."""
        verdict = "the map has no symmetry (C1)"
        if best := self.best:
            reach = f"as far as {size_angstrom / self.resolution_shell:.1f} Å"
            verdict = f"the map has {best.name}, {reach}; --symmetry {best.name} imposes it"
        return [f"candidate symmetry {describe(s, self.expected)}" for s in self.found] + [verdict]

    def table(self) -> dict[str, Any]:
        """What was found, as plain values; axes are (x, y, z) in the map, centres in voxels from the box centre.

        A subgroup of the one chosen need not pass: turns half-way between its own are of the map's symmetry, too.
        """
        return {
            "symmetry": self.best.name if self.best else "C1",
            "last_shell": self.resolution_shell,
            "expected_score": self.expected,
            "candidates": [
                {
                    "name": s.name,
                    "score": s.score,
                    "score_between": s.between,
                    "score_random_mean": s.random[0],
                    "score_random_sd": s.random[1],
                    "main_axis": s.frame[:, 2].tolist(),
                    "x_axis": s.frame[:, 0].tolist(),
                    "centre": s.centre.tolist(),
                    "passes": s.holds(self.expected),
                    "chosen": s is self.best,
                }
                for s in self.found
            ],
        }


def recognise(density: Tensor, radius: int | None = None, fsc: Tensor | None = None) -> Candidates:
    """Look for C2 to C12, D2 to D12, T, O and I in a map.

    density: `(d, d, d)`, masked, the particle about in the middle
    radius: last shell to compare; a quarter of the box by default, at most 20
    fsc: of the map's halves, `(d // 2,)`; only shells where it is above 0.5 are compared
    """
    radius = _last_shell(density, radius)
    truth = torch.ones(density.shape[-1] // 2, dtype=torch.float64)
    if fsc is not None:
        below = (fsc[1:] < 0.5).nonzero()
        radius = max(4, min(radius, int(below[0]) if len(below) else radius))
        # Between a map and the truth the correlation is the root of C = 2 FSC / (1 + FSC); between two such maps it is C.
        truth = (2 * fsc / (1 + fsc)).clamp(0, 1)
    spectra = AxisSpectra.of(density, min(_COARSE_SHELL, radius))
    found = [find_symmetry(density, n, radius, spectra) for n in _promising(_coarse_scores(spectra))]
    expected = float(_shell_average(truth[2 : radius + 1]))
    return Candidates(tuple(sorted(found, key=lambda s: -s.score)), expected, radius)


def suspects(density: Tensor) -> list[Symmetry]:
    """Groups that a map might have if its poses were better: the likeliest, and a larger one that is less likely.

    density: `(d, d, d)`, masked, at low resolution, the particle about in the middle
    """
    spectra = AxisSpectra.of(density, _GLANCE_SHELL, COARSE)
    coarse = _coarse_scores(spectra)
    found = [find_symmetry(density, n, _COARSE_SHELL, spectra) for n in _promising(coarse) if coarse[n] > _GLANCED]
    likely = [s for s in found if s.stands_out]
    if max((s.score for s in likely), default=0.0) < _SUSPICIOUS:
        return []
    chosen = [_largest(likely, share) for share in (_NEARLY, _PARTLY)]
    return list({s.name: s for s in chosen if s is not None}.values())


def find_symmetry(density: Tensor, name: str, radius: int | None = None, spectra: AxisSpectra | None = None) -> Symmetry:
    """The best axes of one point group in a map.

    density: `(d, d, d)`, masked, the particle about in the middle
    radius: last shell to compare; a quarter of the box by default, at most 20
    spectra: of the same map, where they are known already
    """
    name, radius = name.strip().upper(), _last_shell(density, radius)
    group = point_group(name).double()
    if len(group) == 1:
        return Symmetry(name, torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 1.0, 0.0, (0.0, 0.0))
    spectra = spectra or AxisSpectra.of(density, min(_COARSE_SHELL, radius))
    found = []
    for frame in spectra.frames_of(name, _FRAMES):
        frame, centre = _refined(density, group, frame, radius)
        found.append((_score(density, frame @ group[1:] @ frame.T, centre, radius), frame, centre))
    score, frame, centre = max(found, key=lambda f: f[0])
    between = _score(density, frame @ _between(name) @ frame.T, centre, radius) if name[0] in "CD" else 0.0
    return Symmetry(name, frame, centre, score, between, _random_score(density, group, centre, radius))


def self_correlation(density: Tensor, turns: Tensor, centre: Tensor, radius: int) -> Tensor:
    """Correlation of a map with itself turned about a point, in shells 2 to `radius`: float64 `(n, radius - 1)`.

    Each shell is without its mean, since a round map has every symmetry.

    density: `(d, d, d)`; turns: `(n, 3, 3)`; centre: `(3,)`, (x, y, z) in voxels from the box centre
    """
    grid, plain = FourierGrid(radius, padding=3), FourierGrid(radius, padding=1)
    wave = 2 * math.pi / density.shape[-1] * (grid.points().double() @ centre.double())
    volume = map_to_grid(density, grid) * torch.polar(torch.ones_like(wave), wave).to(torch.complex64)
    k = plain.points().flatten(0, 2)
    shell = k.norm(dim=1).round().long()
    order = ((shell >= 2) & (shell <= radius)).nonzero()[:, 0]
    order = order[shell[order].argsort(stable=True)]
    order = order[:: max(1, len(order) // _MOST_POINTS)]
    k, member = k[order], torch.nn.functional.one_hot(shell[order] - 2, radius - 1).double()
    mean = (sample(volume, grid, k).real.double() @ member) / member.sum(0)
    here = sample(volume, grid, k).to(torch.complex128) - member @ mean
    there = sample(volume, grid, k @ turns.to(k.dtype)).to(torch.complex128) - member @ mean
    cross, power = (here.conj() * there).real @ member, (there.abs() ** 2) @ member
    return cross / (power * ((here.abs() ** 2) @ member)).sqrt().clamp_min(1e-30)


def describe(found: Symmetry, expected: float = 1.0) -> str:
    """A line on a point group's axes in a map."""
    mean, spread = found.random
    return (
        f"{found.name} scores {found.score:.2f} (a true symmetry {expected:.2f}, axes at random {mean:.2f} ± {spread:.2f}), "
        f"main axis {_vector(found.frame[:, 2])}"
    )


def _vector(axis: Tensor) -> str:
    return "(" + ", ".join(f"{float(a) + 0.0:.3f}" for a in axis) + ")"


def _largest(found: list[Symmetry], nearly: float) -> Symmetry | None:
    """The largest of some groups whose score is this share of the best at least; None of none."""
    least = nearly * max((s.score for s in found), default=0.0)
    return max((s for s in found if s.score >= least), key=lambda s: (len(s.group), s.score), default=None)


def _coarse_scores(spectra: AxisSpectra) -> dict[str, float]:
    """How well a map agrees with its turned self at low frequency, for each group at its best axes."""
    folds = range(2, _LAST_FOLD + 1)
    names = [f"C{n}" for n in folds] + [f"D{n}" for n in folds] + ["T", "O", "I"]
    return {n: float(spectra.of_group(point_group(n), spectra.frames_of(n, 1))[0]) for n in names}


def _promising(coarse: dict[str, float]) -> list[str]:
    """Names of the groups worth refining, by their scores at low frequency: one at least."""
    order = sorted(coarse, key=lambda name: -coarse[name])
    kinds = [[n for n in order if n[0] in kind][:most] for kind, most in _REFINED.items()]
    return [n for kind in kinds for n in kind if coarse[n] > _PROMISING or n == order[0]]


def _last_shell(density: Tensor, radius: int | None) -> int:
    return min(radius or density.shape[-1] // 4, _MOST_SHELLS, density.shape[-1] // 2 - 1)


def _shell_average(values: Tensor) -> Tensor:
    """Mean over shells from 2 on, each coefficient counting alike: `(..., n)` to `(...)`."""
    weight = torch.arange(2, values.shape[-1] + 2, dtype=torch.float64) ** 2
    return (values * weight).sum(-1) / weight.sum()


def _score(density: Tensor, turns: Tensor, centre: Tensor, radius: int) -> float:
    return float(_shell_average(self_correlation(density, turns, centre, radius).mean(0)))


def _between(name: str) -> Tensor:
    """Turns about z half-way between those of an n-fold axis."""
    fold = int(name[1:])
    angle = (2 * torch.arange(fold, dtype=torch.float64) + 1) * math.pi / fold
    return in_plane(angle)


def _refined(density: Tensor, group: Tensor, frame: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Frame and centre of a group's axes in a map, from the motions that bring the map onto itself near its turns."""
    turns = _without_inverses(group)
    turns = turns[:: math.ceil(len(turns) / _TURNS_REFINED)]
    centre = torch.zeros(3, dtype=torch.float64)
    for shell in sorted({min(s, radius) for s in (*_STEPS, radius)}):
        near = frame @ turns @ frame.T
        motion, shift, agreement = refine_motions(density, density, near, centre - near @ centre, shell)
        frame = _fitted_frame(turns, motion, agreement.clamp_min(0), frame)
        # A point that a motion x -> h x + s leaves alone solves (1 - h) c = s.
        stiff = (torch.eye(3, dtype=torch.float64) - frame @ turns @ frame.T).flatten(0, 1)
        centre = torch.linalg.lstsq(stiff, shift.flatten()[:, None], driver="gelsd").solution[:, 0]
    return frame, centre


def _fitted_frame(turns: Tensor, motion: Tensor, weight: Tensor, frame: Tensor) -> Tensor:
    """The frame that brings the axes of a group's turns onto those of motions found near them."""
    want, got = to_rotation_vectors(turns), to_rotation_vectors(motion)
    angle = want.norm(dim=1)
    want, got = want / angle[:, None], got / got.norm(dim=1, keepdim=True).clamp_min(1e-6)
    # A half turn has an axis without a sign; a motion that strayed to another angle is not of the group.
    got = got * torch.sign(((want @ frame.T) * got).sum(1, keepdim=True))
    strayed = (to_rotation_vectors(motion).norm(dim=1) - angle).abs() > _WANDERED
    weight = torch.where(strayed, 0.0, weight.double()) / len(turns)
    total = torch.einsum("n,ni,nj->ij", weight, got, want)
    # With a single axis the turn about it is free and stays as it was.
    return roma.special_procrustes(total + _HOLD * frame)


def _without_inverses(group: Tensor) -> Tensor:
    """One of each turn and its inverse, without the identity."""
    inverse = (group[:, None].mT - group[None]).abs().amax((2, 3)).argmin(1)
    index = torch.arange(len(group))
    return group[(index <= inverse) & (index > 0)]


def _random_score(density: Tensor, group: Tensor, centre: Tensor, radius: int) -> tuple[float, float]:
    """Mean and standard deviation of the score with axes at random."""
    frames = random_rotations(_NULL_FRAMES, torch.Generator().manual_seed(0)).double()
    turns = group[1:][:: math.ceil((len(group) - 1) / _NULL_TURNS)]
    trials = frames[:, None] @ turns @ frames[:, None].mT
    score = _shell_average(self_correlation(density, trials.flatten(0, 1), centre, radius))
    score = score.unflatten(0, (_NULL_FRAMES, len(turns))).mean(1)
    return float(score.mean()), float(score.std())
