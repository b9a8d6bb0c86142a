from __future__ import annotations

from pathlib import Path

import pytest

from cryospin.errors import InputError
from cryospin.selection import Selection

TABLE = Path("set/particles.star")


@pytest.fixture
def index(tmp_path):
    """Writes a list of rows."""

    def write(text):
        path = tmp_path / "rows.txt"
        path.write_text(text)
        return path

    return write


def test_without_a_choice_all_particles_are_used():
    assert Selection().rows(10, TABLE) is None


def test_the_first_are_taken_from_the_top():
    assert Selection(first=3).rows(10, TABLE).tolist() == [0, 1, 2]
    assert Selection(first=30).rows(4, TABLE).tolist() == [0, 1, 2, 3]


def test_a_sample_is_spread_over_what_the_others_leave(index):
    assert Selection(sample=4).rows(10, TABLE).tolist() == [0, 3, 6, 9]
    assert Selection(sample=30).rows(4, TABLE).tolist() == [0, 1, 2, 3]
    assert Selection(first=5, sample=3).rows(10, TABLE).tolist() == [0, 2, 4]
    assert Selection(index=index("9 7 5 3 1"), first=4, sample=2).rows(10, TABLE).tolist() == [1, 7]


@pytest.mark.parametrize("text", ["7\n0\n3\n", "7 0 3", "  7\r\n0\r\n\r\n3", "0 3 7 7 3", "7.0\n0e0\n3"])
def test_listed_rows_come_in_the_table_s_order_and_once(index, text):
    assert Selection(index=index(text)).rows(8, TABLE).tolist() == [0, 3, 7]


def test_both_choices_together_take_the_first_of_those_listed(index):
    assert Selection(first=2, index=index("7\n5\n3")).rows(8, TABLE).tolist() == [3, 5]


@pytest.mark.parametrize(("text", "named"), [("0\n8\n9", "8"), ("-1", "-1"), ("2.5", "2.5"), ("nan", "nan"), ("inf", "inf")])
def test_rows_that_are_not_there_are_named(index, text, named):
    path = index(text)
    with pytest.raises(
        InputError, match=rf"{named} is no row of particles\.star, which has 8 particles\. .*from 0 to 7"
    ) as e:
        Selection(index=path).rows(8, TABLE)
    assert e.value.where == path


@pytest.mark.parametrize(
    ("text", "problem"), [("", "lists no rows"), (" \n", "lists no rows"), ("0\nrow 1", "is not a list of numbers")]
)
def test_a_list_of_something_else_is_refused(index, text, problem):
    with pytest.raises(InputError, match=rf"{problem}\. Give a row number a line, counted from 0"):
        Selection(index=index(text)).rows(8, TABLE)


def test_a_stack_is_no_list_of_rows(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_bytes(bytes(range(256)) * 8)
    with pytest.raises(InputError, match="is not a list of numbers"):
        Selection(index=path).rows(8, TABLE)


def test_a_list_that_is_missing_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.txt: no such file\. .*--particles-index"):
        Selection(index=tmp_path / "none.txt").rows(8, TABLE)
    with pytest.raises(InputError, match="no such file"):
        Selection(index=tmp_path).rows(8, TABLE)


@pytest.mark.parametrize("name", ["first", "sample"])
@pytest.mark.parametrize("number", [0, -3])
def test_a_number_that_is_none_is_refused(name, number):
    with pytest.raises(InputError, match=rf"--{name} {number} is not a number of particles\. Give 1 or more"):
        Selection(**{name: number})
