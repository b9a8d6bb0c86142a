"""What the machine is said to be able to do."""

from __future__ import annotations

import os

import llvmlite.binding as llvm
import pytest

from cryospin.environment import allowed_cores, cores_to_use, quick_at_bfloat16
from cryospin.errors import InputError
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


@pytest.mark.parametrize("threads", [0, -1, 5000])
def test_numbers_of_threads_that_no_run_can_use_are_refused(threads):
    with pytest.raises(InputError, match=rf"--threads {threads} is not a number of cores.*Give 1 to 256"):
        cores_to_use(threads)


def test_more_threads_than_cores_are_allowed(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2}, raising=False)
    assert cores_to_use(None) == 2
    assert cores_to_use(16) == 16
