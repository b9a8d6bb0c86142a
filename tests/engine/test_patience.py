"""Faint images explore longer, and how much longer changes by no leap."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cryospin.engine.explore_grid import _patience


@pytest.mark.parametrize(("nats", "times"), [(5.0, 6), (25.0, 6), (27.5, 3), (26.0, 5), (30.0, 1), (300.0, 1)])
def test_the_fainter_the_images_the_more_epochs(nats, times):
    assert _patience(nats) == times


def test_no_leap_between_images_of_nearly_the_same_information():
    times = [_patience(20 + 0.25 * step) for step in range(60)]
    assert all(0 <= before - after <= 1 for before, after in pairwise(times))
    assert (times[0], times[-1]) == (6, 1)
