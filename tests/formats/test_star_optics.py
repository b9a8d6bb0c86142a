from __future__ import annotations

import pytest

from cryospin.errors import InputError
from cryospin.findings import Severity
from cryospin.formats.star import read_star

MICROSCOPE = ("rlnVoltage", "rlnSphericalAberration", "rlnImagePixelSize")


def problems(path) -> list[str]:
    return [f.problem for f in read_star(path).findings]


def test_groups_are_told_by_their_numbers_in_any_order(relion31):
    got = read_star(relion31({"rlnOpticsGroup": [7, 3, 7]})).optics
    assert [g.name for g in got.groups] == ["seven", "three"]
    assert got.group.tolist() == [0, 1, 0]
    assert got.of_group("pixel_size").tolist() == [3.0, 1.5, 3.0]
    assert got.of_group("amplitude_contrast").tolist() == [0.07, 0.1, 0.07]


def test_groups_need_no_names(relion31):
    got = read_star(relion31(optics={"rlnOpticsGroupName": None})).optics
    assert [g.name for g in got.groups] == ["opticsGroup1", "opticsGroup2"]


def test_an_optics_block_may_be_a_list_of_pairs(table):
    lines = table.star.read_text().splitlines()
    start, stop = lines.index("data_optics"), lines.index("data_particles")
    labels = [line.split()[0] for line in lines[start:stop] if line.startswith("_")]
    values = next(line for line in lines[start:stop] if line.strip() and line[0] not in "_dl").split()
    block = ["data_optics", "", *(f"{a} {b}" for a, b in zip(labels, values, strict=True)), ""]
    table.star.write_text("\n".join([*lines[:start], *block, *lines[stop:]]) + "\n")
    got = table.read()
    assert not got.findings
    assert got.optics.of_group("voltage").unique().tolist() == [300.0]


def test_aberrations_of_relion_5_are_read(relion31):
    odd, even = ["[0.1,-2e-3,0,3]", "[]"], ["[4.5,0.25,-6,7,8,9,10,11,12]", "[0]"]
    matrix = {"rlnMagMat00": [1.01, 1], "rlnMagMat01": ["-7.04e-04", 0], "rlnMagMat10": [0.002, 0], "rlnMagMat11": [0.99, 1]}
    tilt = {"rlnBeamTiltX": [0.25, 0.0], "rlnBeamTiltY": [-0.5, 1.5]}
    got = read_star(relion31(optics={"rlnOddZernike": odd, "rlnEvenZernike": even, **matrix, **tilt}))
    assert not got.findings
    first, second = got.optics.groups
    assert first.odd_zernike == (0.1, -0.002, 0.0, 3.0)
    assert first.even_zernike == (4.5, 0.25, -6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0)
    assert first.magnification == (1.01, -7.04e-4, 0.002, 0.99)
    assert first.beam_tilt == (0.25, -0.5)
    assert (second.odd_zernike, second.even_zernike) == ((), (0.0,))
    assert second.magnification == (1.0, 0.0, 0.0, 1.0)
    assert second.beam_tilt == (0.0, 1.5)


def test_without_aberrations_there_are_none(relion31):
    for group in read_star(relion31()).optics.groups:
        assert group.beam_tilt == (0.0, 0.0)
        assert group.odd_zernike == group.even_zernike == ()
        assert group.magnification == (1.0, 0.0, 0.0, 1.0)
        assert group.box == 0


def test_each_particle_has_its_own_phase_shift_b_factor_and_scale(relion31):
    path = relion31({"rlnPhaseShift": [0, 45.5, 90], "rlnCtfBfactor": [0, -20, 50], "rlnCtfScalefactor": [1, 0.5, 2]})
    o = read_star(path).optics
    assert o.phase_shift.tolist() == [0.0, 45.5, 90.0]
    assert o.b_factor.tolist() == [0.0, -20.0, 50.0]
    assert o.scale.tolist() == [1.0, 0.5, 2.0]
    plain = read_star(relion31()).optics
    assert (plain.phase_shift.tolist(), plain.b_factor.tolist(), plain.scale.tolist()) == ([0.0] * 3, [0.0] * 3, [1.0] * 3)


def test_a_scale_of_nothing_is_taken_for_one(relion31):
    got = read_star(relion31({"rlnCtfScalefactor": [0, 0, 0]}))
    assert got.optics.scale.tolist() == [1.0] * 3
    assert [str(f) for f in got.findings.of(Severity.warning)] == [
        f"{got.path}: rlnCtfScalefactor is 0 throughout and is taken for 1. Correct the column"
    ]


