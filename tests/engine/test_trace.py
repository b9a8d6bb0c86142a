from __future__ import annotations

import torch

from cryospin.engine.trace import Trace
from cryospin.geometry.rotations import random_rotations


def test_what_is_written_is_read(tmp_path, generator):
    trace = Trace.of(10)
    assert torch.equal(trace.rows, torch.arange(10))
    guesses, losses = random_rotations(30, generator).unflatten(0, (10, 3)), torch.rand(10, 3, generator=generator)
    trace.add_guesses(guesses, losses)
    trace.add_poses(guesses[:, 1])
    trace.save(tmp_path / "trace.safetensors")
    read = Trace.load(tmp_path / "trace.safetensors")
    best = read.best()
    assert len(best) == 2
    assert torch.equal(best[0], guesses[torch.arange(10), losses.argmin(1)])
    assert torch.equal(best[1], guesses[:, 1])


def test_many_images_are_followed_by_a_sample():
    rows = Trace.of(5000).rows
    assert len(rows) == len(set(rows.tolist())) == 1000
    assert (int(rows[0]), int(rows[-1])) == (0, 4999)
