"""Nanoseconds per coefficient of each CPU kernel beside what the machine's memory and arithmetic allow.

python -m benchmarks.kernels
python -m benchmarks.kernels --device cuda    # the GPU kernels, against the bandwidth of copying (kernels_cuda.py)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.geometry.rotations import random_rotations
from cryospin.geometry.so3_grid import rotation_grid, sorted_by_view
from cryospin.kernels import cpu
from cryospin.kernels.types import Observations, Poses
from cryospin.proposals.grid import shift_grid

COEFFICIENTS = 30_000_000
MOST_IMAGES, SET = 10_000, 50_000
"""Images at a time: those of a set that are neighbours in view, as a run takes them (`Observations.blocks`)."""

REPEATS = 3
KERNELS = ("slices", "fits", "normal equations", "insertion")

BYTES = {"slices": 8, "fits": 12, "normal equations": 12, "insertion": 12}
"""What has to come from memory or go there for each coefficient, the volume being in cache: image and CTF, or the slice."""

OPERATIONS = {"slices": 60, "fits": 90, "normal equations": 260, "insertion": 90}
"""Additions and multiplications for each coefficient, roughly, by the sources of the kernels."""


def main() -> None:
    limits = {threads: machine(threads) for threads in (1, 2)}
    for threads, (bandwidth, rate) in limits.items():
        print(f"threads: {threads}; copies {bandwidth:.1f} GB/s, multiplies matrices at {rate:.0f} Gflop/s")
    print("\n| radius | images | threads | " + " | ".join(KERNELS) + " |\n" + "| --- " * (3 + len(KERNELS)) + "|")
    for radius in (9, 31, 63):
        volume, grid, observations, poses = problem(radius)
        for threads, (bandwidth, rate) in limits.items():
            torch.set_num_threads(threads)
            cells = []
            for name, t in timed(volume, grid, observations, poses).items():
                floor = max(BYTES[name] / bandwidth, OPERATIONS[name] / rate)
                cells.append(f"{t:.1f} ({100 * floor / t:.0f} %)")
            print(f"| {radius} | {len(poses.image)} | {threads} | " + " | ".join(cells) + " |", flush=True)
    grid_expectation()


def timed(volume: torch.Tensor, grid: FourierGrid, o: Observations, poses: Poses) -> dict[str, float]:
    """Nanoseconds per coefficient of each kernel."""
    share = torch.ones(len(poses.image))
    sums = torch.zeros(grid.shape, dtype=torch.complex64), torch.zeros(grid.shape)
    work = {
        "slices": lambda: cpu.slices(volume, grid, poses.rotation, o.disc),
        "fits": lambda: cpu.fits(volume, grid, o, poses),
        "normal equations": lambda: cpu.normal_equations(volume, grid, o, poses),
        "insertion": lambda: cpu.insert(*sums, grid, o, poses, share),
    }
    return {name: 1e9 * seconds(work[name]) / (len(poses.image) * len(o.disc)) for name in KERNELS}


def machine(threads: int) -> tuple[float, float]:
    """Bytes read and written by a copy, GB/s, and float32 operations of a matrix product, Gflop/s."""
    torch.set_num_threads(threads)
    source, target = torch.ones(1 << 26), torch.ones(1 << 26)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    copied = 8 * len(source) / seconds(lambda: target.copy_(source))
    return copied / 1e9, 2 * 1024**3 / seconds(lambda: a @ b) / 1e9


def grid_expectation() -> None:
    """Images on a whole grid of poses."""
    torch.set_num_threads(2)
    volume, grid, observations, _ = problem(8)
    shifts = shift_grid(5.1, 2.0, torch.Generator().manual_seed(0))
    rotations = rotation_grid(14.5, in_plane_deg=180.0)
    some, slices = observations.take(torch.arange(300)), cpu.slices(volume, grid, rotations, observations.disc)
    t = seconds(lambda: cpu.grid_expectation(slices, some, shifts, torch.zeros(len(shifts)), 1.0))
    print(
        f"\ngrid expectation, 300 images, {2 * len(slices)} rotations, {len(shifts)} shifts, radius 8, 2 threads: {t:.2f} s"
    )


def problem(radius: int) -> tuple[torch.Tensor, FourierGrid, Observations, Poses]:
    """Random images of a random volume, their views neighbours."""
    g = torch.Generator().manual_seed(0)
    grid, disc = FourierGrid(radius), HalfDisc.build(radius)
    count = min(MOST_IMAGES, COEFFICIENTS // len(disc))
    observations = Observations(
        images=torch.randn(count, len(disc), dtype=torch.complex64, generator=g),
        ctf=torch.rand(count, len(disc), generator=g) * 2 - 1,
        weight=torch.ones(1, len(disc)),
        group=torch.zeros(count, dtype=torch.long),
        scale=torch.ones(count),
        disc=disc,
        box=2 * radius + 2,
    )
    rotations = random_rotations(SET, g)
    rotations = rotations[sorted_by_view(rotations)[:count]]
    poses = Poses(torch.arange(count), rotations, torch.randn(count, 2, generator=g))
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
        from benchmarks import kernels_cuda

        kernels_cuda.main(device, problem)
