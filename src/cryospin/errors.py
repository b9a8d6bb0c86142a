"""The one kind of failure a user can fix."""

from __future__ import annotations

from pathlib import Path


class InputError(Exception):
    """Something is wrong with what the user gave; printed as one line, exit status 2.

    problem: what is wrong, naming the row or column
    where: the file it is about
    remedy: what to do about it
    """

    def __init__(self, problem: str, *, where: str | Path | None = None, remedy: str = "") -> None:
        # Names out of damaged files may hold line breaks; the message is one line all the same.
        problem = " ".join(problem.splitlines())
        self.problem, self.where, self.remedy = problem, where, remedy
        text = f"{where}: {problem}" if where is not None else problem
        super().__init__(f"{text}. {remedy}" if remedy else text)


def require(fine: bool, problem: str, remedy: str) -> None:
    """Raise `InputError` unless all is fine."""
    if not fine:
        raise InputError(problem, remedy=remedy)
