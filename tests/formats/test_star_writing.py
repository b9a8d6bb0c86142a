"""Poses written to a RELION table: they are there, and nothing else has changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cryospin.formats.star import read_poses, read_star
from cryospin.formats.table import AssignedPoses
from cryospin.geometry.rotations import distance_deg

POSE_COLUMNS = {
    *("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"),
    *("rlnMaxValueProbDistribution", "rlnLogLikeliContribution", "rlnRandomSubset"),
}


def written(table, found: AssignedPoses, folder: Path) -> Path:
    folder.mkdir()
    table.source.write(folder, table, found)
    assert [p.name for p in folder.iterdir()] == ["particles.star"]
    return folder / "particles.star"


def test_writing_changes_poses_and_nothing_else(star, assigned, changes, tmp_path):
    out = written(read_star(star), assigned(2), tmp_path / "out")
    assert changes(star, out) == POSE_COLUMNS


def test_poses_written_are_read_back(table, assigned, tmp_path):
    found = assigned(12)
    found.rotation[0] = torch.eye(3)
    found.rotation[1] = torch.tensor([[0.8, -0.6, 0], [-0.6, -0.8, 0], [0, 0, -1]])
    out = written(table.read(), found, tmp_path / "out")
    for poses in (read_poses(out), read_star(out).poses):
        assert float(distance_deg(poses.rotation, found.rotation).max()) < 1e-4
        torch.testing.assert_close(poses.shift, found.shift.double(), rtol=0, atol=1e-6)
        assert poses.pixel_size == 6.0


def test_confidence_likelihood_and_half_sets_are_written(star, assigned, columns_of, tmp_path):
    columns = columns_of(written(read_star(star), assigned(2), tmp_path / "out"))
    assert list(columns)[-3:] == ["rlnMaxValueProbDistribution", "rlnLogLikeliContribution", "rlnRandomSubset"]
    assert columns["rlnMaxValueProbDistribution"] == ["0.200000", "0.900000"]
    assert columns["rlnLogLikeliContribution"] == ["-30.500000", "400.250000"]
    assert columns["rlnRandomSubset"] == ["1", "1"]


def test_origins_of_relion_30_are_written_in_pixels(relion30, assigned, changes, columns_of, tmp_path):
    path, found = relion30({"rlnMagnification": [40000.0, 80000.0, 40000.0]}), assigned(3)
    out = written(read_star(path), found, tmp_path / "out")
    assert changes(path, out, "") == {label.removesuffix("Angst") for label in POSE_COLUMNS}
    torch.testing.assert_close(read_star(out).shift, found.shift.double(), rtol=0, atol=1e-5)
    origin = [float(v) for v in columns_of(out, "")["rlnOriginX"]]
    np.testing.assert_allclose(origin, -found.shift[:, 0].numpy() / [3.5, 1.75, 3.5], atol=1e-6)


def test_origins_are_added_in_the_units_of_the_table(relion30, relion31, assigned, tmp_path):
    none = {f"rlnOrigin{axis}{unit}": None for axis in "XY" for unit in ("", "Angst")}
    for write, labels in ((relion30, ("rlnOriginX ", "rlnOriginY ")), (relion31, ("rlnOriginXAngst ", "rlnOriginYAngst "))):
        out = written(read_star(write(none)), assigned(3), tmp_path / labels[0].strip())
        assert all(label in out.read_text() for label in labels)
        torch.testing.assert_close(read_star(out).shift, assigned(3).shift.double(), rtol=0, atol=1e-5)


def test_shifts_of_magnified_images_are_written_as_relion_has_them(relion31, assigned, tmp_path):
    matrix = {
        "rlnMagMat00": [1.02, 1.0],
        "rlnMagMat01": [0.03, 0.01],
        "rlnMagMat10": [-0.01, 0.0],
        "rlnMagMat11": [0.98, 1.1],
    }
    found = assigned(3)
    out = written(read_star(relion31(optics=matrix)), found, tmp_path / "out")
    torch.testing.assert_close(read_star(out).shift, found.shift.double(), rtol=0, atol=1e-5)
    out.write_text(out.read_text().replace("rlnMagMat", "rlnMagMut"))
    in_image = np.array([[1.02, 0.03], [-0.01, 0.98]]).T @ found.shift[1].double().numpy()
    np.testing.assert_allclose(read_star(out).shift[1], in_image, atol=1e-5)


def test_what_an_older_job_measured_is_made_neutral_where_it_is_there(relion31, assigned, changes, columns_of, tmp_path):
    old = {"rlnNormCorrection": [0.8, 1.2, 1.0], "rlnNrOfSignificantSamples": [40, 2, 1]}
    path = relion31(old)
    out = written(read_star(path), assigned(3), tmp_path / "out")
    assert changes(path, out) == POSE_COLUMNS | set(old)
    columns = columns_of(out)
    assert columns["rlnNrOfSignificantSamples"] == ["1"] * 3
    assert [float(v) for v in columns["rlnNormCorrection"]] == [1.0] * 3
    some = read_star(relion31({"rlnClassNumber": [3, 1, 2]})).take(np.array([2]))
    columns = columns_of(written(some, assigned(1), tmp_path / "one"))
    assert columns["rlnClassNumber"] == ["2"], "the class of a 2D classification is the user's own"
    assert not set(columns) & {"rlnNormCorrection", "rlnNrOfSignificantSamples"}


@pytest.mark.parametrize("rows", [[0, 3, 4, 11], [7], list(range(12))])
def test_particles_that_were_taken_are_written_with_their_own_rows(table, assigned, changes, tmp_path, rows):
    found = assigned(len(rows))
    some = table.read().take(np.array(rows))
    out = written(some, found, tmp_path / "out")
    assert changes(table.star, out, rows=np.array(rows)) == POSE_COLUMNS
    again = read_star(out)
    assert float(distance_deg(again.poses.rotation, found.rotation).max()) < 1e-4
    torch.testing.assert_close(again.shift, found.shift.double(), rtol=0, atol=1e-6)
    assert again.images.slice.tolist() == rows
    torch.testing.assert_close(again.optics.defocus_u, some.optics.defocus_u)


def test_taking_twice_counts_rows_of_the_file(table, assigned, changes, tmp_path):
    some = table.read().take(np.array([1, 5, 6, 9])).take(np.array([1, 3]))
    assert some.rows.tolist() == [5, 9]
    out = written(some, assigned(2), tmp_path / "out")
    assert changes(table.star, out, rows=np.array([5, 9])) == POSE_COLUMNS


def test_a_table_can_be_written_over_itself(table, assigned):
    table.star.rename(table.folder / "particles.star")
    before = read_star(table.folder / "particles.star")
    before.source.write(table.folder, before, assigned(12))
    assert len(read_star(table.folder / "particles.star")) == 12
    assert sorted(p.name for p in table.folder.iterdir()) == ["particles.mrcs", "particles.star"]
