"""Tables and stacks that RELION and cryoSPARC wrote: every value against other readers, and written back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
import torch
from scipy.spatial.transform import Rotation

from cryospin.findings import Findings, Severity
from cryospin.formats.read import read_table
from cryospin.formats.stack import read_header, read_images
from cryospin.formats.table import ParticleTable
from cryospin.geometry.rotations import distance_deg

FORMATS = Path(__file__).parents[2].parent / "shared" / "data" / "formats"
pytestmark = pytest.mark.skipif(not FORMATS.is_dir(), reason="needs the real files of ../shared/data/formats")

BLOCKS = {
    "FinalRefinement-OriginalParticles-PfCRT.star": "images",
    "betagal_tutorial_ctf_only.star": "particles",
    "cryojax_trpv1_small_stack.star": "particles",
    "empiar_10076_7.star": "",
    "relion30.star": "model_class_1",
    "relion31.star": "particles",
    "relion31.v2.star": "particles",
    "relion31.6opticsgroups.star": "particles",
    "relion5.star": "particles",
}
CS = ["cryosparc_P12_J24_001_particles.cs", "cryosparc_J2_particles_exported.cs", "empiar_10076_7.cs"]
STACKS = {
    "cryojax_trpv1_small_stack.mrcs": (10, 48, 4.88),
    "empiar_10076_7.mrcs": (7, 320, 0.0),
    "relion31.mrcs": (5, 256, 1.0),
}

ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
FOUND = {*ANGLES, "rlnMaxValueProbDistribution", "rlnLogLikeliContribution", "rlnRandomSubset"}
NEUTRAL = {"rlnNormCorrection": "1.000000", "rlnNrOfSignificantSamples": "1"}
NEUTRAL_FIELDS = dict.fromkeys(("alpha", "class_ess"), 1) | dict.fromkeys(
    ("error_min", "resid_pow", "slice_pow", "image_pow", "cross_cor", "weight", "pose_ess", "shift_ess", "class"), 0
)
PARTICLE_COLUMNS = {
    "defocus_u": ("rlnDefocusU", None),
    "defocus_v": ("rlnDefocusV", None),
    "defocus_angle": ("rlnDefocusAngle", None),
    "phase_shift": ("rlnPhaseShift", 0),
    "b_factor": ("rlnCtfBfactor", 0),
    "scale": ("rlnCtfScalefactor", 1),
}
GROUP_COLUMNS = {
    "voltage": ("rlnVoltage", None),
    "spherical_aberration": ("rlnSphericalAberration", None),
    "amplitude_contrast": ("rlnAmplitudeContrast", 0.1),
    "box": ("rlnImageSize", 0),
}

# Written down by eye: format; particles; pixel size, voltage, Cs, contrast, box; and of the first particle the image,
# the defoci and their angle, rot, tilt and psi, and the origin in Å.
BY_EYE = {
    "FinalRefinement-OriginalParticles-PfCRT.star": (
        *("RELION 3.0 STAR", 5, (1.035, 300, 0.001, 0.1, 0)),
        ("Extract/job012/FinalRefinement-OriginalParticles-PfCRT.mrcs", 0),
        *((15686.0, 17521.4, 87.62907), (16.09353, 86.352776, 98.22569), (-0.14063 * 1.035, -0.04688 * 1.035)),
    ),
    "betagal_tutorial_ctf_only.star": (
        *("RELION 3.1 STAR", 4501, (1.244531, 200, 1.4, 0.1, 256)),
        ("Extract/job018/Movies/20170629_00021_frameImage.mrcs", 0),
        *((10863.857422, 10575.72168, 77.967194), (-27.06145, 7.977661, -144.05007), (0.34896, 0.348955)),
    ),
    "cryojax_trpv1_small_stack.star": (
        *("RELION 3.1 or later STAR", 10, (4.88, 300, 2.0, 0.1, 48)),
        ("./batch_0_restacked.mrc", 0),
        *((14657.509766, 15222.730469, 53.749996), (-30.073301, 137.509323, 167.963364), (-8.149219, -6.120969)),
    ),
    "empiar_10076_7.star": (
        *("RELION 3.0 STAR", 7, (5e4 / 38168, 300, 2.7, 0.07, 0)),
        ("empiar_10076_7.mrc", 0),
        *((15301.1, 14916.4, 5.28), None, None),
    ),
    "relion30.star": (
        *("RELION 3.0 STAR", 17, (5e4 / 37369.207031, 300, 2.7, 0.1, 0)),
        ("sample.mrcs", 0),
        *((21186.804688, 21363.109375, 7.476096), (109.18664, 122.200343, 71.118492)),
        (0.1996 * 5e4 / 37369.207031, 0.1996 * 5e4 / 37369.207031),
    ),
    "relion31.star": (
        *("RELION 3.1 STAR", 5, (2.806, 300, 0.01, 0.1, 256)),
        ("relion31.mrcs", 0),
        *((13108.082418, 12845.582418, -160.39), (-102.30296, 82.318041, 124.706463), (0.019324, -0.64686)),
    ),
    "relion31.6opticsgroups.star": (
        *("RELION 3.1 or later STAR", 139, (1.25, 200, 2.7, 0.1, 196)),
        ("Polish/job520/Micrographs/0003_shiny.mrcs", 2),
        *((10352.805929, 8905.919375, 60.88937), (-128.10516, 37.06892, -82.17809), (13.284554, -3.21701)),
    ),
    "relion5.star": (
        *("RELION 5 STAR", 17, (0.89, 100, 1.6, 0.1, 448)),
        ("toy_images_a.mrcs", 0),
        *((11949.06133, 11800.493288, 49.059993), (111.508618, 36.742536, 141.158035), (-3.12578, -1.41031)),
    ),
}
BY_EYE["relion31.v2.star"] = BY_EYE["relion31.star"]


def read(name: str) -> ParticleTable:
    return read_table(FORMATS / name)


def image_names(table: ParticleTable) -> list[str]:
    """As RELION writes them, but for leading zeros."""
    return [f"{s + 1}@{table.images.files[f]}" for f, s in zip(table.images.stack, table.images.slice, strict=True)]


def rows_of(name: str) -> pd.DataFrame:
    """Particles as starfile reads them, each with the columns of its optics group beside its own."""
    blocks = starfile.read(FORMATS / name, always_dict=True)
    rows = blocks[BLOCKS[name]]
    return rows.merge(blocks["optics"], on="rlnOpticsGroup", how="left") if "optics" in blocks else rows


def column(rows: pd.DataFrame, label: str, default: float | None) -> np.ndarray:
    return rows[label].to_numpy(float) if label in rows or default is None else np.full(len(rows), float(default))


def relion_matrix(angles: np.ndarray) -> np.ndarray:
    """RELION's Euler matrices, from (rot, tilt, psi) in degrees."""
    return Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().swapaxes(-1, -2)


