from __future__ import annotations

from pathlib import Path

import pytest

from cryospin.findings import Findings
from cryospin.formats.columns import Columns


@pytest.fixture
def columns():
    def make(**text: list[str]) -> Columns:
        return Columns(Path("t.star"), "particles", text, 3, Findings())

    return make


def test_text_becomes_numbers(columns):
    c = columns(a=["1", "-2.5e3", " 0.125"])
    assert c.numbers("a").tolist() == [1.0, -2500.0, 0.125]
    assert "a" in c
    assert not c.findings


def test_defaults_fill_columns_that_are_not_there(columns):
    c = columns()
    assert c.numbers("a", 1.5).tolist() == [1.5] * 3
    assert not c.findings


def test_a_column_that_is_not_there_is_named(columns):
    c = columns()
    assert c.numbers("rlnVoltage").tolist() == [0.0] * 3
    c.numbers("rlnDefocusU", remedy="Estimate the CTF")
    assert [str(f) for f in c.findings] == [
        "t.star: the particles block has no column rlnVoltage. Add rlnVoltage to the table",
        "t.star: the particles block has no column rlnDefocusU. Estimate the CTF",
    ]
    assert [f.column for f in c.findings] == ["rlnVoltage", "rlnDefocusU"]


@pytest.mark.parametrize("word", ["steep", "nan", "inf", "-Infinity", "1e999", "", "1,5", "<NA>", "{row}"])
def test_what_is_no_number_is_named_with_its_row(columns, word):
    c = columns(a=["1", word, "3"])
    assert c.numbers("a", 7.0).tolist() == [1.0, 0.0, 3.0]
    (finding,) = c.findings
    if word != "{row}":
        assert finding.problem == f"row 2 of the particles block: a is {word!r}, not a number"
    assert (finding.row, finding.column, finding.count) == (2, "a", 1)
    assert finding.remedy == "Correct or remove the row"


def test_many_rows_are_one_finding(columns):
    c = columns(a=["x", "2", "y"])
    c.numbers("a")
    (finding,) = c.findings
    assert str(finding) == (
        "t.star: row 1 of the particles block: a is 'x', not a number. Correct or remove the row; the same for 1 more row"
    )
    assert finding.count == 2


def test_whole_numbers_may_be_written_with_a_point(columns):
    c = columns(a=["1", "2.000000", "-3e0"])
    assert c.integers("a").tolist() == [1, 2, -3]
    assert not c.findings


def test_other_numbers_are_not_whole(columns):
    c = columns(a=["1", "2", "2.5"])
    c.integers("a")
    assert [str(f) for f in c.findings] == ["t.star: row 3 of the particles block: a is not a whole number. Correct the row"]


def test_huge_numbers_do_not_overflow(columns):
    assert columns(a=["1e300", "-1e300", "1"]).integers("a").tolist() == [2**53, -(2**53), 1]
