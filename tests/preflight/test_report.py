from __future__ import annotations

import json

import numpy as np
import pytest

from cryospin.findings import Severity
from cryospin.preflight import preflight
from cryospin.selection import Selection


def problems(found, severity=Severity.error):
    return [f.problem for f in found.findings.of(severity)]


def plain(found):
    """What a program gets to read; nothing in it may be NaN or infinite."""
    return json.loads(json.dumps(found.plain(), allow_nan=False))


def test_a_sound_set_is_fit_and_its_facts_are_told(many):
    found = preflight(many.star)
    assert found.fit
    assert found.findings == []
    facts = found.facts
    assert facts["format"] == "RELION 3.1 STAR"
    assert (facts["particles"], facts["stacks"], facts["poses"]) == (260, 1, "none")
    assert (facts["box_px"], facts["pixel_size_A"], facts["pixel_types"]) == ([20], [7.0], ["float32"])
    least, middle, greatest = facts["defocus_A"]
    assert 9_700 < least < 11_000 < middle < 20_000 < greatest < 25_000
    assert 0 <= facts["astigmatism_A"][0] < facts["astigmatism_A"][2] <= 500
    assert facts["phase_shift_deg"] == (0.0, 0.0, 0.0)
    (group,) = facts["optics_groups"]
    assert group == {
        "name": "opticsGroup1",
        "particles": 260,
        "voltage_kV": 300.0,
        "cs_mm": 2.7,
        "amplitude_contrast": 0.1,
        "pixel_size_A": 7.0,
    }
    assert found.pixels is not None
    assert found.cost is not None


def test_everything_is_json(many):
    read = plain(preflight(many.star))
    assert set(read) == {"path", "fit", "facts", "images", "cost", "findings"}
    assert read["path"] == str(many.star)
    assert read["fit"] is True
    assert read["images"]["looked_at"] == 200
    assert read["cost"]["threads"] == 1
    many.change(lambda pixels: np.where(np.arange(260)[:, None, None] % 2, np.nan, pixels))
    read = plain(preflight(many.star))
    assert read["fit"] is False
    assert [(f["severity"], f["row"]) for f in read["findings"]] == [("error", 2)]
    many.stack.unlink()
    read = plain(preflight(many.star))
    assert (read["images"], read["cost"]) == (None, None)


def test_aberrations_are_told_group_by_group(table):
    table.edit(" opticsGroup1 ", " 'first session' ")
    table.edit("_rlnImageDimensionality", "_rlnBeamTiltX")
    facts = preflight(table.star).facts
    assert facts["optics_groups"][0]["name"] == "first session"
    assert facts["optics_groups"][0]["beam_tilt_mrad"] == (2.0, 0.0)
    assert facts["poses"] == "3D"
    table.edit("_rlnBeamTiltX", "_rlnMagMat00")
    assert preflight(table.star).facts["optics_groups"][0]["magnification"] == (2.0, 0.0, 0.0, 1.0)


def test_shifts_without_angles_are_2d(table):
    table.edit("_rlnAngleRot", "_rlnSomething")
    assert preflight(table.star).facts["poses"] == "2D shifts"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a STAR file"),
        (b"\x00\x01\x02" * 500, "not a STAR file"),
        (b"hello", "not a STAR file"),
        (b"data_\n", "no particles"),
        (b"data_particles\n\nloop_\n_rlnImageName #1\n", "no particles"),
        (b"data_particles\n\nloop_\n_rlnImageName #1\n_rlnImageName #2\n1@a.mrcs 1@a.mrcs\n", "twice"),
        (b"data_particles\n\nloop_\n_rlnImageName #1\n_rlnDefocusU #2\n1@a.mrcs\n", "1 values"),
    ],
)
def test_a_broken_table_is_one_finding_and_no_exception(tmp_path, content, problem):
    star = tmp_path / "particles.star"
    star.write_bytes(content)
    found = preflight(star)
    assert not found.fit
    assert (found.facts, found.pixels, found.cost) == ({}, None, None)
    (only,) = found.findings
    assert problem in only.problem
    assert only.where == star
    assert plain(found)["fit"] is False


@pytest.mark.parametrize("name", ["none.star", "none.cs", "none.txt", "none.mrcs", "particles.xml", "."])
def test_so_is_a_table_that_is_missing_or_of_another_kind(tmp_path, name):
    found = preflight(tmp_path / name)
    assert len(found.findings) == 1
    assert not found.fit