def pixel_size(rows: pd.DataFrame) -> np.ndarray:
    if "rlnImagePixelSize" in rows:
        return rows["rlnImagePixelSize"].to_numpy(float)
    return (rows["rlnDetectorPixelSize"] * 1e4 / rows["rlnMagnification"]).to_numpy(float)


def distortion(rows: pd.DataFrame) -> np.ndarray:
    """Magnification matrices."""
    parts = [column(rows, f"rlnMagMat{p}", d) for p, d in (("00", 1), ("01", 0), ("10", 0), ("11", 1))]
    return np.stack(parts, axis=1).reshape(-1, 2, 2)


def test_no_file_is_forgotten():
    assert {p.name for p in FORMATS.iterdir()} == {*BLOCKS, *CS, *STACKS}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_first_particle_is_as_it_looks(name):
    format, count, conditions, image, defocus, angles, origin = BY_EYE[name]
    table = read(name)
    o, group = table.optics, table.optics.groups[int(table.optics.group[0])]
    assert (table.format, len(table)) == (format, count)
    got = (group.pixel_size, group.voltage, group.spherical_aberration, group.amplitude_contrast, group.box)
    assert got == pytest.approx(conditions, rel=1e-9)
    assert (table.images.files[table.images.stack[0]], table.images.slice[0]) == image
    assert (float(o.defocus_u[0]), float(o.defocus_v[0]), float(o.defocus_angle[0])) == defocus
    assert (table.poses is None) == (angles is None)
    if angles:
        np.testing.assert_allclose(table.poses.rotation[0], relion_matrix(np.array(angles)), atol=1e-12)
        in_image = table.optics.shift_in_image(table.poses.shift)[0]
        np.testing.assert_allclose(in_image, -np.array(origin), rtol=1e-9)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_value_is_as_starfile_reads_it(name):
    table, rows = read(name), rows_of(name)
    assert len(table) == len(rows)
    for field, (label, default) in PARTICLE_COLUMNS.items():
        np.testing.assert_array_equal(getattr(table.optics, field), column(rows, label, default), field)
    for field, (label, default) in GROUP_COLUMNS.items():
        np.testing.assert_array_equal(table.optics.of_group(field), column(rows, label, default), field)
    np.testing.assert_allclose(table.optics.of_group("pixel_size"), pixel_size(rows), rtol=1e-15)
    np.testing.assert_array_equal(table.optics.distortion, distortion(rows))
    assert image_names(table) == [n.lstrip("0") for n in rows["rlnImageName"]]
    assert table.rows.tolist() == list(range(len(rows)))


