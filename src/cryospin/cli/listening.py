"""A run as the terminal shows it: a bar for each stage, a line for each epoch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cryospin.cli.progress import Progress

if TYPE_CHECKING:
    from cryospin.engine.record import EpochRecord

_STAGES = {
    "explore": "Exploring poses",
    "compete": "Letting poses compete",
    "refine": "Refining poses and map",
    "auto-encode": "Learning to guess poses, and a map",
    "auto-decode": "Optimising poses and map",
}


class RunListener:
    """Listens to a run; use as a context manager, so that no bar is left behind.

    progress: where to show it
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar = ExitStack()
        self._advance: Callable[[int], None] = lambda n: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()

    def note(self, text: str) -> None:
        """A line for the log."""
        self._progress.say(text)

    def reading(self, total: int) -> Callable[[int], None]:
        """Images are about to be read."""
        self._bar.close()
        return self._bar.enter_context(self._progress.steps("Reading images", total))

    def expect(self, stage: str, epochs: int) -> None:
        """A stage begins; where there is no terminal, its epochs' lines are enough."""
        self._bar.close()
        if self._progress.live:
            self._advance = self._bar.enter_context(self._progress.steps(_STAGES[stage], epochs))

    def epoch(self, record: EpochRecord) -> None:
        """An epoch is done."""
        self._progress.say(epoch_line(record))
        self._advance(1)


def where_to_look(run: Path) -> str:
    """The last line of a run that is finished."""
    return f"{run / 'report.html'} shows it all; {run / 'map.mrc'} is the map, {run / 'particles.star'} has the poses"


def epoch_line(record: EpochRecord) -> str:
    """One epoch as a line."""
    parts = [
        f"{record.seconds:6.1f} s  {record.stage} {record.epoch}",
        f"limit {record.frequency_limit_A:.1f} Å",
        f"loss {record.loss:.1f}",
    ]
    if record.pose_change_deg is not None:
        parts.append(f"poses turn {record.pose_change_deg:.2f}°")
    if record.resolution_A is not None:
        parts.append(f"half maps {record.resolution_A:.2f} Å")
    if record.pose_error_deg is not None:
        parts.append(f"pose error {record.pose_error_deg:.2f}°")
    return ", ".join(parts)
