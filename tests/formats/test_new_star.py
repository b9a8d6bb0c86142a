from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import starfile
import torch

from cryospin.formats.new_star import NewStarSource, optics_columns, write_new_star
from cryospin.formats.star import read_star
from cryospin.formats.table import ImageNames
from cryospin.geometry.rotations import distance_deg
from cryospin.optics import OpticsGroup

FULL = {
    "rlnImageSize": [64, 128],
    "rlnBeamTiltX": [0.5, 0],
    "rlnBeamTiltY": [-0.25, 0],
    "rlnOddZernike": ["[0.125,-2,0.0625]", "[0]"],
    "rlnEvenZernike": ["[0]", "[1,2,3,45.46773866]"],
    "rlnMagMat00": [1.001833, 1],
    "rlnMagMat01": [-0.000704, 0],
    "rlnMagMat10": [0.0008, 0],
    "rlnMagMat11": [1.000381, 1],
}
OWN = {"rlnPhaseShift": [90, 0, 45.5], "rlnCtfBfactor": [0, -20, 30], "rlnCtfScalefactor": [1, 0.5, 2]}


@pytest.mark.parametrize("optics", [{}, FULL], ids=["plain", "aberrated"])
def test_everything_about_the_images_is_read_back(relion31, assigned, tmp_path, optics):
    table, found = read_star(relion31(OWN, optics)), assigned(3)
    write_new_star(tmp_path / "new.star", table, found)
    again = read_star(tmp_path / "new.star")
    assert not again.findings
    assert again.format == "RELION 3.1 STAR"
    assert again.images.files == table.images.files
    assert again.images.slice.tolist() == table.images.slice.tolist()
    assert again.optics.groups == table.optics.groups
    for name in ("group", "defocus_u", "defocus_v", "defocus_angle", "phase_shift", "b_factor", "scale"):
        torch.testing.assert_close(getattr(again.optics, name), getattr(table.optics, name))
    assert float(distance_deg(again.poses.rotation, found.rotation).max()) < 1e-4
    torch.testing.assert_close(again.shift, found.shift.double(), rtol=0, atol=1e-5)


def test_starfile_reads_the_table(relion31, assigned, tmp_path):
    found = assigned(3)
    write_new_star(tmp_path / "new.star", read_star(relion31(OWN)), found)
    blocks = starfile.read(tmp_path / "new.star", always_dict=True)
    assert list(blocks) == ["optics", "particles"]
    assert blocks["optics"]["rlnOpticsGroup"].tolist() == [1, 2]
    assert blocks["optics"]["rlnOpticsGroupName"].tolist() == ["seven", "three"]
    assert blocks["optics"]["rlnImageDimensionality"].tolist() == [2, 2]
    rows = blocks["particles"]
    assert rows["rlnImageName"].tolist() == ["000001@a.mrcs", "000002@a.mrcs", "000001@b.mrcs"]
    assert rows["rlnOpticsGroup"].tolist() == [2, 1, 2]
    assert rows["rlnCtfBfactor"].tolist() == [0, -20, 30]
    assert rows["rlnRandomSubset"].tolist() == found.half.tolist()
    np.testing.assert_allclose(rows[["rlnOriginXAngst", "rlnOriginYAngst"]], -found.shift, atol=1e-6)


def test_columns_that_would_hold_nothing_are_left_out():
    group = OpticsGroup("g", 300.0, 2.7, 0.1, 1.5)
    assert set(optics_columns([group, group])) == {
        *("rlnOpticsGroup", "rlnOpticsGroupName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"),
        *("rlnImagePixelSize", "rlnImageDimensionality"),
    }
    some = optics_columns([group, replace(group, odd_zernike=(0.5,)), replace(group, beam_tilt=(0.0, 1.0), box=64)])
    assert some["rlnOddZernike"] == ["[0]", "[0.5]", "[0]"]
    assert some["rlnBeamTiltY"] == ["0.000000", "0.000000", "1.000000"]
    assert not {"rlnImageSize", "rlnEvenZernike", "rlnMagMat00"} & set(some)


def test_names_with_blanks_survive(relion31, assigned, tmp_path):
    table = read_star(relion31())
    names = ImageNames(("dir with blanks/a.mrcs", "#b.mrcs"), np.array([0, 1, 0]), np.array([4, 0, 1234567]))
    NewStarSource().write(tmp_path, replace(table, images=names), assigned(3))
    again = read_star(tmp_path / "particles.star").images
    assert again.files == names.files
    assert again.slice.tolist() == [4, 0, 1234567]
