"""How long a run will take on this machine, and how much memory: a model of what was measured, scaled by a probe."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from cryospin.fourier import HalfDisc

# Fitted to whole runs of 3,000 to 5,000 images of 64 to 128 pixels (docs/benchmarks.md), on a machine where the probe
# takes this long. Runs of the same size differ by a factor of two, with the structure and its noise.
_PROBE_SECONDS = 0.022
_START_SECONDS, _SECONDS_PER_COEFFICIENT = 25.0, 3.7e-6
_START_GIB, _BYTES_PER_COEFFICIENT, _BYTES_PER_VOXEL = 0.8, 27.0, 510.0


@dataclass(frozen=True)
class Estimate:
    """What a run costs on this machine, give or take a factor of two.

    seconds: of wall time; memory_gib: at most at once
    available_gib: memory free now, None where that is not known; threads: that a run would use
    """

    seconds: float
    memory_gib: float
    available_gib: float | None
    threads: int


def estimate(count: int, box: int, threads: int) -> Estimate:
    """Cost of reconstructing `count` particles at a working box, in pixels."""
    coefficients = count * len(HalfDisc.build(box // 2 - 1))
    slower = _probe(threads) / _PROBE_SECONDS
    memory = coefficients * _BYTES_PER_COEFFICIENT + box**3 * _BYTES_PER_VOXEL
    return Estimate(
        seconds=slower * (_START_SECONDS + _SECONDS_PER_COEFFICIENT * coefficients),
        memory_gib=_START_GIB + memory / 2**30,
        available_gib=_available_gib(),
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


def _available_gib() -> float | None:
    """Memory that can be had without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kib[0] / 2**20 if kib else None
