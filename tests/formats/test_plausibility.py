from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from cryospin.findings import Finding, Severity
from cryospin.formats.plausibility import FEWEST, check_table
from cryospin.formats.stack import write_stack
from cryospin.formats.star import read_star

COUNT = 120


@pytest.fixture
def check(relion31, tmp_path) -> Callable[..., list[Finding]]:
    """Checks a sound table of two optics groups and its two stacks, with columns spoilt."""
    i = np.arange(COUNT)
    group = np.where(i % 2, 7, 3)
    sound = {
        "rlnImageName": [f"{k // 2 + 1}@{'ba'[k % 2]}.mrcs" for k in i],
        "rlnOpticsGroup": group,
        "rlnDefocusU": 12000.0 + 50 * i,
        "rlnDefocusV": 11500.0 + 50 * i,
        **dict.fromkeys(("rlnDefocusAngle", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), i),
        **dict.fromkeys(("rlnOriginXAngst", "rlnOriginYAngst"), i / 10),
    }
    usual = {"rlnImagePixelSize": [1.5, 1.5], "rlnSphericalAberration": [2.7, 0.01], "rlnImageSize": [16, 16]}

    def run(
        particles: Mapping = {},
        optics: Mapping = {},
        rows: np.ndarray = i,
        box: Mapping[str, int] = {},
        voxel: Mapping[str, float] = {},
    ) -> list[Finding]:
        for name in "ab":
            side = box.get(name, 16)
            write_stack(tmp_path / f"{name}.mrcs", torch.zeros(COUNT // 2, side, side), voxel.get(name, 1.5))
        spoilt = {label: spoil(sound[label].copy()) if callable(spoil) else spoil for label, spoil in particles.items()}
        table = read_star(relion31(sound | spoilt, usual | optics)).take(rows)
        images = table.locate(None, table.findings)
        assert not table.findings
        check_table(table, images)
        return table.findings

    return run


def at(rows: list[int], value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Spoils some rows of a column."""

    def spoil(column: np.ndarray) -> np.ndarray:
        column = column.astype(float)
        column[rows] = value
        return column

    return spoil


def both(spoil: Callable) -> dict[str, Callable]:
    """Spoils both defoci."""
    return {"rlnDefocusU": spoil, "rlnDefocusV": spoil}


def test_nothing_is_wrong_with_a_sound_table(check):
    assert check() == []


PARTICLES = {
    "µm": (both(lambda u: u / 1e4), r"defocus is about 1\.5, which looks like µm"),
    "in focus": (both(lambda u: 0 * u + 50), "defocus is about 50 Å, too little to see"),
    "exactly in focus": (both(lambda u: 0 * u), "defocus is about 0 Å, too little to see"),
    "over-focus": (both(at([4, 6], -9000)), "row 5: over-focus"),
    "much": (both(at([9], 1.2e5)), "row 10: a defocus of more than 10 µm"),
    "astigmatism": ({"rlnDefocusV": at([7], 5000)}, "row 8: astigmatism is more than half of the defocus"),
    "scale": ({"rlnCtfScalefactor": [1] * 5 + [0] + [1] * 114}, "row 6: the CTF scale is not positive"),
    "negative scale": ({"rlnCtfScalefactor": [-1] + [1] * 119}, "row 1: the CTF scale is not positive"),
    "radians": ({"rlnPhaseShift": [1.57] * 120}, r"phase shifts are at most 1\.57, which looks like radians"),
    "duplicates": ({"rlnImageName": lambda n: ["2@a.mrcs", *n[1:]]}, "row 4 lists an image that an earlier row lists, too"),
}


@pytest.mark.parametrize(("spoilt", "message"), PARTICLES.values(), ids=PARTICLES.keys())
def test_what_is_suspicious_about_particles_is_a_warning(check, spoilt, message):
    (finding,) = check(spoilt)
    assert finding.severity is Severity.warning
    assert re.search(message, finding.problem)
    assert finding.remedy


def test_an_image_listed_under_two_names_of_its_file_is_a_duplicate(check, tmp_path):
    (tmp_path / "c.mrcs").symlink_to("a.mrcs")
    (finding,) = check({"rlnImageName": lambda names: ["2@c.mrcs", *names[1:]]})
    assert finding.problem == "row 4 lists an image that an earlier row lists, too"


OPTICS = {
    "volts": ({"rlnVoltage": [300, 300000]}, "optics group three: a voltage of 300000 kV is unusual"),
    "low voltage": ({"rlnVoltage": [20, 300]}, "optics group seven: a voltage of 20 kV is unusual"),
    "corrected": ({"rlnSphericalAberration": [0, 2.7]}, "optics group seven: Cs is 0"),
    "Cs in Å": ({"rlnSphericalAberration": [2.7e7, 2.7]}, r"optics group seven: Cs is 2\.7e\+07 mm"),
    "negative Cs": ({"rlnSphericalAberration": [-2.7, 2.7]}, r"optics group seven: Cs is -2\.7 mm"),
    "contrast": ({"rlnAmplitudeContrast": [0.1, 0.9]}, r"optics group three: an amplitude contrast of 0\.9 is unusual"),
    "distortion": ({"rlnMagMat00": [1.3, 1]}, "optics group seven: the magnification matrix is far from 1 0 0 1"),
}


@pytest.mark.parametrize(("spoilt", "message"), OPTICS.values(), ids=OPTICS.keys())
def test_what_is_suspicious_about_optics_is_a_warning(check, spoilt, message):
    (finding,) = check(optics=spoilt)
    assert finding.severity is Severity.warning
    assert re.match(message, finding.problem)
    assert finding.column in spoilt


IMPOSSIBLE = {
    "no voltage": ({"rlnVoltage": [0, 300]}, "optics group seven: the voltage is 0 kV"),
    "negative voltage": ({"rlnVoltage": [300, -300]}, "optics group three: the voltage is -300 kV"),
    "percent": ({"rlnAmplitudeContrast": [7, 0.1]}, "optics group seven: the amplitude contrast is 7, no fraction"),
    "negative contrast": ({"rlnAmplitudeContrast": [0.1, -0.1]}, "optics group three: the amplitude contrast is -0.1, no"),
}


@pytest.mark.parametrize(("spoilt", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_what_no_microscope_can_have_had_is_an_error(check, spoilt, message):
    (finding,) = check(optics=spoilt)
    assert finding.severity is Severity.error
    assert finding.problem.startswith(message)
    assert "Correct" in finding.remedy


def test_a_pixel_size_of_exactly_one_is_suspicious(check):
    (finding,) = check(optics={"rlnImagePixelSize": [1, 1]}, voxel={"a": 1.0, "b": 1.0}, rows=np.arange(0, COUNT, 2))[:1]
    assert finding.problem.startswith("optics group three: the pixel size is exactly 1 Å, which programs write when")


def test_groups_that_no_particle_is_in_are_not_looked_at(check):
    assert check({"rlnOpticsGroup": [7] * COUNT}, {"rlnVoltage": [300, 0], "rlnAmplitudeContrast": [0.1, 7]}) == []


def test_too_few_particles_are_a_warning(check):
    assert check(rows=np.arange(FEWEST)) == []
    (finding,) = check(rows=np.arange(FEWEST - 1))
    assert finding.severity is Severity.warning
    assert finding.problem == "99 particles are too few to find a structure from"


def test_rows_are_counted_in_the_file(check):
    (finding,) = check({"rlnDefocusV": at([7, 110], 5000)}, rows=np.arange(10, COUNT))
    assert finding.problem.startswith("row 111: astigmatism")


def test_small_images_are_an_error(check):
    findings = check(optics={"rlnImageSize": [8, 8]}, box={"a": 8, "b": 8})
    assert [(f.severity, f.problem) for f in findings] == [
        (Severity.error, "images of 8 pixels are too small to reconstruct")
    ]


def test_a_box_unlike_the_table_s_is_a_warning(check):
    (finding,) = check(optics={"rlnImageSize": [32, 16]})
    assert finding.severity is Severity.warning
    assert finding.problem == "row 2: the table says 32 pixels, a.mrcs has 16"
    assert (finding.column, finding.count) == ("rlnImageSize", 60)
    assert check(optics={"rlnImageSize": None}) == []


def test_a_pixel_size_unlike_the_header_s_is_a_warning(check):
    (finding,) = check(voxel={"a": 1.6})
    assert finding.severity is Severity.warning
    assert finding.problem == "row 2: the table says 1.5 Å per pixel, the header of a.mrcs 1.6"
    assert finding.count == 60


@pytest.mark.parametrize("voxel", [0.0, 1.0, 1.52])
def test_headers_that_do_not_know_the_pixel_size_or_nearly_agree_are_let_pass(check, voxel):
    assert check(voxel={"a": voxel}) == []


def test_sets_of_several_boxes_and_pixel_sizes_are_noted(check):
    findings = check(optics={"rlnImagePixelSize": [3.0, 1.5], "rlnImageSize": [24, 16]}, box={"a": 24}, voxel={"a": 3.0})
    assert [(f.severity, f.problem) for f in findings] == [
        (Severity.note, "images are of 2 box sizes and 2 pixel sizes; they are brought to one box of 72.0 Å")
    ]


def test_a_table_whose_images_are_missing_is_checked_all_the_same(relion31):
    table = read_star(relion31(optics={"rlnVoltage": [0, 300]}))
    check_table(table, None)
    assert [f.problem for f in table.findings] == [
        "optics group seven: the voltage is 0 kV",
        "3 particles are too few to find a structure from",
    ]


def test_a_column_that_cannot_be_read_is_not_judged_as_well(relion31):
    table = read_star(relion31({"rlnDefocusU": ["15000", "much", "15000"]}))
    check_table(table, None)
    assert [f.column for f in table.findings if f.column] == ["rlnDefocusU"]
