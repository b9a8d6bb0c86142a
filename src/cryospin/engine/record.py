"""What a run reports while it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass
class EpochRecord:
    """One line of `metrics.jsonl`.

    stage: `explore`, `compete` or `refine`; `auto-encode` or `auto-decode` where poses are learned by gradient descent
    frequency_limit_A: resolution up to which images were compared with the volume
    loss: mean misfit of an image at its best pose, nats relative to no particle; lower is better. By gradient
        descent: the mean loss that is descended
    pose_change_deg: median turn of the best pose since the last epoch; None where none was kept
    winners: how many images each proposal won, in the order of `winner_names`
    resolution_A: half-map FSC 0.143 of the masked maps, from the refinement on
    pose_error_deg, pose_error_mean_deg: median and mean error where true poses were given
    epoch, seconds: running number and time since the start of the run, filled in by the pipeline
    """

    stage: str
    frequency_limit_A: float
    loss: float
    pose_change_deg: float | None = None
    winners: list[int] | None = None
    winner_names: list[str] | None = None
    resolution_A: float | None = None
    pose_error_deg: float | None = None
    pose_error_mean_deg: float | None = None
    epoch: int = 0
    seconds: float = 0.0


class Listener(Protocol):
    """Whoever wants to know how a run is getting on."""

    def note(self, text: str) -> None:
        """A line for the log."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch is done."""

    def expect(self, stage: str, epochs: int) -> None:
        """A stage begins and will take at most this many epochs."""

    def reading(self, total: int) -> Callable[[int], None]:
        """Images are about to be read; the function returned is called with the number done since its last call."""


class Silence:
    """Listens to nothing."""

    def note(self, text: str) -> None:
        """Not shown."""

    def epoch(self, record: EpochRecord) -> None:
        """Not shown."""

    def expect(self, stage: str, epochs: int) -> None:
        """Not shown."""

    def reading(self, total: int) -> Callable[[int], None]:
        """Not shown."""
        return lambda done: None
