"""What rounded factors do to the log-posterior of a grid search: TF32 and bfloat16 against float64, on any machine.

python -m benchmarks.tensor_cores
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.geometry.so3_grid import rotation_grid
from cryospin.kernels import cpu
from cryospin.proposals.grid import shift_grid
from cryospin.simulation import density_from_source

IMAGES, BOX, RADIUS = 100, 64, 9


def main() -> None:
    g = torch.Generator().manual_seed(0)
    print("| nats an image | factors | median error, nats | largest | same best pose | posterior moved by |")
    print("|" + " --- |" * 6)
    for nats in (20, 100, 500):
        data, slices, penalty = problem(nats, g)
        exact = log_posterior(data.double(), slices.double(), penalty)
        weight = torch.softmax(exact.flatten(1), 1)
        for name, rounded in (("TF32", tf32), ("bfloat16", lambda x: x.bfloat16().float())):
            found = log_posterior(rounded(data).double(), rounded(slices).double(), penalty)
            error = (found - exact).abs()
            same = (found.flatten(1).argmax(1) == exact.flatten(1).argmax(1)).double().mean()
            moved = 0.5 * (torch.softmax(found.flatten(1), 1) - weight).abs().sum(1).mean()
            errors = f"{float(error.median()):.3f} | {float(error.max()):.2f}"
            print(f"| {nats} | {name} | {errors} | {100 * float(same):.0f} % | {float(moved):.3f} |")


def problem(nats: float, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Shifted data `(n, S, 2P)` and slices `(G, 2P)` as real numbers, and the model's power `(G,)`."""
    grid, disc = FourierGrid(RADIUS), HalfDisc.build(RADIUS)
    volume = map_to_grid(density_from_source("phantom", BOX, 5.0, seed=1), grid)
    signal = cpu.slices(volume, grid, random_rotations(IMAGES, g), disc)
    signal[:, 0] = 0
    scale = (nats / float((signal.abs() ** 2).sum(1).mean())) ** 0.5
    images = scale * signal + torch.randn(signal.shape, dtype=signal.dtype, generator=g)
    slices = scale * cpu.slices(volume, grid, rotation_grid(14.5), disc)
    slices[:, 0] = 0
    shifts = shift_grid(0.08 * BOX, BOX / (4 * RADIUS), g)
    moved = images[:, None] * disc.shift_phase(shifts, BOX).conj()
    power = (slices.abs() ** 2).sum(1)
    return torch.view_as_real(moved).flatten(2), torch.view_as_real(slices).flatten(1), power


def log_posterior(data: Tensor, slices: Tensor, penalty: Tensor) -> Tensor:
    return 2 * data @ slices.T - penalty


def tf32(x: Tensor) -> Tensor:
    """The lowest 13 bits cut off, as tensor cores read float32."""
    return (x.view(torch.int32) & ~0x1FFF).view(torch.float32)


if __name__ == "__main__":
    main()
