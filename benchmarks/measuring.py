"""What a command costs, how good a run is, and tables of both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

COMMAND = [sys.executable, "-c", "from cryospin.cli import main; main()"]
_STOPPING = ((0.0, signal.SIGTERM), (10.0, signal.SIGKILL))
"""Seconds after its limit at which a command is asked to stop, then killed."""


@dataclass(frozen=True)
class Cost:
    """What a command took.

    seconds: by the clock; cpu_seconds: of all its processes
    memory_GiB: peak of its largest process
    finished: whether it came to its own end rather than to the limit's
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory_GiB: float = 0.0
    finished: bool = True

    def then(self, later: Cost) -> Cost:
        """The cost of one command and then another."""
        return Cost(
            self.seconds + later.seconds,
            self.cpu_seconds + later.cpu_seconds,
            max(self.memory_GiB, later.memory_GiB),
            self.finished and later.finished,
        )


def measured(
    command: Sequence[object],
    *,
    limit: float | None = None,
    where: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Cost:
    """Run a command, in a folder if one is given; its output is shown only if it fails.

    limit: seconds after which it is stopped, with all the processes it started
    environment: variables to set besides those there are
    """
    words = [str(word) for word in command]
    start, stopped = time.monotonic(), threading.Event()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            words,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=where,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )

        def stop(with_signal: int) -> None:
            stopped.set()
            os.killpg(process.pid, with_signal)

        timers = [threading.Timer(limit + wait, stop, [s]) for wait, s in _STOPPING] if limit is not None else []
        for timer in timers:
            timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
        finally:
            for timer in timers:
                timer.cancel()
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode and not stopped.is_set():
            output.seek(0)
            raise SystemExit(f"{' '.join(words)} failed:\n{output.read()[-5000:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20, not stopped.is_set())


def reconstruct(folder: Path, run: Path, options: Sequence[object] = ()) -> Cost:
    """`cryospin reconstruct` of a folder's particles.star."""
    return measured([*COMMAND, "reconstruct", folder / "particles.star", "--out", run, *options])


def evaluate(run: Path, folder: Path, symmetry: str = "C1", ceiling: bool = True) -> dict:
    """`cryospin evaluate` of a run (or any folder with map.mrc and particles.star) against a folder's truth.

    returns: what it writes as JSON
    """
    with tempfile.TemporaryDirectory() as scratch:
        figures = Path(scratch) / "figures.json"
        truth = ["--truth-map", folder / "truth.mrc", "--truth-poses", folder / "truth.star"]
        rest = ["--symmetry", symmetry, "--json", figures, *([] if ceiling else ["--no-ceiling"])]
        measured([*COMMAND, "evaluate", run, *truth, *rest])
        return json.loads(figures.read_text())


def quality(figures: dict, ceiling: float | None = None) -> dict[str, float]:
    """The figures that tables show.

    ceiling: FSC 0.5 of a map from the true poses in Å, where `figures` has none
    """
    resolution = figures["resolution_A"]["fsc_0_5"]
    ceiling = ceiling or figures["true_poses_A"]["fsc_0_5"]
    return {
        "rotation": figures["rotation_error_deg"]["median"],
        "within_10": figures["rotation_error_deg"]["within_10"],
        "shift_px": figures["shift_error_A"]["median_px"],
        "fsc_0_5": resolution,
        "true_poses": ceiling,
        "ratio": resolution / ceiling,
    }


QUALITY_COLUMNS = (
    ("rotation °", "{rotation:.2f}"),
    ("< 10°, %", "{within_10:.1f}"),
    ("shift px", "{shift_px:.2f}"),
    ("FSC 0.5 Å", "{fsc_0_5:.2f}"),
    ("true poses Å", "{true_poses:.2f}"),
    ("ratio", "{ratio:.3f}"),
)


def markdown(columns: Sequence[tuple[str, str]], rows: Sequence[Mapping[str, object]]) -> str:
    """A table: titles of columns, and how each formats a row."""
    lines = [[title for title, _ in columns], ["---"] * len(columns)]
    lines += [[form.format(**row) for _, form in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def seeds(text: str) -> list[int]:
    """`3` or `0-4`."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def stored(path: Path) -> list[dict]:
    """Results written before; none if there is no such file."""
    return json.loads(path.read_text()) if path.exists() else []


def store(path: Path, results: list[dict]) -> None:
    """Write results, a line each, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("[\n" + ",\n".join(json.dumps(r) for r in results) + "\n]\n")
    temporary.replace(path)