def test_a_table_of_bad_values_is_read_to_its_end(table):
    table.column("rlnDefocusU", 2, "nan")
    table.column("rlnDefocusV", 3, "much")
    table.column("rlnImageName", 5, "000099@particles.mrcs")
    found = preflight(table.star)
    assert problems(found) == [
        "row 3 of the particles block: rlnDefocusU is 'nan', not a number",
        "row 4 of the particles block: rlnDefocusV is 'much', not a number",
        "row 6 asks for image 99 of particles.mrcs, which holds 12",
    ]
    assert found.facts["particles"] == 12
    assert (found.pixels, found.cost) == (None, None)
    plain(found)


def test_all_missing_stacks_are_named(table):
    for row, name in enumerate(["b.mrcs", "a.mrcs", "b.mrcs", "c.mrcs"]):
        table.column("rlnImageName", row, f"000001@{name}")
    found = preflight(table.star)
    (error,) = found.findings.of(Severity.error)
    assert sorted(error.names) == ["a.mrcs", "b.mrcs", "c.mrcs"]
    assert error.count == 3
    assert error.problem.startswith("stack b.mrcs not found (looked in ")
    assert error.problem.endswith(", and 2 more of 4 stacks are missing")
    assert "--datadir" in error.remedy
    assert found.facts["stacks"] == 4
    assert "pixel_types" not in found.facts
    assert plain(found)["findings"][0]["names"] == list(error.names)


def test_stacks_are_looked_for_where_the_user_says(many):
    (many.folder / "disk").mkdir()
    many.stack.rename(many.folder / "disk" / "particles.mrcs")
    assert not preflight(many.star).fit
    assert preflight(many.star, datadir=many.folder / "disk").fit


def test_a_bare_stack_is_checked_with_its_ctf(many):
    assert problems(preflight(many.stack)) == ["images alone do not say how they were taken"]
    found = preflight(many.stack, ctf=many.star)
    assert found.fit
    assert found.facts["format"] == "MRC stack with CTF from particles.star (RELION 3.1 STAR)"


def test_too_few_particles_are_not_fit(many):
    found = preflight(many.star, selection=Selection(first=99))
    assert not found.fit
    assert problems(found, Severity.warning) == ["99 particles are too few to find a structure from"]
    assert preflight(many.star, selection=Selection(first=100)).fit


def test_only_selected_particles_count_and_keep_their_row_numbers(many):
    index = many.folder / "rows.txt"
    index.write_text("\n".join(str(i) for i in range(100, 240)))
    many.change(lambda pixels: np.where(np.isin(np.arange(260), [7, 150])[:, None, None], np.nan, pixels))
    found = preflight(many.star, selection=Selection(index=index))
    assert found.facts["particles"] == 140
    assert problems(found) == ["row 151: the image has NaN or infinite pixels"]
    assert found.findings[0].row == 151


def test_doubtful_values_of_selected_particles_keep_their_row_numbers(table):
    table.column("rlnDefocusU", 9, "200000")
    table.column("rlnImageName", 11, "000011@particles.mrcs")
    index = table.folder / "rows.txt"
    index.write_text("8 9 10 11")
    said = problems(preflight(table.star, selection=Selection(index=index)), Severity.warning)
    assert "row 10: a defocus of more than 10 µm" in said
    assert "row 12 lists an image that an earlier row lists, too" in said


def test_a_list_of_rows_that_is_wrong_is_a_finding(many):
    found = preflight(many.star, selection=Selection(index=many.folder / "none.txt"))
    assert problems(found) == ["no such file"]
    assert found.findings[0].where == many.folder / "none.txt"


def test_a_box_that_does_not_fit_is_a_finding(many):
    found = preflight(many.star, box=24)
    assert problems(found) == ["--box 24 does not fit images of 20 pixels"]
    assert found.cost is None
    assert preflight(many.star, box=16).fit


def test_a_run_that_needs_more_memory_than_there_is_is_doubtful(many, monkeypatch):
    monkeypatch.setattr("cryospin.preflight.estimate.available_gib", lambda: 0.3)
    found = preflight(many.star)
    assert found.fit
    (warning,) = found.findings
    assert warning.problem == f"a run needs about {found.cost.memory_gib:.1f} GiB, 0.3 GiB are free"
    assert "--box" in warning.remedy


def test_images_are_counted_as_they_are_read(many):
    totals, done = [], []

    def reading(total):
        totals.append(total)
        return done.append

    preflight(many.star, deep=True, reading=reading)
    assert (totals, sum(done)) == ([260], 260)