def test_relion_30_particles_taken_alike_are_a_group(relion30):
    columns = {"rlnVoltage": [200, 300, 200], "rlnBeamTiltX": [0.5, 0.5, 0.5], "rlnBeamTiltY": [0, 0, 0]}
    o = read_star(relion30(columns)).optics
    assert o.group.tolist() == [0, 1, 0]
    assert [(g.name, g.voltage, g.beam_tilt) for g in o.groups] == [
        ("opticsGroup1", 200.0, (0.5, 0.0)),
        ("opticsGroup2", 300.0, (0.5, 0.0)),
    ]


def test_relion_30_tables_may_have_a_pixel_size(relion30):
    assert read_star(relion30({"rlnImagePixelSize": [2.5] * 3})).pixel_size == 2.5
    path = relion30({"rlnImagePixelSize": [2.5] * 3, "rlnMagnification": None, "rlnDetectorPixelSize": None})
    assert read_star(path).pixel_size == 2.5


def test_one_defocus_is_no_astigmatism(relion31):
    got = read_star(relion31({"rlnDefocusV": None, "rlnDefocusAngle": None}))
    assert got.optics.defocus_v.tolist() == got.optics.defocus_u.tolist() == [10000.0, 20000.0, 15000.0]
    assert [str(f) for f in got.findings] == [f"{got.path}: no column rlnDefocusV: astigmatism is taken for 0"]


def test_the_angle_may_be_missing_where_there_is_no_astigmatism(relion31):
    assert not problems(relion31({"rlnDefocusV": [10000, 20000, 15000], "rlnDefocusAngle": None}))
    (finding,) = read_star(relion31({"rlnDefocusAngle": None})).findings
    assert finding.problem == "the particles block has no column rlnDefocusAngle"
    assert finding.remedy == "Estimate the CTF and extract the particles again"


def test_a_missing_amplitude_contrast_is_the_usual_one_with_a_warning(relion30, relion31):
    for got, block in (
        (read_star(relion30({"rlnAmplitudeContrast": None})), "particles"),
        (read_star(relion31(optics={"rlnAmplitudeContrast": None})), "optics"),
    ):
        assert {g.amplitude_contrast for g in got.optics.groups} == {0.1}
        (finding,) = got.findings
        assert finding.severity is Severity.warning
        assert finding.problem == f"the {block} block has no column rlnAmplitudeContrast: 0.1 is used"


@pytest.mark.parametrize("label", MICROSCOPE)
def test_every_condition_that_is_missing_is_named(relion30, relion31, label):
    (finding,) = read_star(relion31(optics={label: None})).findings
    assert finding.problem == f"the optics block has no column {label}"
    assert finding.remedy.startswith(f"Add {label}")
    if label != "rlnImagePixelSize":
        assert problems(relion30({label: None})) == [f"the particles block has no column {label}"]


@pytest.mark.parametrize("label", ["rlnDetectorPixelSize", "rlnMagnification"])
def test_a_magnification_needs_the_detector_and_the_detector_a_magnification(relion30, label):
    (finding,) = read_star(relion30({label: None})).findings
    assert finding.problem == "the particles block has no column rlnImagePixelSize"
    assert finding.remedy == "Add rlnImagePixelSize, or rlnDetectorPixelSize and rlnMagnification, to the table"


def test_everything_that_is_missing_is_named_at_once(relion31):
    path = relion31({"rlnDefocusU": None, "rlnImageName": None}, dict.fromkeys(MICROSCOPE))
    missing = ("rlnDefocusU", "rlnImageName", *MICROSCOPE)
    assert {f.column for f in read_star(path).findings} == set(missing)
    with pytest.raises(InputError, match="cryospin check lists 4 more"):
        read_star(path).findings.refuse_errors()


@pytest.mark.parametrize(
    "label", ["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnBeamTiltX", "rlnMagMat00"]
)
@pytest.mark.parametrize("value", ["high", "nan", "inf"])
def test_a_condition_that_is_no_number_is_named(relion30, relion31, label, value):
    got = problems(relion31(optics={label: [1, value]}))
    assert got[0] == f"row 2 of the optics block: {label} is {value!r}, not a number"
    got = problems(relion30({label: [1, 1, value]}))
    assert got[0] == f"row 3 of the particles block: {label} is {value!r}, not a number"


