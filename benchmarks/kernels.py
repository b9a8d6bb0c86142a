"""Nanoseconds per coefficient of each CPU kernel, for several frequency limits and numbers of threads.

python benchmarks/kernels.py
python benchmarks/kernels.py --device cuda    # the GPU kernels, against the bandwidth of copying (kernels_cuda.py)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.geometry.rotations import random_rotations
from cryospin.geometry.so3_grid import rotation_grid
from cryospin.kernels import cpu
from cryospin.kernels.types import Observations, Poses
from cryospin.proposals.grid import shift_grid

IMAGES = 1000
REPEATS = 5


def main() -> None:
    print("| radius | threads | slices | fits | normal equations | insertion |\n| --- | --- | --- | --- | --- | --- |")
    for radius in (9, 31, 63):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            volume, grid, observations, poses = problem(radius)
            share = torch.ones(IMAGES)
            sums = torch.zeros(grid.shape, dtype=torch.complex64), torch.zeros(grid.shape)
            work = IMAGES * len(observations.disc)
            times = [
                seconds(lambda v=volume, g=grid, p=poses, o=observations: cpu.slices(v, g, p.rotation, o.disc)),
                seconds(lambda v=volume, g=grid, p=poses, o=observations: cpu.fits(v, g, o, p)),
                seconds(lambda v=volume, g=grid, p=poses, o=observations: cpu.normal_equations(v, g, o, p)),
                seconds(lambda s=sums, g=grid, p=poses, o=observations, w=share: cpu.insert(*s, g, o, p, w)),
            ]
            print(f"| {radius} | {threads} | " + " | ".join(f"{1e9 * t / work:.1f}" for t in times) + " |")
    torch.set_num_threads(2)
    volume, grid, observations, _ = problem(8)
    shifts = shift_grid(5.1, 2.0, torch.Generator().manual_seed(0))
    some, slices = observations.take(torch.arange(300)), cpu.slices(volume, grid, rotation_grid(14.5), observations.disc)
    t = seconds(lambda: cpu.grid_expectation(slices, some, shifts, torch.zeros(len(shifts)), 1.0))
    print(f"\ngrid expectation, 300 images, {len(slices)} rotations, {len(shifts)} shifts, radius 8, 2 threads: {t:.2f} s")


def problem(radius: int) -> tuple[torch.Tensor, FourierGrid, Observations, Poses]:
    """Random images of a random volume."""
    g = torch.Generator().manual_seed(0)
    grid, disc = FourierGrid(radius), HalfDisc.build(radius)
    observations = Observations(
        images=torch.randn(IMAGES, len(disc), dtype=torch.complex64, generator=g),
        ctf=torch.rand(IMAGES, len(disc), generator=g) * 2 - 1,
        weight=torch.ones(1, len(disc)),
        group=torch.zeros(IMAGES, dtype=torch.long),
        scale=torch.ones(IMAGES),
        disc=disc,
        box=2 * radius + 2,
    )
    poses = Poses(torch.arange(IMAGES), random_rotations(IMAGES, g), torch.randn(IMAGES, 2, generator=g))
    return torch.randn(grid.shape, dtype=torch.complex64, generator=g), grid, observations, poses


def seconds(work: Callable[[], object]) -> float:
    """Median time of a call, after one that compiles."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[REPEATS // 2]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:n")
    if (device := parser.parse_args().device) == "cpu":
        main()
    else:
        import kernels_cuda

        kernels_cuda.main(device, problem)
