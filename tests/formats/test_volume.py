from __future__ import annotations

import gzip

import mrcfile
import numpy as np
import pytest
import torch

from cryospin.errors import InputError
from cryospin.formats.volume import read_map, write_map
from cryospin.formats.whole import whole


def test_maps_keep_values_axes_and_voxel_size(tmp_path, generator):
    density = torch.randn(12, 12, 12, generator=generator)
    write_map(tmp_path / "m.mrc", density, 3.25)
    got, voxel = read_map(tmp_path / "m.mrc")
    assert torch.equal(got, density)
    assert voxel == pytest.approx(3.25)
    with mrcfile.open(tmp_path / "m.mrc") as handle:
        assert handle.is_volume()
        assert handle.data[1, 2, 3] == density[1, 2, 3]
        assert float(handle.header.dmax) == pytest.approx(float(density.max()))


def test_rewriting_replaces(tmp_path):
    write_map(tmp_path / "m.mrc", torch.zeros(8, 8, 8), 1.0)
    write_map(tmp_path / "m.mrc", torch.ones(6, 6, 6), 2.0)
    got, voxel = read_map(tmp_path / "m.mrc")
    assert got.shape == (6, 6, 6)
    assert voxel == 2.0


def test_a_map_that_is_not_a_cube_is_refused(tmp_path):
    with mrcfile.new(tmp_path / "m.mrc") as handle:
        handle.set_data(np.zeros((4, 6, 6), np.float32))
    with pytest.raises(InputError, match=r"m\.mrc: expected a cubic map, found 4 x 6 x 6\. Give a map with equal sides"):
        read_map(tmp_path / "m.mrc")


def test_maps_with_nan_are_refused(tmp_path):
    write_map(tmp_path / "m.mrc", torch.zeros(8, 8, 8), 1.0)
    with mrcfile.mmap(tmp_path / "m.mrc", mode="r+") as handle:
        handle.data[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="holds NaN or infinite values"):
        read_map(tmp_path / "m.mrc")


def test_a_compressed_map_that_was_cut_short_is_named(tmp_path):
    write_map(tmp_path / "m.mrc", torch.randn(8, 8, 8), 1.0)
    whole_map = gzip.compress((tmp_path / "m.mrc").read_bytes())
    (tmp_path / "m.mrc.gz").write_bytes(whole_map[: len(whole_map) // 2])
    with pytest.raises(InputError, match=r"m\.mrc\.gz: not a readable MRC file .*Copy the file again"):
        read_map(tmp_path / "m.mrc.gz")


def test_a_missing_map_is_named():
    with pytest.raises(InputError, match=r"^gone\.mrc: no such file\. Check the path of the map"):
        read_map("gone.mrc")


def test_what_is_no_map_is_refused(tmp_path):
    path = tmp_path / "m.mrc"
    path.write_bytes(b"word " * 18 + bytes(2000))
    with pytest.raises(InputError) as error:
        read_map(path)
    assert str(error.value).startswith(f"{path}: ")


def test_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "f.txt"
    with whole(path) as temporary:
        temporary.write_text("all of it")
        assert not path.exists()
        assert temporary.parent == tmp_path
    assert path.read_text() == "all of it"

    def fail():
        with whole(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fail()
    assert path.read_text() == "all of it"
    assert list(tmp_path.iterdir()) == [path]
