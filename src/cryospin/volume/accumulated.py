"""A volume as a running weighted average of images: no learning rate, no optimiser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc, grid_to_map
from cryospin.kernels import dispatch as kernels
from cryospin.kernels.types import Observations, Poses
from cryospin.state import State
from cryospin.volume.lattice_mates import LatticeMates

_FLOOR, _LEAST = 1e-3, 1e-12
"""Weight, as a share of its shell's mean and at all, that a place must have to count in full."""


class AccumulatedVolume:
    """Sums of inserted images, and the map they imply.

    With data `X = C V + noise` of variance `1 / w`, the sums are `num = sum w C X` and `den = sum w C^2`.

    group: rotations of the particle's point group `(order, 3, 3)`; each image is inserted at all its equivalent poses.
        The sums are on its device
    """

    def __init__(self, grid: FourierGrid, group: Tensor | None = None) -> None:
        self.grid = grid
        self.group = torch.eye(3)[None] if group is None else group
        self._mates = LatticeMates(self.group)
        self.numerator = torch.zeros(grid.shape, dtype=torch.complex64, device=self.group.device)
        self.denominator = torch.zeros(grid.shape, device=self.group.device)

    def state(self) -> State:
        """The sums."""
        return {"numerator": self.numerator, "denominator": self.denominator}

    def restore(self, state: State) -> None:
        """Take the sums back."""
        self.numerator, self.denominator = state["numerator"], state["denominator"]

    def add(self, observations: Observations, poses: Poses, responsibility: Tensor) -> None:
        """Insert images at their poses, each weighted with the probability `(n,)` of its pose."""
        with self._sums() as sums:
            for some, block, rows in observations.blocks(poses):
                for mate in self._mates.representatives:
                    equivalent = block._replace(rotation=block.rotation @ mate)
                    kernels.insert(*sums, self.grid, some, equivalent, responsibility[rows])

    def add_slices(self, rotations: Tensor, disc: HalfDisc, values: Tensor, weights: Tensor) -> None:
        """Insert ready-made slices `(n, P)`: weighted data and weights."""
        with self._sums() as sums:
            for mate in self._mates.representatives:
                kernels.insert_values(*sums, self.grid, rotations @ mate, disc, values, weights)

    @contextmanager
    def _sums(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Numerator and denominator to insert into at one pose of each coset; the others are filled in at the end."""
        if len(self._mates.turns) == 1:
            yield self.numerator, self.denominator
            return
        new = torch.zeros_like(self.numerator), torch.zeros_like(self.denominator)
        yield new
        self.numerator += self._mates.spread(new[0])
        self.denominator += self._mates.spread(new[1])

    def fade(self, factor: float) -> None:
        """Let what was inserted so far count less."""
        self.numerator *= factor
        self.denominator *= factor

    def average(self, radius: int | None = None, box: int | None = None) -> Tensor:
        """Data over weights, with a floor that only places few images reach can feel.

        radius: last shell to keep; the grid's own by default
        box: voxels along a side of the map; the fewest that carry the grid by default
        returns: float32 `(box, box, box)`
        """
        radius = self.grid.radius if radius is None else radius
        mean = self.shell_average(self.denominator)
        return self._filtered(mean, torch.ones_like(mean[: radius + 1]), box)

    def solve(self, prior_power: Tensor, radius: int | None = None, box: int | None = None) -> Tensor:
        """The average, with the Wiener filter of each shell's mean weight `d`, `d S / (1 + d S)`.

        Filtered by its own weight, a place that fewer images reach would be fainter, and images would fit better at views
        that are taken already: poses would bend.

        prior_power: expected `S = |V|^2` of each shell, `(at least radius + 1,)`
        radius, box, returns: as of `average`
        """
        radius = self.grid.radius if radius is None else radius
        mean = self.shell_average(self.denominator)
        ratio = mean[: radius + 1] * prior_power[: radius + 1]
        return self._filtered(mean, ratio / (1 + ratio), box)

    def _filtered(self, mean: Tensor, factor: Tensor, box: int | None) -> Tensor:
        """The average with each shell multiplied by a factor, shells beyond the last of which are left out.

        mean: weight of each shell, `(radius + 1,)`
        """
        shell = self.grid.nearest_shell(self.denominator.device).long()
        floor = self.denominator.new_full((self.grid.radius + 2,), _LEAST)
        floor[:-1] = (_FLOOR * mean).clamp_min(_LEAST)
        kept = torch.zeros_like(floor)
        kept[: len(factor)] = factor
        weights = floor.take(shell).add_(self.denominator)
        return grid_to_map(self.numerator * (kept.take(shell) / weights), self.grid, box)

    def shell_average(self, values: Tensor) -> Tensor:
        """Mean of a lattice quantity over each shell, float64 `(radius + 1,)`."""
        shell = self.grid.nearest_shell(values.device).flatten()
        total = torch.bincount(shell, values.flatten().double(), minlength=self.grid.radius + 2)
        return (total / torch.bincount(shell, minlength=self.grid.radius + 2))[:-1]
