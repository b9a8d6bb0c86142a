from __future__ import annotations

from cryospin.errors import InputError


def test_input_errors_are_one_line_with_file_problem_and_remedy():
    error = InputError("row 3 is odd", where="t.star", remedy="Make it even")
    assert str(error) == "t.star: row 3 is odd. Make it even"
    assert (error.problem, error.where, error.remedy) == ("row 3 is odd", "t.star", "Make it even")
    assert str(InputError("--box 7 is odd")) == "--box 7 is odd"
