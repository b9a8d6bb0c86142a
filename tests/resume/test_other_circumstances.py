"""A run goes on with other threads, with other memory and from another folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from stopped_runs import Killed, Killer, settings

from cryospin.pipeline import reconstruct, resume


def test_other_memory_is_taken_and_written_down(stopped):
    resume(stopped, memory=0.001)
    assert "memory = 0.001" in (stopped / "config.toml").read_text()
    assert "are kept in memory" in (stopped / "log.txt").read_text(), "said when it began"


def test_other_threads_are_taken_and_written_down(stopped):
    resume(stopped, threads=2)
    assert "threads = 2" in (stopped / "config.toml").read_text()


def test_a_run_resumed_with_other_threads_may_be_killed_again_while_it_writes(stopped, monkeypatch):
    move = Path.replace

    def fatal(self, target):
        if Path(target).name == "finished.json":
            raise Killed
        return move(self, target)

    monkeypatch.setattr(Path, "replace", fatal)
    with pytest.raises(Killed):
        resume(stopped, threads=2)
    monkeypatch.setattr(Path, "replace", move)
    assert resume(stopped) is True


def test_a_run_whose_stacks_lie_in_the_current_folder_goes_on_from_any_other(data, tmp_path, monkeypatch):
    project, table = tmp_path / "project", tmp_path / "tables" / "particles.star"
    shutil.copytree(data, project)
    table.parent.mkdir()
    (project / "particles.star").rename(table)
    monkeypatch.chdir(project)
    with pytest.raises(Killed):
        reconstruct(replace(settings(project, tmp_path / "run"), particles=table), Killer(epoch=3))
    monkeypatch.chdir(tmp_path)
    assert resume(tmp_path / "run") is True
