"""Adam on the poses of single images: a table in which only a batch's rows are touched."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cryospin.fourier import CPU
from cryospin.geometry.rotations import exponential, turn
from cryospin.kernels.types import Poses
from cryospin.state import State

_EPSILON = 1e-8


class RowAdam:
    """Adam over a table `(rows, width)` whose gradient is zero but for a few rows at a step.

    A row's moments decay at every step, as in Adam on the whole table, made up for when the row is touched again; but a row
    that is not touched does not move. Only the steps are made; where they go is the caller's.

    rate: step size; betas: memory of the two moments
    """

    def __init__(self, rows: int, width: int, rate: float, betas: tuple[float, float], device: torch.device = CPU) -> None:
        self.rate, self.betas = rate, betas
        self.mean, self.square = (torch.zeros(rows, width, device=device) for _ in range(2))
        self.touched = torch.zeros(rows, dtype=torch.long, device=device)
        self.steps = 0

    def state(self) -> State:
        """What a step leaves to the next."""
        return {"mean": self.mean, "square": self.square, "touched": self.touched, "steps": self.steps}

    def restore(self, state: State) -> None:
        """Go on from there."""
        self.mean, self.square, self.touched, self.steps = (state[n] for n in ("mean", "square", "touched", "steps"))

    def step(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """What to add to some rows, `(n, width)`, given their gradient."""
        self.steps += 1
        first, second = self.betas
        past = (self.steps - self.touched[rows])[:, None]
        self.mean[rows] = self.mean[rows] * first**past + (1 - first) * gradient
        self.square[rows] = self.square[rows] * second**past + (1 - second) * gradient**2
        self.touched[rows] = self.steps
        mean = self.mean[rows] / (1 - first**self.steps)
        square = self.square[rows] / (1 - second**self.steps)
        return -self.rate * mean / (square.sqrt() + _EPSILON)


class PoseTable:
    """One pose for every image, and the optimiser that moves it.

    While a batch has its turn, its rotations are rotation vectors about where they stood before it; then they are matrices
    again.

    poses: one for each image, by image
    rotation_rate: Adam's step, radians; shift_rate: pixels, 0 to keep displacements as they are
    """

    def __init__(
        self, poses: Poses, rotation_rate: float, shift_rate: float, betas: tuple[float, float] = (0.9, 0.9)
    ) -> None:
        self.rotation, self.shift = poses.rotation.clone(), poses.shift.clone()
        self.turns = RowAdam(len(self.rotation), 3, rotation_rate, betas, self.rotation.device)
        self.moves = RowAdam(len(self.shift), 2, shift_rate, betas, self.shift.device)

    def state(self) -> State:
        """Poses and what the optimiser remembers."""
        adam = {"turns": self.turns.state(), "moves": self.moves.state()}
        return {"rotation": self.rotation, "shift": self.shift} | adam

    def restore(self, state: State) -> None:
        """Go on from there."""
        self.rotation, self.shift = state["rotation"], state["shift"]
        self.turns.restore(state["turns"])
        self.moves.restore(state["moves"])

    def poses(self, rows: Tensor) -> Poses:
        """Poses of some images, numbered as `rows`."""
        return Poses(rows, self.rotation[rows], self.shift[rows])

    def optimise(self, rows: Tensor, steps: int, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Some steps on the poses of some images.

        loss: of rotations `(n, 3, 3)` and shifts `(n, 2)`, one number
        """
        start, shift = self.rotation[rows], self.shift[rows]
        tangent = torch.zeros(len(rows), 3, device=start.device)
        for _ in range(steps):
            tangent.requires_grad_()
            shift.requires_grad_(self.moves.rate > 0)
            wanted = [tangent, shift] if shift.requires_grad else [tangent]
            gradients = torch.autograd.grad(loss(exponential(tangent) @ start, shift), wanted)
            tangent = tangent.detach() + self.turns.step(rows, gradients[0])
            shift = shift.detach() + (self.moves.step(rows, gradients[1]) if len(gradients) > 1 else 0)
        self.rotation[rows], self.shift[rows] = turn(start, tangent), shift
