from __future__ import annotations

import numpy as np
import pytest

from cryospin.evaluation.calibration import reliability, roc


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_an_honest_confidence_is_calibrated(rng):
    confidence = rng.uniform(0, 1, 50_000)
    curve = reliability(confidence, rng.uniform(size=50_000) < confidence)
    np.testing.assert_allclose(curve.right, curve.confidence, atol=0.03)
    assert curve.expected_error < 0.015
    assert abs(curve.bias) < 0.01
    assert curve.particles.sum() == 50_000


def test_overconfidence_shows_as_what_it_is(rng):
    curve = reliability(np.full(10_000, 0.95), rng.uniform(size=10_000) < 0.7)
    assert len(curve.particles) == 1
    assert curve.expected_error == pytest.approx(0.25, abs=0.02)
    assert curve.bias == pytest.approx(0.25, abs=0.02)


def test_full_confidence_has_a_bin_and_no_confidence_too():
    curve = reliability(np.array([0.0, 1.0]), np.array([False, True]))
    assert curve.confidence.tolist() == [0, 1]
    assert curve.expected_error == 0


def test_a_confidence_of_two_is_refused():
    with pytest.raises(ValueError, match="from 0 to 1"):
        reliability(np.array([2.0]), np.array([True]))


def test_the_area_is_the_chance_of_the_right_order(rng):
    score = np.concatenate([rng.normal(1, 1, 4000), rng.normal(0, 1, 4000)])
    positive = np.arange(8000) < 4000
    curve = roc(score, positive)
    # Normal scores one deviation apart: the chance is the normal distribution at 1 / sqrt 2.
    assert curve.area == pytest.approx(0.7602, abs=0.015)
    assert (np.diff(curve.false_positive) >= 0).all()
    assert roc(-score, positive).area == pytest.approx(1 - curve.area)


def test_perfect_useless_and_constant_scores():
    positive = np.array([True, True, False, False])
    assert roc(np.array([4, 3, 2, 1]), positive).area == 1
    assert roc(np.array([1, 2, 3, 4]), positive).area == 0
    assert roc(np.ones(4), positive).area == 0.5


def test_one_kind_alone_has_no_roc():
    with pytest.raises(ValueError, match="both"):
        roc(np.ones(3), np.ones(3, bool))
