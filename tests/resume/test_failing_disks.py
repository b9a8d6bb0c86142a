"""A disk that is full, or a folder that may not be written to, ends with one line and a run that resumes."""

from __future__ import annotations

import os
import re
import resource
import stat
import subprocess
import sys
from contextlib import contextmanager

import pytest
from stopped_runs import BOX, COUNT, PIXEL, Killer, arguments, begun, call

from benchmarks.kill import differences
from cryospin import checkpoints
from cryospin.pipeline import resume


def test_a_full_disk_ends_with_one_line_and_a_run_that_resumes(data, whole, tmp_path, monkeypatch):
    """No file may grow beyond what the first checkpoints take, so one with trained heads does not fit."""
    out, write = tmp_path / "run", checkpoints._write_through

    def full(path, content):
        if len(content) > 2_000_000:
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(checkpoints, "_write_through", full)
    result = call("reconstruct", *arguments(data, out))
    assert result.exit_code == 2
    assert re.fullmatch(
        rf"cryospin: error: .*step-\d+\.safetensors: No space left on device; once that is fixed, "
        rf"continue with: cryospin resume {re.escape(str(out))}\n",
        result.stderr,
    )
    monkeypatch.setattr(checkpoints, "_write_through", write)
    assert resume(out) is True
    assert differences(whole("both"), out) == []


def test_a_folder_that_may_not_be_written_to_ends_with_one_line_and_a_run_that_resumes(data, whole, tmp_path, as_somebody):
    out = begun(data, tmp_path / "run", Killer(epoch=3))
    with as_somebody(out):
        result = call("resume", out)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "Permission denied; once that is fixed, continue with: cryospin resume" in result.stderr
    assert resume(out) is True
    assert differences(whole("both"), out) == []


@pytest.fixture
def as_somebody(tmp_path):
    """Makes a folder read-only and the process somebody who has to heed that: root does not."""

    @contextmanager
    def taken_away(folder):
        inside = [folder, *folder.rglob("*")]
        closed = [path for path in (tmp_path, *tmp_path.parents) if not path.stat().st_mode & stat.S_IXOTH]
        modes = {path: path.stat().st_mode for path in (*inside, *closed)}
        root = os.geteuid() == 0
        for path in modes:
            path.chmod(0o555 if path in inside else 0o755)
        try:
            if root:
                os.seteuid(65534)
            yield
        finally:
            if root:
                os.seteuid(0)
            for path, mode in modes.items():
                path.chmod(mode)

    return taken_away


@pytest.mark.slow
def test_files_that_really_may_not_grow_end_with_one_line_and_a_run_that_resumes(tmp_path):
    data, out, whole = tmp_path / "data", tmp_path / "run", tmp_path / "whole"
    command("simulate", "--out", data, "--n", COUNT, "--box", BOX, "--pixel-size", PIXEL)
    start = ("reconstruct", data / "particles.star", "--threads", 1, "--proposals", "both", "--out")
    assert command(*start, whole).returncode == 0
    result = command(*start, out, preexec_fn=_with_small_files(2_000_000))
    assert result.returncode == 2
    assert re.fullmatch(r"cryospin: error: .*: File too large; once that is fixed, continue with: .*\n", result.stderr)
    assert command("resume", out).returncode == 0
    assert differences(whole, out) == []


def _with_small_files(limit):
    def before():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return before


def command(*arguments, **options):
    """A command in a process of its own."""
    line = [sys.executable, "-c", "from cryospin.cli import main; main()", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)