@pytest.mark.parametrize(
    "label", ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfBfactor", "rlnCtfScalefactor"]
)
@pytest.mark.parametrize("value", ["unknown", "nan", "inf"])
def test_a_ctf_parameter_that_is_no_number_is_named(relion31, label, value):
    assert problems(relion31({label: [1, value, value]})) == [
        f"row 2 of the particles block: {label} is {value!r}, not a number"
    ]


@pytest.mark.parametrize("size", ["0", "-1.5", "1e7"])
def test_an_impossible_pixel_size_is_named(relion31, size):
    (finding,) = read_star(relion31(optics={"rlnImagePixelSize": [1.5, size]})).findings
    assert finding.problem == f"row 2 of the optics block: the pixel size is {float(size):g} Å"
    assert finding.remedy == "Correct rlnImagePixelSize: pixel sizes are Å per pixel and positive"
    assert (finding.row, finding.column) == (2, "rlnImagePixelSize")


@pytest.mark.parametrize(("detector", "magnification"), [(5, 0), (0, 40000), (5, -40000), (0, 0)])
def test_an_impossible_magnification_is_named(relion30, detector, magnification):
    columns = {"rlnDetectorPixelSize": [5, detector, 5], "rlnMagnification": [40000, magnification, 40000]}
    (finding,) = read_star(relion30(columns)).findings
    assert finding.problem.startswith("row 2 of the particles block: the pixel size is ")
    assert finding.remedy.startswith("Correct rlnMagnification")


def test_an_unknown_optics_group_is_named(relion31):
    (finding,) = read_star(relion31({"rlnOpticsGroup": [3, 4, 1]})).findings
    assert finding.problem == "row 2 is in optics group 4, which the optics block lacks"
    assert finding.full_remedy == "Add the group to the optics block, or remove its particles; the same for 1 more row"


@pytest.mark.parametrize("value", ["one", "nan", "1.5"])
def test_an_optics_group_is_a_whole_number(relion31, value):
    assert problems(relion31({"rlnOpticsGroup": [3, value, 7]}))[0].startswith(
        "row 2 of the particles block: rlnOpticsGroup "
    )
    assert problems(relion31(optics={"rlnOpticsGroup": [7, value]}))[0].startswith(
        "row 2 of the optics block: rlnOpticsGroup "
    )


@pytest.mark.parametrize("block", ["optics", "particles"])
def test_a_missing_group_column_is_named(relion31, block):
    assert problems(relion31(**{block: {"rlnOpticsGroup": None}})) == [f"the {block} block has no column rlnOpticsGroup"]


@pytest.mark.parametrize("text", ["0.5", "[0.5", "[1,x]", "[1,nan]", "[[1]]", "{1}", "none", "[" * 5000, '["1",null]'])
def test_a_broken_list_of_coefficients_is_named(relion31, text):
    got = problems(relion31(optics={"rlnOddZernike": ["[0]", f"'{text}'"]}))
    assert got == ["row 2 of the optics block: rlnOddZernike is no list of numbers such as [0.1,0,-2.5]"]


def test_a_magnification_that_cannot_be_undone_is_named(relion31):
    matrix = {"rlnMagMat00": [1, 1], "rlnMagMat01": [0, 1], "rlnMagMat10": [0, 1], "rlnMagMat11": [1, 1]}
    got = read_star(relion31(optics=matrix))
    assert [f.problem for f in got.findings] == ["row 2 of the optics block: the magnification matrix cannot be undone"]
    assert got.findings[0].remedy.endswith("without distortion it is 1 0 0 1")


def test_premultiplied_images_are_refused(relion31):
    assert not problems(relion31(optics={"rlnCtfDataAreCtfPremultiplied": [0, 0]}))
    path = relion31(optics={"rlnCtfDataAreCtfPremultiplied": [0, 1]})
    with pytest.raises(InputError, match=r"multiplied by their CTF .* not supported\. Extract them again without"):
        read_star(path).findings.refuse_errors()


def test_3d_images_are_refused(relion31):
    assert not problems(relion31(optics={"rlnImageDimensionality": [2, 2]}))
    with pytest.raises(InputError, match=r"images are 3D \(subtomograms\)\. Give a table of 2D particle images"):
        read_star(relion31(optics={"rlnImageDimensionality": [2, 3]})).findings.refuse_errors()