@pytest.mark.parametrize("name", BLOCKS)
def test_aberrations_are_as_starfile_reads_them(name):
    table, rows = read(name), rows_of(name)
    groups = [table.optics.groups[g] for g in table.optics.group.tolist()]
    tilt = np.stack([column(rows, f"rlnBeamTilt{axis}", 0) for axis in "XY"], axis=1)
    np.testing.assert_array_equal([g.beam_tilt for g in groups], tilt)
    for field, label in (("odd_zernike", "rlnOddZernike"), ("even_zernike", "rlnEvenZernike")):
        want = [tuple(json.loads(v)) for v in rows[label]] if label in rows else [()] * len(rows)
        assert [getattr(g, field) for g in groups] == want
    assert any(g.odd_zernike for g in groups) == (name in ("relion5.star", "relion31.6opticsgroups.star"))


@pytest.mark.parametrize("name", BLOCKS)
def test_poses_are_as_starfile_reads_them(name):
    table, rows = read(name), rows_of(name)
    if name == "empiar_10076_7.star":
        assert table.poses is None
        assert table.shift is None
        return
    np.testing.assert_allclose(table.poses.rotation, relion_matrix(rows[ANGLES].to_numpy()), atol=1e-12)
    if "rlnOriginXAngst" in rows:
        origin = rows[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy()
    else:
        origin = rows[["rlnOriginX", "rlnOriginY"]].to_numpy() * pixel_size(rows)[:, None]
    of_particle = -np.einsum("nji,nj->ni", np.linalg.inv(distortion(rows)), origin)
    np.testing.assert_allclose(table.poses.shift, of_particle, rtol=1e-9)
    assert torch.equal(table.shift, table.poses.shift)


def test_optics_groups_of_relion_30_are_told_by_their_voltage():
    table = read("relion30.star")
    assert table.optics.group.tolist() == [0] * 8 + [1] * 9
    assert [g.voltage for g in table.optics.groups] == [300.0, 200.0]


def test_six_optics_groups_keep_their_names():
    groups = read("relion31.6opticsgroups.star").optics.groups
    assert [g.name for g in groups] == [f"opticsGroup{i}" for i in (5, 3, 2, 1, 4, 6)]
    assert [g.pixel_size for g in groups] == [1.25, 1.24, 1.25, 1.25, 1.24, 1.25]
    assert groups[3].spherical_aberration == 2.6
    assert groups[0].odd_zernike == (1.70554063513, 1.2131261042, 2.54522458134, 0, 0, 3.56183614819)
    assert groups[5].beam_tilt == (-1.28823, 2.446621)
    assert groups[5].magnification == (1.006131, -0.00887, -0.00768, 0.999765)


def test_a_lone_group_may_have_any_number():
    (group,) = read("cryojax_trpv1_small_stack.star").optics.groups
    assert group.name == "opticsGroup7"


def test_only_the_contrast_is_missing_anywhere():
    findings = {name: [f.column for f in read(name).findings] for name in BLOCKS}
    assert findings.pop("FinalRefinement-OriginalParticles-PfCRT.star") == ["rlnAmplitudeContrast"]
    assert not any(findings.values())


def not_neutral(columns: dict[str, list[str]]) -> set[str]:
    """Columns in which an older job left what does not hold for new poses."""
    return {label for label, value in NEUTRAL.items() if set(columns.get(label, [])) - {value}}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_table_written_back_differs_in_its_poses_alone(name, assigned, changes, columns_of, tmp_path):
    table = read(name)
    found = assigned(len(table))
    table.source.write(tmp_path, table, found)
    unit = "" if table.format == "RELION 3.0 STAR" else "Angst"
    expected = FOUND | {f"rlnOrigin{axis}{unit}" for axis in "XY"} | not_neutral(columns_of(FORMATS / name, BLOCKS[name]))
    assert changes(FORMATS / name, tmp_path / "particles.star", BLOCKS[name]) == expected
    again = read_table(tmp_path / "particles.star")
    assert float(distance_deg(again.poses.rotation, found.rotation).max()) < 1e-4
    torch.testing.assert_close(again.poses.shift, found.shift.double(), rtol=0, atol=1e-5)
    assert again.optics.groups == table.optics.groups
    assert again.images.files == table.images.files


@pytest.mark.parametrize("name", BLOCKS)
def test_some_particles_are_written_back_with_their_own_rows(name, assigned, changes, columns_of, tmp_path):
    table = read(name)
    rows = np.arange(1, len(table), 2)
    some = table.take(rows)
    some.source.write(tmp_path, some, assigned(len(rows)))
    unit = "" if table.format == "RELION 3.0 STAR" else "Angst"
    old = {label: [values[i] for i in rows] for label, values in columns_of(FORMATS / name, BLOCKS[name]).items()}
    expected = FOUND | {f"rlnOrigin{axis}{unit}" for axis in "XY"} | not_neutral(old)
    # Two particles may keep the half-sets they had.
    got = changes(FORMATS / name, tmp_path / "particles.star", BLOCKS[name], rows)
    assert got | {"rlnRandomSubset"} == expected


@pytest.mark.parametrize("name", CS)
def test_every_value_of_a_cs_is_as_numpy_reads_it(name):
    table, rows = read(name), np.load(FORMATS / name)
    assert not table.findings
    assert (len(table), table.format) == (len(rows), "cryoSPARC CS")
    assert len(table.optics.groups) == 1
    o = table.optics
    for field, label in (("defocus_u", "ctf/df1_A"), ("defocus_v", "ctf/df2_A"), ("scale", "ctf/scale")):
        np.testing.assert_array_equal(getattr(o, field), rows[label])
    np.testing.assert_array_equal(o.defocus_angle, np.rad2deg(rows["ctf/df_angle_rad"].astype(float)))
    assert not o.phase_shift.any()
    assert not o.b_factor.any()
    for field, label in (("voltage", "accel_kv"), ("spherical_aberration", "cs_mm"), ("amplitude_contrast", "amp_contrast")):
        np.testing.assert_array_equal(o.of_group(field).float(), rows[f"ctf/{label}"])
    np.testing.assert_array_equal(o.of_group("pixel_size").float(), rows["blob/psize_A"])
    np.testing.assert_array_equal(o.of_group("box"), rows["blob/shape"][:, 0])
    files = [b">" * rows["blob/path"][0].startswith(b">") + f.encode() for f in table.images.files]
    assert [files[i] for i in table.images.stack] == rows["blob/path"].tolist()
    np.testing.assert_array_equal(table.images.slice, rows["blob/idx"])
    np.testing.assert_array_equal(table.sign, rows["blob/sign"])


def test_poses_of_a_refinement_are_read():
    table, rows = read(CS[0]), np.load(FORMATS / CS[0])
    matrix = Rotation.from_rotvec(rows["alignments3D/pose"].astype(float)).as_matrix().swapaxes(1, 2)
    np.testing.assert_allclose(table.poses.rotation, matrix, atol=1e-12)
    np.testing.assert_allclose(table.poses.shift, -2.95 * rows["alignments3D/shift"], rtol=1e-6)
    np.testing.assert_allclose(table.shift[0], [-33.43640625, 5.39296875], rtol=1e-6)
    assert table.poses.pixel_size == 2.95


def test_shifts_of_a_2d_classification_are_read():
    table, rows = read(CS[1]), np.load(FORMATS / CS[1])
    assert table.poses is None
    np.testing.assert_allclose(table.shift, -1.345 * rows["alignments2D/shift"], rtol=1e-6)
    assert table.images.files == ("J1/imported/000090334788266266069_18jam15b_0345_ali_DW.mrcs",)


def test_imported_particles_have_nothing_but_their_ctf():
    table = read(CS[2])
    assert table.poses is None
    assert table.shift is None
    star = read("empiar_10076_7.star")
    for field in ("defocus_u", "defocus_v", "defocus_angle"):
        np.testing.assert_allclose(getattr(table.optics, field), getattr(star.optics, field), rtol=1e-6)
    assert table.pixel_size == pytest.approx(star.pixel_size, rel=1e-7)


@pytest.mark.parametrize("name", CS)
@pytest.mark.parametrize("step", [1, 3])
def test_a_cs_written_back_differs_in_its_poses_alone(name, step, assigned, tmp_path):
    before = np.load(FORMATS / name)[::step]
    table = read(name)
    table = table.take(np.arange(0, len(table), step))
    found = assigned(len(table))
    table.source.write(tmp_path, table, found)
    after = np.load(tmp_path / "particles.cs", allow_pickle=False)
    assert after.dtype.names[: len(before.dtype.names)] == before.dtype.names
    replaced = [f"alignments3D/{n}" for n in ("split", "shift", "pose", "psize_A", "error", "class_posterior")]
    for field in before.dtype.names:
        assert after.dtype[field] == before.dtype[field]
        group, _, own = field.partition("/")
        if group == "alignments3D" and own in NEUTRAL_FIELDS:
            np.testing.assert_array_equal(after[field], NEUTRAL_FIELDS[own], field)
        elif field not in replaced:
            np.testing.assert_array_equal(after[field], before[field], field)
    for again in (read_table(tmp_path / "particles.cs"), read_table(tmp_path / "particles.star")):
        assert not again.findings
        assert float(distance_deg(again.poses.rotation, found.rotation).max()) < 1e-3
        torch.testing.assert_close(again.poses.shift, found.shift.double(), rtol=0, atol=1e-5)
        assert image_names(again) == image_names(table)
        torch.testing.assert_close(again.optics.defocus_u, table.optics.defocus_u, rtol=0, atol=1e-5)


def pixels_of(name: str) -> np.ndarray:
    count, box, _ = STACKS[name]
    return np.fromfile(FORMATS / name, "<f4", offset=1024).reshape(count, box, box)


@pytest.mark.parametrize("name", STACKS)
def test_stacks_are_as_their_headers_say(name):
    stack = read_header(FORMATS / name)
    assert (stack.count, stack.box) == STACKS[name][:2]
    assert stack.voxel == pytest.approx(STACKS[name][2])
    assert stack.dtype == np.dtype("<f4")
    np.testing.assert_array_equal(stack.images(), pixels_of(name))


@pytest.mark.parametrize(
    ("name", "stack"),
    [
        ("empiar_10076_7.star", "empiar_10076_7.mrcs"),
        ("empiar_10076_7.cs", "empiar_10076_7.mrcs"),
        ("relion31.star", "relion31.mrcs"),
        ("relion31.v2.star", "relion31.mrcs"),
    ],
)
def test_images_are_those_of_the_stack(name, stack):
    table = read(name)
    where = table.locate(None, findings := Findings())
    assert not findings
    np.testing.assert_array_equal(read_images(where, np.arange(len(table))), pixels_of(stack))


def test_a_stack_that_is_not_there_is_named():
    findings = Findings()
    assert read("cryojax_trpv1_small_stack.star").locate(None, findings) is None
    (finding,) = findings
    assert finding.severity is Severity.error
    assert finding.problem.startswith("stack ./batch_0_restacked.mrc not found")
    read("betagal_tutorial_ctf_only.star").locate(None, findings := Findings())
    assert [len(f.names) for f in findings] == [24]


def test_a_stack_of_another_name_takes_the_table_for_its_ctf():
    stack = "cryojax_trpv1_small_stack.mrcs"
    table = read_table(FORMATS / stack, FORMATS / "cryojax_trpv1_small_stack.star")
    where = table.locate(None, findings := Findings())
    assert not findings
    np.testing.assert_array_equal(read_images(where, np.arange(10)), pixels_of(stack))
    assert table.poses is not None
