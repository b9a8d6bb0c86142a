"""Functions in plain arithmetic, so that loops that call them vectorise."""

from __future__ import annotations

import math

import numpy as np

from cryospin.kernels.cpu.compile import F, inlined


@inlined
def sine_cosine(turns):
    """Sine and cosine of an angle in full turns, to about 1e-6; plain arithmetic, so that it vectorises."""
    quarter = (turns - np.floor(turns + F(0.5))) * F(4.0)
    nearest = np.floor(quarter + F(0.5))
    x = (quarter - nearest) * F(math.pi / 2)
    xx = x * x
    s = x * (F(1) + xx * (F(-1 / 6) + xx * (F(1 / 120) + xx * F(-1 / 5040))))
    c = F(1) + xx * (F(-1 / 2) + xx * (F(1 / 24) + xx * (F(-1 / 720) + xx * F(1 / 40320))))
    q = np.int32(nearest)
    swap = (q & 1) != 0
    sine = c if swap else s
    cosine = s if swap else c
    sine = -sine if (q & 2) != 0 else sine
    cosine = -cosine if ((q + 1) & 2) != 0 else cosine
    return sine, cosine


@inlined
def exponential(x):
    """`exp(x)` for x <= 0 to about 1e-6; anything below exp(-60) counts as that, so no number is subnormal."""
    y = max(x, F(-60)) * F(math.log2(math.e))
    whole = np.floor(y + F(0.5))
    f = (y - whole) * F(math.log(2))
    e = F(1) + f * (F(1) + f * (F(1 / 2) + f * (F(1 / 6) + f * (F(1 / 24) + f * F(1 / 120)))))
    return e * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
