"""How commands fail: one line that says what to fix or how to go on, and an exit status."""

from __future__ import annotations

import errno
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer

from cryospin.errors import InputError

BAD_INPUT, INTERRUPTED, TERMINATED = 2, 130, 143
"""Exit statuses; 0 means that the command did all it was asked to."""


def complain(text: str) -> None:
    """One line on stderr, however the text was laid out and however wide the terminal is."""
    print("cryospin:", *text.splitlines(), file=sys.stderr)


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """What users can fix, said in one line and without a traceback."""
    try:
        yield
    except InputError as error:
        complain(f"error: {error}")
        raise typer.Exit(BAD_INPUT) from error
    except KeyboardInterrupt as error:
        complain("interrupted")
        raise typer.Exit(INTERRUPTED) from error
    except OSError as error:
        if (what := _in_words(error)) is None:
            raise
        complain(f"error: {what}")
        raise typer.Exit(BAD_INPUT) from error


@contextmanager
def resumable(run: Path) -> Iterator[None]:
    """Where a run is stopped, or the disk fails it, say how it is continued.

    A batch system's SIGTERM counts as Ctrl-C, and so does the end of the terminal unless nohup made that harmless.
    """
    heard = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _terminate) for number in heard}
    try:
        yield
    except KeyboardInterrupt as error:
        complain(f"{str(error) or 'interrupted'}; {_how_to_go_on(run)}")
        raise typer.Exit(TERMINATED if str(error) else INTERRUPTED) from error
    except OSError as error:
        what = _in_words(error)
        if what is None or not (run / "config.toml").is_file():
            raise
        complain(f"error: {what}; once that is fixed, {_how_to_go_on(run)}")
        raise typer.Exit(BAD_INPUT) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt("terminated")


def _how_to_go_on(run: Path) -> str:
    if not (run / "config.toml").is_file():
        return "nothing was begun yet"
    return f"continue with: cryospin resume {shlex.quote(str(run))}"


def _in_words(error: OSError) -> str | None:
    """The operating system's complaint, and about which file; None for what is no complaint about files."""
    if error.strerror is None or error.errno == errno.EPIPE:
        return None
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
