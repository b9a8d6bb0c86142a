"""The order of work: a few coefficients of some images that are neighbours in view, then the next few coefficients.

Coefficients are sorted by shell, so the same few of each image lie on one ring of nearly the same plane of the volume,
whatever the in-plane angle. What the first image brings into the second cache the others find there.
"""

from __future__ import annotations

from numba import njit

BLOCK = 512
"""Coefficients at a time, so that what is between two loops over them stays in the first cache."""

GROUP = 32
"""Images at a time."""


# Not cached by itself: numba cannot call a generator that it read from its cache. Kernels that contain it are cached.
# It takes numbers only: numba never lets go of an array that a generator was given.
@njit(nogil=True)
def tiles(rows, count):
    """Yield `(n, start, stop)` for every `n` of `rows` rows and every range of up to `BLOCK` of `count` coefficients."""
    for first in range(0, rows, GROUP):
        for start in range(0, count, BLOCK):
            for n in range(first, min(first + GROUP, rows)):
                yield n, start, min(start + BLOCK, count)
