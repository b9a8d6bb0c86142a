"""The report while the run goes on: the page rewritten now and then, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from cryospin.engine.record import EpochRecord
from cryospin.formats.whole import whole
from cryospin.report.contents import ABOUT, Maps, read_progress

PERIOD = 15.0
"""Seconds between two pages, at least."""

SHARE = 0.03
"""Of the run's time, at most, that goes into showing it."""

_FIRST_GUESS = {"text": 0.1, "figures": 1.5}
"""Seconds that a page without and with new figures is taken to cost until one was written."""


@dataclass(frozen=True)
class Glimpse:
    """What a run has at the end of an epoch.

    density: gives the map as it stands, `(d, d, d)`, any `d`; called only if it is shown
    rotation: of the best poses of the images that have one, `(n, 3, 3)`
    """

    density: Callable[[], Tensor] | None = None
    rotation: Tensor | None = None


class Watcher(Protocol):
    """Whoever is shown each epoch as it ends."""

    def epoch(self, record: EpochRecord, glimpse: Glimpse) -> None:
        """An epoch is done, and written to `metrics.jsonl`."""


class Allowance:
    """How much time may go into showing a run: a share of what has passed, and not too often.

    started: when the run began, by the clock
    """

    def __init__(self, started: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.started, self.clock = started, clock
        self.spent = 0.0
        self.cost = dict(_FIRST_GUESS)
        self._last = -PERIOD

    def choose(self) -> str:
        """`figures`, `text`, or nothing: the most that may be done now."""
        passed = self.clock() - self.started
        if passed - self._last < PERIOD:
            return ""
        return next((kind for kind in ("figures", "text") if self.spent + self.cost[kind] <= SHARE * passed), "")

    def do(self, kind: str, work: Callable[[], None]) -> None:
        """Do it, and remember what it cost."""
        begin = self.clock()
        work()
        end = self.clock()
        self.cost[kind], self._last = end - begin, end - self.started
        self.spent += end - begin


class LivePage:
    """Rewrites `report.html` while the run goes on.

    folder: the run's
    size_angstrom: side of the box
    """

    def __init__(self, folder: Path, size_angstrom: float, allowance: Allowance) -> None:
        self.folder, self.size_angstrom, self.allowance = folder, size_angstrom, allowance
        self.pictures: dict[str, str] = {}
        self.shown: Any = None

    def epoch(self, record: EpochRecord, glimpse: Glimpse) -> None:
        """See `Watcher.epoch`."""
        if kind := self.allowance.choose():
            self.allowance.do(kind, lambda: self._write(glimpse if kind == "figures" else None))

    def _write(self, glimpse: Glimpse | None) -> None:
        """The page; without a glimpse, with the figures and the map it had before."""
        # Drawing takes a while to import, and a run that is too short to show anything need not wait for it.
        from cryospin.report.drawing import draw
        from cryospin.report.numbers import Numbers
        from cryospin.report.page import write_page

        contents = read_progress(self.folder, running=True)
        if glimpse is None:
            contents.maps = self.shown
            write_page(contents, Numbers(), self.pictures)
            return
        contents.rotation = glimpse.rotation.cpu() if glimpse.rotation is not None else None
        if glimpse.density is not None:
            density = glimpse.density().cpu()
            contents.maps = self.shown = Maps(density, self.size_angstrom / density.shape[0])
        numbers = Numbers.of(contents)
        self.pictures = draw(contents, numbers)
        write_page(contents, numbers, self.pictures)


def watchers(folder: Path, size_angstrom: float, started: float, device: str) -> list[Watcher]:
    """Whoever watches a run: its page, and TensorBoard where that is installed.

    size_angstrom: side of the box
    started: when the run began, by the monotonic clock
    device: what it computes on, in words
    """
    write_about(folder, device)
    found: list[Watcher] = [LivePage(folder, size_angstrom, Allowance(started))]
    if importlib.util.find_spec("tensorboard") is not None:
        from cryospin.report.board import Board

        found.append(Board(folder / "tensorboard", Allowance(started)))
    return found


def write_about(folder: Path, device: str) -> None:
    """Note versions, devices and the time in `report/about.json`, unless the run was begun before and goes on."""
    from cryospin.environment import devices, versions

    path = folder / ABOUT
    if path.exists():
        return
    started = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    about = {"started": started, "versions": versions(), "devices": devices() | {"computed on": device}}
    path.parent.mkdir(exist_ok=True)
    with whole(path) as temporary:
        temporary.write_text(json.dumps(about, indent=1) + "\n")
