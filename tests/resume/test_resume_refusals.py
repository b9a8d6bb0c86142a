"""What resume refuses: no run, a run that another process works on, and input or settings that have changed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from stopped_runs import call, settings

from cryospin.errors import InputError
from cryospin.pipeline import reconstruct, resume


def test_a_folder_without_a_run_is_refused(tmp_path):
    result = call("resume", tmp_path)
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"cryospin: error: {tmp_path}: holds no run. Give the folder that cryospin reconstruct --out wrote\n"
    )


@pytest.mark.parametrize("name", ["particles.star", "particles.mrcs", "truth.star"])
@pytest.mark.parametrize("harm", ["touched", "grown", "gone"])
def test_input_that_has_changed_is_refused_by_name(stopped, name, harm):
    path = stopped.parent / "data" / name
    if harm == "touched":
        os.utime(path, ns=(1, 1))
    elif harm == "grown":
        path.write_bytes(path.read_bytes() + b"\n")
    else:
        path.unlink()
    with pytest.raises(InputError, match=rf"{name}: .*(has changed since|no such file).* start anew") as caught:
        resume(stopped)
    assert "\n" not in str(caught.value)


def test_settings_that_have_changed_are_refused_by_name(stopped):
    config = stopped / "config.toml"
    config.write_text(config.read_text().replace("seed = 0", "seed = 7"))
    with pytest.raises(InputError, match=r"config\.toml: seed was 0 when the run began and is 7"):
        resume(stopped)


def test_two_processes_do_not_work_on_one_run(stopped):
    code = (
        "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
        "print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, stopped], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match="another process is working on this run"):
            resume(stopped)
        other.kill()


@pytest.mark.parametrize("name", ["threads", "memory"])
def test_none_of_what_is_needed_is_refused(stopped, name):
    with pytest.raises(InputError, match=f"--{name} 0 is not a number of"):
        resume(stopped, **{name: 0})


def test_bad_input_leaves_no_folder(data, tmp_path):
    with pytest.raises(InputError):
        reconstruct(replace(settings(data, tmp_path / "run"), box=400))
    assert not (tmp_path / "run").exists()
