"""The GPU part of `kernels.py`: time per coefficient and share of the bandwidth that copying reaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from cryospin.device import choose
from cryospin.errors import InputError
from cryospin.geometry.so3_grid import rotation_grid
from cryospin.proposals.grid import shift_grid

REPEATS = 20
_COPY_BYTES = 1 << 30

# What a kernel has to read and write for a coefficient if everything else stays in cache: image 8, CTF 4, slice 8 bytes.
_BYTES = {"slices": 8, "fits": 12, "normal equations": 12, "insertion": 12}


def main(device_name: str, problem: Callable[[int], Any]) -> None:
    """Print the figures, or the one line that says why there are none."""
    try:
        device, card = choose(device_name)
    except InputError as error:
        print(f"no figures: {error}")
        return
    from cryospin.kernels import cuda

    bandwidth = 2 * _COPY_BYTES / seconds(copying(device))
    print(f"{card}; copying reaches {bandwidth / 1e9:.0f} GB/s\n")
    print("| radius | kernel | ps a coefficient | GB/s | of copying |\n| --- | --- | --- | --- | --- |")
    for radius in (9, 31, 63):
        volume, grid, observations, poses = problem(radius)
        volume, observations, poses = volume.to(device), observations.to(device), poses.to(device)
        share = torch.ones(len(poses.image), device=device)
        sums = torch.zeros_like(volume), torch.zeros(grid.shape, device=device)
        work = len(poses.image) * len(observations.disc)
        calls = {
            "slices": lambda v=volume, g=grid, p=poses, o=observations: cuda.slices(v, g, p.rotation, o.disc),
            "fits": lambda v=volume, g=grid, p=poses, o=observations: cuda.fits(v, g, o, p),
            "normal equations": lambda v=volume, g=grid, p=poses, o=observations: cuda.normal_equations(v, g, o, p),
            "insertion": lambda s=sums, g=grid, p=poses, o=observations, w=share: cuda.insert(*s, g, o, p, w),
        }
        for name, call in calls.items():
            t = seconds(call)
            rate = _BYTES[name] * work / t
            print(f"| {radius} | {name} | {1e12 * t / work:.0f} | {rate / 1e9:.0f} | {100 * rate / bandwidth:.0f} % |")
    volume, grid, observations, _ = problem(8)
    volume, observations = volume.to(device), observations.to(device)
    shifts = shift_grid(5.1, 2.0, torch.Generator().manual_seed(0)).to(device)
    slices = cuda.slices(volume, grid, rotation_grid(14.5, in_plane_deg=180.0).to(device), observations.disc)
    prior = torch.zeros(len(shifts), device=device)
    t = seconds(lambda: cuda.grid_expectation(slices, observations, shifts, prior, 1.0))
    images = len(observations.images)
    print(
        f"\ngrid expectation, {images} images, {2 * len(slices)} rotations, {len(shifts)} shifts, radius 8: {1e3 * t:.1f} ms"
    )


def copying(device: torch.device) -> Callable[[], object]:
    """A copy of a gigabyte within the device's memory."""
    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def seconds(work: Callable[[], object]) -> float:
    """Median time of a call on the device, after two that compile and warm up."""
    for _ in range(2):
        work()
    times = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return sorted(times)[REPEATS // 2]
