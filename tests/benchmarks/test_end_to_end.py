from __future__ import annotations

import math

import pytest

from benchmarks.end_to_end import share_by_share, slope

COUNTS = (1000, 3000, 10_000, 50_000)


def test_a_power_law_gives_its_exponent_whatever_the_factors():
    runs = [(name, n, factor * n**0.8) for name, factor in (("a", 0.1), ("b", 7.0)) for n in COUNTS]
    # The second set was not run with all numbers of images.
    assert slope(runs[:-1]) == pytest.approx(0.8)


def test_small_sets_do_not_count():
    runs = [("a", n, max(40.0, 0.01 * n)) for n in COUNTS]
    assert slope(runs, least=10_000) == pytest.approx(1.0)
    assert slope(runs) == pytest.approx(math.log(12.5) / math.log(50 / 3), abs=0.1)


def test_one_number_of_images_has_no_slope():
    assert slope([("a", 3000, 40.0), ("b", 10_000, 80.0)]) is None


def test_what_an_image_adds_is_told_from_what_a_run_costs_anyway():
    runs = [("a", n, 20 + 0.002 * n) for n in (1000, 3000, 10_000, 50_000)]
    assert share_by_share(runs) == pytest.approx((20, 0.002))
    assert share_by_share(runs[:2]) is None
