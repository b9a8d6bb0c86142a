"""How long a run will take on this machine, and how much memory: a model of what was measured, scaled by a probe."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from cryospin.fourier import HalfDisc
from cryospin.memory import available_gib, fits_in_memory, needed_gib
from cryospin.packing import bytes_packed

# Fitted to whole runs of 3,000 to 5,000 images of 64 to 128 pixels (docs/benchmarks.md), on a machine where the probe
# takes this long. Runs of the same size differ by a factor of two, with the structure and its noise.
_PROBE_SECONDS = 0.022
_START_SECONDS, _SECONDS_PER_COEFFICIENT = 25.0, 3.7e-6


@dataclass(frozen=True)
class Estimate:
    """What a run costs on this machine, give or take a factor of two.

    seconds: of wall time; memory_gib: at most at once
    disk_gib: of packed images that memory does not hold, next to the results while the run lasts
    available_gib: memory free now, None where that is not known; threads: that a run would use
    """

    seconds: float
    memory_gib: float
    disk_gib: float
    available_gib: float | None
    threads: int


def estimate(count: int, box: int, threads: int) -> Estimate:
    """Cost of reconstructing `count` particles at a working box, in pixels."""
    coefficients = count * len(HalfDisc.build(box // 2 - 1))
    on_disk = not fits_in_memory(count, box, threads, None)
    slower = _probe(threads) / _PROBE_SECONDS
    return Estimate(
        seconds=slower * (_START_SECONDS + _SECONDS_PER_COEFFICIENT * coefficients),
        memory_gib=needed_gib(count, box, threads, on_disk=on_disk),
        disk_gib=bytes_packed(count, box) / 2**30 if on_disk else 0.0,
        available_gib=available_gib(),
        threads=threads,
    )


def _probe(threads: int) -> float:
    """Seconds of a fixed piece of arithmetic; the best of a few tries, since others may use the machine, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a, b = torch.ones(1024, 1536), torch.ones(1536, 1024)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        torch.fft.rfft2(a @ b)
        best = min(best, time.perf_counter() - started)
    torch.set_num_threads(before)
    return best
