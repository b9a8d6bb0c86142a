"""The journal of a run: what it tells the user, its log and its metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Tensor

from cryospin.engine.record import EpochRecord, Listener
from cryospin.evaluation.pose_error import pose_errors
from cryospin.kernels.types import Poses
from cryospin.results import RunFolder


@dataclass
class Journal:
    """Numbers the epochs, follows the error where the truth is known, and keeps the log.

    folder: where log and metrics go
    listener: whoever watches
    started: when the run began, by the monotonic clock
    truth: true rotations `(N, 3, 3)` and shifts `(N, 2)` in pixels of the run's box
    """

    folder: RunFolder
    listener: Listener
    started: float
    truth: tuple[Tensor, Tensor] | None = None
    epochs: int = 0

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return time.monotonic() - self.started

    def note(self, text: str) -> None:
        """A line for the log and whoever watches."""
        self.folder.log(self.seconds, text)
        self.listener.note(text)

    def expect(self, stage: str, epochs: int) -> None:
        """A stage begins."""
        self.listener.expect(stage, epochs)

    def epoch(self, record: EpochRecord, poses: Poses | None = None, group: Tensor | None = None) -> None:
        """An epoch is done; `poses` holds one pose for some of the images, if there are any yet."""
        self.epochs += 1
        record.epoch, record.seconds = self.epochs, round(self.seconds, 3)
        if self.truth is not None and poses is not None:
            rotation, shift = (x[poses.image] for x in self.truth)
            errors = pose_errors(poses.rotation, poses.shift, rotation, shift, group)
            record.pose_error_deg = float(errors.rotation_deg.median())
        self.folder.epoch(record)
        self.listener.epoch(record)
