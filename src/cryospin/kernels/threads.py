"""Split work into as many contiguous parts as there are threads.

The parts are fixed by the number of threads alone, so a run repeats to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch

PRIVATE_BYTES = 4 << 30
"""What the threads together may take for memory that each needs to itself, unless one alone needs more."""


def parts(count: int, bytes_each: int = 0) -> list[tuple[int, int]]:
    """Ranges that cover 0 to `count`, one for each thread, or fewer where each needs much memory to itself."""
    threads = max(1, min(torch.get_num_threads(), count, PRIVATE_BYTES // max(1, bytes_each)))
    return [(count * t // threads, count * (t + 1) // threads) for t in range(threads)]


def for_each_part(work: Callable[[int, int, int], None], count: int, bytes_each: int = 0) -> None:
    """Call `work(part, start, stop)` for every part at once; `work` must release the interpreter lock."""
    ranges = parts(count, bytes_each)
    if len(ranges) == 1:
        work(0, *ranges[0])
        return
    futures = [_pool(len(ranges)).submit(work, t, *r) for t, r in enumerate(ranges)]
    for future in futures:
        future.result()


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="cryospin")
