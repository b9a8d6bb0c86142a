"""When the competition may end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cryospin.engine.switch import switch_reason


def standing(moved, margin):
    return SimpleNamespace(moved=moved, margin=margin)


def test_it_ends_when_winners_are_still_and_clear():
    reason = switch_reason(standing(0.01, 0.95))
    assert "1.0 %" in reason
    assert "95 %" in reason


@pytest.mark.parametrize(("moved", "margin"), [(0.2, 0.95), (0.01, 0.5), (float("nan"), 0.95)])
def test_it_goes_on_otherwise(moved, margin):
    assert switch_reason(standing(moved, margin)) == ""
