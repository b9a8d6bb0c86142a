from __future__ import annotations

import sys

import pytest

from benchmarks.measuring import Cost, markdown, measured


def python(code):
    return [sys.executable, "-c", code]


def test_memory_and_time_are_the_commands_own():
    cost = measured(python("block = b'x' * 2_000_000_000; sum(range(3_000_000))"))
    assert cost.finished
    assert 1.86 < cost.memory_GiB < 2.2
    assert 0 < cost.cpu_seconds <= 1.1 * cost.seconds, "one thread, and nobody else's time"


def test_a_command_beyond_its_limit_is_stopped_with_its_children(tmp_path):
    child = f"import time, pathlib; time.sleep(2); pathlib.Path({str(tmp_path / 'alive')!r}).touch()"
    cost = measured(python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"), limit=0.5)
    assert not cost.finished
    assert cost.seconds < 2
    measured(python("import time; time.sleep(2)"))
    assert not (tmp_path / "alive").exists()


def test_a_command_that_fails_says_what_it_said():
    with pytest.raises(SystemExit, match="no such luck"):
        measured(python("raise SystemExit('no such luck')"))


def test_costs_add_up():
    total = Cost(1, 2, 3, True).then(Cost(10, 20, 1, False))
    assert total == Cost(11, 22, 3, False)


def test_a_table_has_a_line_a_row():
    table = markdown((("what", "{a}"), ("size", "{b:.1f}")), [{"a": "x", "b": 1.25}])
    assert table.splitlines() == ["| what | size |", "| --- | --- |", "| x | 1.2 |"]
