"""The journal of a run: what it tells the user, its log and its metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from cryospin.engine.record import EpochRecord, Listener
from cryospin.evaluation.pose_error import pose_errors
from cryospin.kernels.types import Poses
from cryospin.report.live import Glimpse, Watcher
from cryospin.results import RunFolder


@dataclass
class Journal:
    """Numbers the epochs, follows the error where the truth is known, and keeps the log.

    folder: where log and metrics go
    listener: whoever watches
    started: when the run began, by the monotonic clock
    truth: true rotations `(N, 3, 3)` and shifts `(N, 2)` in pixels of the run's box
    watchers: whoever is shown the map and the poses as they stand
    """

    folder: RunFolder
    listener: Listener
    started: float
    truth: tuple[Tensor, Tensor] | None = None
    watchers: Sequence[Watcher] = ()
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

    def epoch(
        self,
        record: EpochRecord,
        poses: Poses | None = None,
        group: Tensor | None = None,
        density: Callable[[], Tensor] | None = None,
    ) -> None:
        """An epoch is done.

        poses: one for some of the images, if there are any yet
        density: gives the map as it stands
        """
        self.epochs += 1
        record.epoch, record.seconds = self.epochs, round(self.seconds, 3)
        if self.truth is not None and poses is not None:
            rotation, shift = (x[poses.image] for x in self.truth)
            # The group stands in the standard frame of the run's own map; the truth's may stand anywhere.
            errors = pose_errors(rotation, shift, poses.rotation, poses.shift, group)
            record.pose_error_deg = float(errors.rotation_deg.median())
            record.pose_error_mean_deg = float(errors.rotation_deg.mean())
        self.folder.epoch(record)
        self.listener.epoch(record)
        self._show(record, Glimpse(density, poses.rotation if poses is not None else None))

    def _show(self, record: EpochRecord, glimpse: Glimpse) -> None:
        """To the watchers; one that fails is dropped, for a run of hours must not end because a page cannot be drawn."""
        for watcher in list(self.watchers):
            try:
                watcher.epoch(record, glimpse)
            except Exception as error:
                self.watchers = [w for w in self.watchers if w is not watcher]
                self.note(f"warning: no more of {type(watcher).__name__}, which failed: {type(error).__name__}: {error}")
