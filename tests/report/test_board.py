"""What TensorBoard is told of a run."""

from __future__ import annotations

import time

import pytest
import torch

from cryospin.engine.record import EpochRecord
from cryospin.report.live import Allowance, Glimpse

pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")


def test_scalars_and_slices_can_be_read_back(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from cryospin.report.board import Board

    board = Board(tmp_path, Allowance(time.monotonic() - 1000))
    density = torch.zeros(8, 8, 8)
    density[4, 6, 4] = 1.0
    for epoch in (1, 2):
        record = EpochRecord("refine", 20.0 - epoch, -5.0, 0.25, [1, 3], ["grid", "kept"], epoch=epoch, seconds=5.0)
        board.epoch(record, Glimpse(lambda: density))
    board.writer.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    tags = {t for kind in ("scalars", "tensors") for t in events.Tags()[kind]}
    assert {"refine/loss", "refine/frequency_limit_A", "refine/pose_change_deg", "winners/kept"} <= tags
    assert "refine/resolution_A" not in tags
    assert events.Tags()["images"] == ["map/slices"]
    assert len(events.Images("map/slices")) == 1
