"""Progress: bars with the time left on a terminal, a few plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from cryospin.words import duration

_SECONDS_BETWEEN_LINES = 10.0
_SHARE_BETWEEN_LINES = 0.05


class Progress:
    """Tells the user how far the work is.

    console: where to write; stdout by default
    clock: the time in seconds from any origin
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console()
        self._clock = clock
        self._bars: Bars | None = None

    @property
    def live(self) -> bool:
        """Whether there is a terminal to draw bars on."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def say(self, line: str) -> None:
        """Print a line; on a terminal it appears above the bars."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def steps(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Announce `total` steps; inside the block, call what it gives with the number of steps done since last.

        May be nested: inner bars stand below outer ones and vanish when they are done.
        """
        yield from self._as_bar(label, total) if self.live else self._as_lines(label, total)

    @contextmanager
    def deferred(self, label: str) -> Iterator[Callable[[int], Callable[[int], None]]]:
        """Steps whose number is known only later: call what it gives with the total, and what that gives as in `steps`."""
        with ExitStack() as stack:
            yield lambda total: stack.enter_context(self.steps(label, total))

    def _as_bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar, in the display that is already there if there is one."""
        if self._bars is not None:
            bars = self._bars
            task = bars.add_task(label, total=total)
            try:
                yield lambda n: bars.advance(task, n)
            finally:
                bars.remove_task(task)
            return
        with _new_bars(self._console) as bars:
            self._bars, task = bars, bars.add_task(label, total=total)
            try:
                yield lambda n: bars.advance(task, n)
                _finish(bars, task, total)
            finally:
                self._bars = None

    def _as_lines(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A line now and then while the work is going on, and one when it is done."""
        start = self._clock()
        done = last_done = 0
        last_time = start

        def advance(n: int) -> None:
            nonlocal done, last_done, last_time
            done += n
            now = self._clock()
            late = now - last_time >= _SECONDS_BETWEEN_LINES
            if late and done < total and done - last_done >= _SHARE_BETWEEN_LINES * total:
                left = (now - start) * (total - done) / done
                self.say(f"{label}: {done:,} of {total:,} ({100 * done // total} %), about {duration(left)} left")
                last_done, last_time = done, now

        yield advance
        self.say(f"{label}: {total:,} done in {duration(self._clock() - start)}")


def _new_bars(console: Console) -> Bars:
    """The look of all bars."""
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _finish(bars: Bars, task: TaskID, total: int) -> None:
    """Leave the bar full, even where the work turned out to be less than announced."""
    bars.update(task, completed=total)


progress = Progress()
"""What the commands share, so that a bar begun inside another joins it."""

steps, say = progress.steps, progress.say
