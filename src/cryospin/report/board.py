"""A run for TensorBoard: scalars at every epoch, slices of the map now and then."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from cryospin.engine.record import EpochRecord
from cryospin.report.live import Allowance, Glimpse

_SCALARS = ("loss", "frequency_limit_A", "pose_change_deg", "resolution_A", "pose_error_deg")


class Board:
    """Writes events for TensorBoard.

    folder: where to
    """

    def __init__(self, folder: Path, allowance: Allowance) -> None:
        self.writer, self.allowance = SummaryWriter(str(folder)), allowance

    def epoch(self, record: EpochRecord, glimpse: Glimpse) -> None:
        """See `Watcher.epoch`."""
        values = asdict(record)
        for name in _SCALARS:
            if values[name] is not None:
                self.writer.add_scalar(f"{record.stage}/{name}", values[name], record.epoch, new_style=True)
        total = max(1, sum(record.winners or ()))
        for name, count in zip(record.winner_names or (), record.winners or (), strict=True):
            self.writer.add_scalar(f"winners/{name}", count / total, record.epoch, new_style=True)
        density = glimpse.density
        if density is not None and (kind := self.allowance.choose()):
            self.allowance.do(kind, lambda: self.writer.add_image("map/slices", slices(density().cpu()), record.epoch))
        self.writer.flush()


def slices(density: Tensor) -> Tensor:
    """Central slices along z, y and x side by side, y upwards, `(1, d, 3 d)` from 0 to 1."""
    middle = density.shape[0] // 2
    row = torch.cat([density.select(axis, middle).flip(0) for axis in range(3)], dim=1)
    low, high = row.min(), row.max()
    return ((row - low) / (high - low).clamp_min(1e-12))[None]
