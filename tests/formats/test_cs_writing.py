"""cryoSPARC's tables come back with poses, and with everything else as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cs_tables import NO_ALIGNMENT, floats, split_in_two
from scipy.spatial.transform import Rotation

from cryospin.formats.cs import read_cs
from cryospin.formats.star import read_star
from cryospin.geometry.rotations import distance_deg

POSE_FIELDS = {f"alignments3D/{name}" for name in ("split", "shift", "pose", "psize_A", "error", "class_posterior")}


def written(path: Path, table, found, tmp_path: Path) -> tuple[np.ndarray, np.ndarray, Path]:
    """The rows before and after, and the folder with the result."""
    out = tmp_path / "out"
    out.mkdir()
    table.source.write(out, table, found)
    assert sorted(p.name for p in out.iterdir()) == ["particles.cs", "particles.star"]
    return np.load(path, allow_pickle=False), np.load(out / "particles.cs", allow_pickle=False), out


def same_but_for_poses(before: np.ndarray, after: np.ndarray) -> None:
    for name in before.dtype.names:
        assert after.dtype[name] == before.dtype[name], name
        if name not in POSE_FIELDS:
            np.testing.assert_array_equal(after[name], before[name])
    assert after.dtype.names[: len(before.dtype.names)] == before.dtype.names


def test_writing_changes_poses_and_nothing_else(cs, assigned, tmp_path):
    path, found = cs({"own/field": np.arange(12.0).reshape(4, 3), "alignments3D/pose": np.ones((4, 3))}), assigned(4)
    before, after, _ = written(path, read_cs(path), found, tmp_path)
    same_but_for_poses(before, after)
    assert set(after.dtype.names) - set(before.dtype.names) == {"alignments3D/error", "alignments3D/class"}
    assert after["alignments3D/split"].tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(after["alignments3D/shift"], -found.shift / 1.5, rtol=1e-6)
    assert after["alignments3D/psize_A"].tolist() == [1.5] * 4
    np.testing.assert_allclose(after["alignments3D/class_posterior"], found.confidence, rtol=1e-6)
    np.testing.assert_allclose(after["alignments3D/error"], -found.log_likelihood, rtol=1e-6)
    turned = Rotation.from_rotvec(after["alignments3D/pose"]).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(turned, found.rotation, atol=1e-5)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [1, 3], [2]])
def test_poses_written_are_read_back_from_both_files(cs, assigned, tmp_path, rows):
    path, found = cs({"ctf/accel_kv": floats(300, 200, 300, 200)}), assigned(len(rows))
    table = read_cs(path).take(np.array(rows))
    before, after, out = written(path, table, found, tmp_path)
    same_but_for_poses(before[rows], after)
    for again in (read_cs(out / "particles.cs"), read_star(out / "particles.star")):
        assert not again.findings
        assert float(distance_deg(again.poses.rotation, found.rotation).max()) < 1e-3
        torch.testing.assert_close(again.shift, found.shift.double(), rtol=0, atol=1e-5)
        names = [again.images.files[i] for i in again.images.stack]
        assert names == [table.images.files[i] for i in table.images.stack]
        assert again.images.slice.tolist() == table.images.slice.tolist()
        for name in ("defocus_u", "defocus_v", "defocus_angle"):
            torch.testing.assert_close(getattr(again.optics, name), getattr(table.optics, name), rtol=0, atol=1e-5)
        for name in ("voltage", "pixel_size", "box"):
            assert again.optics.of_group(name).tolist() == table.optics.of_group(name).tolist()


def test_particles_without_poses_gain_them(cs, assigned, tmp_path):
    path, found = cs(NO_ALIGNMENT), assigned(4)
    before, after, out = written(path, read_cs(path), found, tmp_path)
    same_but_for_poses(before, after)
    assert POSE_FIELDS.issubset(after.dtype.names)
    assert after.dtype["alignments3D/pose"].shape == (3,)
    assert float(distance_deg(read_cs(out / "particles.cs").poses.rotation, found.rotation).max()) < 1e-3


def test_what_an_older_job_measured_is_made_neutral(cs, assigned, tmp_path):
    measured = ("error_min", "resid_pow", "slice_pow", "image_pow", "cross_cor", "weight", "pose_ess", "shift_ess")
    old = {f"alignments3D/{name}": floats(3, 1.5, 0, 7) for name in (*measured, "alpha", "alpha_min", "class_ess")}
    two = {"alignments2D/class": np.arange(4, dtype=np.uint32), "alignments2D/alpha": floats(1, 2, 3, 4)}
    path = cs(old | two | {"alignments3D/class": np.array([3, 0, 1, 2], np.uint32)})
    before, after, _ = written(path, read_cs(path), assigned(4), tmp_path)
    assert after.dtype.names == (*before.dtype.names, "alignments3D/error")
    assert [after.dtype[name] for name in before.dtype.names] == [before.dtype[name] for name in before.dtype.names]
    for name in (*measured, "class"):
        assert after[f"alignments3D/{name}"].tolist() == [0] * 4, name
    for name in ("alpha", "alpha_min", "class_ess"):
        assert after[f"alignments3D/{name}"].tolist() == [1] * 4, name
    for name in two:
        np.testing.assert_array_equal(after[name], before[name])


def test_a_joined_table_is_written_as_it_was_and_joins_again(cs, assigned, tmp_path):
    own, passthrough, _ = split_in_two(cs, [3, 0, 2, 1])
    before, after, out = written(own, read_cs(own, passthrough), assigned(4), tmp_path)
    same_but_for_poses(before, after)
    assert "ctf/df1_A" not in after.dtype.names
    again, star = read_cs(out / "particles.cs", passthrough), read_star(out / "particles.star")
    torch.testing.assert_close(again.optics.defocus_u, star.optics.defocus_u)


def test_a_failed_write_leaves_no_trace(cs, assigned, tmp_path, monkeypatch):
    table = read_cs(cs())
    out = tmp_path / "out"
    out.mkdir()

    def fail(handle, *_, **__):
        handle.write(b"half a ta")
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        table.source.write(out, table, assigned(4))
    assert list(out.iterdir()) == []
