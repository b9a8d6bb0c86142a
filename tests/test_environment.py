"""What the machine is said to be able to do."""

from __future__ import annotations

import os

import llvmlite.binding as llvm
import pytest

from cryospin.environment import allowed_cores, quick_at_bfloat16
from cryospin.settings import Settings


@pytest.mark.parametrize(
    ("features", "quick"),
    [
        ({"avx2": True, "amx-bf16": True}, True),
        ({"avx512bf16": True}, True),
        ({"avx2": True, "avx512bf16": False, "amx-bf16": False}, False),
        ({"neon": True, "bf16": True}, True),
        ({}, None),
    ],
)
def test_who_is_quick_at_bfloat16(monkeypatch, features, quick):
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: features)
    quick_at_bfloat16.cache_clear()
    try:
        assert quick_at_bfloat16() is quick
    finally:
        quick_at_bfloat16.cache_clear()


def test_a_system_that_cannot_say_which_cores_are_allowed_has_them_all(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    assert allowed_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert allowed_cores() == 7
    assert Settings(particles=tmp_path / "p.star", out=tmp_path / "run").cores == 7
