"""How much memory a run may take: what the machine has, and what a container or a batch job is allowed."""

from __future__ import annotations

import pytest

from cryospin.memory import available_gib, needed_gib

GIB = 2**30


@pytest.fixture
def system(tmp_path):
    """Writes the system's files: path to content."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    write(proc__meminfo=f"MemTotal: {64 * GIB // 1024} kB\nMemAvailable: {32 * GIB // 1024} kB\n")
    return write


def limits(folder, most, used, cached=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 7\n")


def test_without_limits_it_is_what_the_machine_has(system):
    assert available_gib(system(proc__self__cgroup="0::/user\n")) == 32


def test_a_machine_that_does_not_say_is_not_known(tmp_path):
    assert available_gib(tmp_path) is None


def test_the_limit_of_a_job_counts_and_cached_files_do_not(system):
    root = system(proc__self__cgroup="0::/slurm/job7/step0\n")
    limits(root / "sys/fs/cgroup/slurm/job7/step0", "max", 3 * GIB)
    limits(root / "sys/fs/cgroup/slurm/job7", 16 * GIB, 5 * GIB, GIB)
    assert available_gib(root) == 12


def test_the_limit_of_a_container_is_at_the_root(system):
    root = system(proc__self__cgroup="0::/\n")
    limits(root / "sys/fs/cgroup", 4 * GIB, GIB)
    assert available_gib(root) == 3


def test_the_older_version_of_control_groups_is_known(system):
    root = system(proc__self__cgroup="4:memory:/job\n3:cpu:/job\n0::/\n")
    folder = root / "sys/fs/cgroup/memory/job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{8 * GIB}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{6 * GIB}\n")
    assert available_gib(root) == 2


def test_more_taken_than_allowed_leaves_nothing(system):
    root = system(proc__self__cgroup="0::/\n")
    limits(root / "sys/fs/cgroup", GIB, 2 * GIB)
    assert available_gib(root) == 0


def test_sums_of_each_thread_count_up_to_a_bound():
    def more(box):
        return [needed_gib(1000, box, threads) - needed_gib(1000, box, 1) for threads in (2, 8, 64)]

    assert more(128)[0] == pytest.approx(0.125, rel=0.1)
    assert more(128)[2] < 4
    two, eight, many = more(256)
    assert two == pytest.approx(1, rel=0.1)
    assert eight == many == pytest.approx(3, rel=0.1)
