"""A volume as a running weighted average of images: no learning rate, no optimiser."""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc, grid_to_map
from cryospin.kernels import dispatch as kernels
from cryospin.kernels.types import Observations, Poses
from cryospin.state import State


class AccumulatedVolume:
    """Sums of inserted images, and the Wiener solution they imply.

    With data `X = C V + noise` of variance `1 / w`, the sums are `num = sum w C X` and `den = sum w C^2`; with
    a prior of power `S` on the volume, its most likely value is `num / (den + 1 / S)`.

    group: rotations of the particle's point group `(order, 3, 3)`; each image is inserted at all its equivalent poses.
        The sums are on its device
    """

    def __init__(self, grid: FourierGrid, group: Tensor | None = None) -> None:
        self.grid = grid
        self.group = torch.eye(3)[None] if group is None else group
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
        for some, block, rows in observations.blocks(poses):
            for mate in self.group:
                equivalent = block._replace(rotation=block.rotation @ mate)
                kernels.insert(self.numerator, self.denominator, self.grid, some, equivalent, responsibility[rows])

    def add_slices(self, rotations: Tensor, disc: HalfDisc, values: Tensor, weights: Tensor) -> None:
        """Insert ready-made slices `(n, P)`: weighted data and weights."""
        for mate in self.group:
            kernels.insert_values(self.numerator, self.denominator, self.grid, rotations @ mate, disc, values, weights)

    def fade(self, factor: float) -> None:
        """Let what was inserted so far count less."""
        self.numerator *= factor
        self.denominator *= factor

    def solve(self, prior_power: Tensor, radius: int | None = None, box: int | None = None) -> Tensor:
        """The map the sums imply.

        prior_power: expected `|V|^2` of each shell, `(at least radius + 1,)`
        radius: last shell to keep; the grid's own by default
        box: voxels along a side of the map; the fewest that carry the grid by default
        returns: float32 `(box, box, box)`
        """
        radius = self.grid.radius if radius is None else radius
        # An infinite prior precision leaves nothing of a shell.
        precision = self.denominator.new_full((self.grid.radius + 2,), torch.inf)
        precision[: radius + 1] = 1 / prior_power[: radius + 1].float()
        denominator = precision.take(self.grid.nearest_shell(precision.device).long()).add_(self.denominator)
        return grid_to_map(self.numerator / denominator, self.grid, box)

    def shell_average(self, values: Tensor) -> Tensor:
        """Mean of a lattice quantity over each shell, float64 `(radius + 1,)`."""
        shell = self.grid.nearest_shell(values.device).flatten()
        total = torch.bincount(shell, values.flatten().double(), minlength=self.grid.radius + 2)
        return (total / torch.bincount(shell, minlength=self.grid.radius + 2))[:-1]
