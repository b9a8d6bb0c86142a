from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cryospin.errors import InputError
from cryospin.findings import Findings, Severity

TABLE = Path("set/particles.star")


@pytest.fixture
def findings():
    return Findings()


def test_rows_make_one_finding_that_names_the_first_and_counts_them(findings):
    findings.rows(Severity.warning, np.array([0, 0, 1, 0, 1, 1], bool), "row {row} is odd", TABLE, "Correct it", "rlnOdd")
    (found,) = findings
    assert str(found) == "set/particles.star: row 3 is odd. Correct it; the same for 2 more rows"
    assert (found.severity, found.row, found.column, found.count) == ("warning", 3, "rlnOdd", 3)


def test_a_single_row_is_named_without_a_count_of_others(findings):
    findings.rows(Severity.error, np.array([True, False]), "row {row} is odd", TABLE, "Correct it")
    assert str(findings[0]) == "set/particles.star: row 1 is odd. Correct it"


def test_no_rows_make_no_finding(findings):
    findings.rows(Severity.error, np.zeros(5, bool), "row {row} is odd", TABLE, "Correct it")
    findings.rows(Severity.error, np.zeros(0, bool), "row {row} is odd", TABLE, "Correct it")
    assert findings == []


def test_braces_of_the_user_s_own_survive(findings):
    findings.rows(Severity.error, np.array([True, True]), "row {row}: {0} and {x} are odd", TABLE, "")
    assert str(findings[0]) == "set/particles.star: row 1: {0} and {x} are odd. The same for 1 more row"


def test_of_chosen_particles_only_their_own_findings_remain(findings):
    findings.note("fine", TABLE)
    findings.rows(Severity.error, np.isin(np.arange(9), [1, 4, 6]), "row {row} is odd", TABLE, "Correct it", "rlnOdd")
    findings.rows(Severity.warning, np.isin(np.arange(9), [2]), "row {row} is even", TABLE, "")
    findings.rows(Severity.error, np.ones(2, bool), "group {row} is odd", TABLE, "", of_particles=False)
    some = findings.within(np.array([3, 4, 5, 6]))
    assert [str(f).removeprefix(f"{TABLE}: ") for f in some] == [
        "fine",
        "row 5 is odd. Correct it; the same for 1 more row",
        "group 1 is odd. The same for 1 more row",
    ]
    assert (some[1].row, some[1].count, some[1].column) == (5, 2, "rlnOdd")
    assert len(findings) == 4


def test_what_is_found_about_chosen_particles_names_their_rows_in_the_file(findings):
    some = findings.within(np.array([3, 5, 8]))
    some.rows(Severity.error, np.array([False, True, True]), "row {row} is odd", TABLE, "Correct it")
    assert str(some[0]) == "set/particles.star: row 6 is odd. Correct it; the same for 1 more row"
    fewer = some.within(np.array([8]))
    assert str(fewer[0]) == "set/particles.star: row 9 is odd. Correct it"
    assert findings == []


def test_findings_of_one_severity_keep_their_order(findings):
    findings.note("fine", TABLE)
    findings.error("first", TABLE)
    findings.warn("odd", TABLE)
    findings.error("second", TABLE)
    assert [f.problem for f in findings.of(Severity.error)] == ["first", "second"]
    assert [f.problem for f in findings] == ["fine", "first", "odd", "second"]


def test_only_errors_are_refused(findings):
    findings.warn("odd", TABLE, "Look at it")
    findings.note("fine", TABLE)
    findings.refuse_errors()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (0, "set/particles.star: bad. Correct it"),
        (1, "set/particles.star: bad. Correct it. cryospin check lists 1 more"),
        (3, "set/particles.star: bad. Correct it. cryospin check lists 3 more"),
    ],
)
def test_the_first_error_is_raised_with_the_number_of_the_others(findings, more, text):
    findings.warn("odd", TABLE)
    findings.error("bad", TABLE, "Correct it")
    for i in range(more):
        findings.error(f"also bad {i}", TABLE)
    with pytest.raises(InputError) as error:
        findings.refuse_errors()
    assert str(error.value) == text


def test_an_error_without_a_remedy_is_still_a_sentence(findings):
    findings.error("bad", TABLE)
    findings.error("also bad", TABLE)
    with pytest.raises(InputError) as error:
        findings.refuse_errors()
    assert str(error.value) == "set/particles.star: bad. cryospin check lists 1 more"


def test_plain_findings_are_json(findings):
    findings.rows(Severity.error, np.array([False, True]), "row {row} is odd", TABLE, "Correct it", "rlnOdd")
    findings.note("fine", TABLE)
    odd, fine = json.loads(json.dumps([f.plain() for f in findings]))
    assert odd == {
        "severity": "error",
        "problem": "row 2 is odd",
        "where": "set/particles.star",
        "remedy": "Correct it",
        "row": 2,
        "column": "rlnOdd",
        "count": 1,
        "names": [],
        "rows": [2],
    }
    assert (fine["severity"], fine["row"], fine["column"], fine["count"]) == ("note", None, None, None)
