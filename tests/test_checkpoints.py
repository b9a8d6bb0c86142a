"""Checkpoints: whole or absent, the last two kept, and cheap."""

from __future__ import annotations

import json

import pytest
import torch

from cryospin.checkpoints import Checkpoint, Checkpoints
from cryospin.errors import InputError


def at(step: int) -> Checkpoint:
    state = {"x": torch.full((3,), float(step)), "n": step}
    return Checkpoint(step, step, 1.5 * step, "cpu", "compete", {"log.txt": 10 * step}, state)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path, share=float("inf"))


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_checkpoint_comes_back(checkpoints):
    checkpoints.offer(at(4))
    found = checkpoints.newest()
    assert (found.step, found.epoch, found.seconds, found.stage, found.written) == (4, 4, 6.0, "compete", {"log.txt": 40})
    assert found.state["n"] == 4
    assert torch.equal(found.state["x"], torch.full((3,), 4.0))


def test_there_is_none_at_first(checkpoints):
    assert checkpoints.newest() is None


def test_the_last_two_are_kept(checkpoints, tmp_path):
    for step in (8, 9, 10, 11):
        checkpoints.offer(at(step))
    assert names(tmp_path) == [f"step-00{n}.{kind}" for n in (10, 11) for kind in ("json", "safetensors")]
    assert checkpoints.newest().step == 11
    checkpoints.clear()
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["json", "safetensors"])
@pytest.mark.parametrize("harm", ["cut", "gone", "empty"])
def test_a_damaged_one_gives_way_to_the_one_before(checkpoints, tmp_path, kind, harm):
    checkpoints.offer(at(1))
    checkpoints.offer(at(2))
    path = tmp_path / f"step-0002.{kind}"
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 40 if harm == "cut" else 0])
    assert checkpoints.newest().step == 1


def test_a_step_without_its_second_file_does_not_count(checkpoints, tmp_path):
    checkpoints.offer(at(1))
    (tmp_path / "step-0002.safetensors").write_bytes(b"half of it")
    assert checkpoints.newest().step == 1
    checkpoints.clear()
    assert names(tmp_path) == []


def test_one_that_cannot_be_written_leaves_those_before(checkpoints, tmp_path, monkeypatch):
    checkpoints.offer(at(1))
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        checkpoints.offer(at(2))
    monkeypatch.undo()
    assert names(tmp_path) == ["step-0001.json", "step-0001.safetensors"]
    assert checkpoints.newest().step == 1


def test_another_version_s_is_refused_by_name(checkpoints, tmp_path):
    checkpoints.offer(at(1))
    path = tmp_path / "step-0001.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 999}))
    with pytest.raises(InputError, match=r"step-0001\.json: was written by another version"):
        checkpoints.newest()


def test_a_slow_disk_is_spared(tmp_path):
    now = 0.0

    def clock():
        nonlocal now
        now += 0.5  # A write looks at the clock twice, so it takes half a second.
        return now

    checkpoints = Checkpoints(tmp_path, share=0.02, clock=clock)
    steps = 200
    written = []
    for step in range(1, steps + 1):
        now += 9.5
        checkpoints.offer(at(step))
        if (tmp_path / f"step-{step:04d}.json").exists():
            written.append(step)
    assert 1 in written
    assert checkpoints.spent <= 0.02 * now + 0.5
    assert len(written) > 20


def test_what_was_spared_is_written_when_asked_for(tmp_path):
    checkpoints = Checkpoints(tmp_path, share=0.0, clock=iter(range(100)).__next__)
    checkpoints.offer(at(1))
    late = at(2)
    checkpoints.offer(late)
    late.state["x"].zero_()
    assert names(tmp_path) == ["step-0001.json", "step-0001.safetensors"]
    checkpoints.flush()
    assert torch.equal(checkpoints.newest().state["x"], torch.full((3,), 2.0))
