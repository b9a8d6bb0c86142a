"""What the final maps say of their resolution."""

from __future__ import annotations

import pytest
import torch

from cryospin.engine.final import FinalMaps
from cryospin.volume.halves import FscCurves

BOX, PIXEL = 16, 5.0


def of_curve(*values):
    """Final maps whose curves are all the same, 0 beyond the values given."""
    curve = torch.zeros(BOX // 2, dtype=torch.float64)
    curve[: len(values)] = torch.tensor(values, dtype=torch.float64)
    nothing = torch.zeros(BOX, BOX, BOX)
    return FinalMaps(PIXEL, nothing, nothing, (nothing, nothing), nothing, FscCurves(curve, curve, curve, curve))


def test_a_curve_that_falls_tells_the_resolution():
    maps = of_curve(1.0, 0.99, 0.9, 0.8, 0.1, 0.02, -0.01, 0.01)
    assert 80 / 4 < maps.resolution < 80 / 3
    assert not maps.at_limit


@pytest.mark.parametrize("shells", [5, 8])
def test_a_curve_that_never_falls_tells_only_the_finest_there_is(shells):
    maps = of_curve(*[0.9] * shells)
    assert maps.resolution == 80 / (shells - 1)
    assert maps.at_limit
