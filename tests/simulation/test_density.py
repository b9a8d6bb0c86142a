from __future__ import annotations

import pytest
import torch

from cryospin.errors import InputError
from cryospin.formats.volume import write_map
from cryospin.geometry.rotations import exponential
from cryospin.maps.alignment import mirror, move_map
from cryospin.simulation import density_from_source, phantom
from cryospin.simulation.density import density_from_atoms, density_from_map


def pdb(path, atoms):
    """A PDB file of carbon atoms at given places, each its own residue."""
    lines = [
        f"HETATM{i:5d}  C   LIG A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f} 20.00           C"
        for i, (x, y, z, occupancy) in enumerate(atoms, start=1)
    ]
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def centre(density):
    k = (torch.arange(density.shape[0]) - density.shape[0] // 2).float()
    total = density.sum()
    return torch.stack([density.sum((0, 1)) @ k, density.sum((0, 2)) @ k, density.sum((1, 2)) @ k]) / total


def test_atoms_lie_where_the_file_says_after_centring(tmp_path):
    # Three atoms in a line and a heavier end, whose centre of weight is not at the origin.
    path = pdb(tmp_path / "m.pdb", [(100.0, 50.0, -20.0, 1.0), (140.0, 50.0, -20.0, 1.0), (100.0, 74.0, -20.0, 1.0)])
    density = density_from_atoms(path, 32, 4.0)
    torch.testing.assert_close(centre(density), torch.zeros(3), rtol=0, atol=0.3)
    voxel = torch.tensor([[0.0, 0, 0], [40, 0, 0], [0, 24, 0]]) / 4
    voxel = (voxel - voxel.mean(0)).round().int() + 16
    peak = density.max()
    for x, y, z in voxel.tolist():
        assert density[z, y, x] > 0.5 * peak
    assert density[16, 16, 16 + 10] < 0.1 * peak


def test_occupancy_weighs_and_waters_do_not_count(tmp_path):
    path = pdb(tmp_path / "m.pdb", [(0.0, 0.0, 0.0, 1.0), (40.0, 0.0, 0.0, 0.25)])
    text = path.read_text().replace(
        "END", "HETATM    9  O   HOH A   9       0.000  60.000   0.000  1.00 20.00           O\nEND"
    )
    path.write_text(text)
    density = density_from_atoms(path, 32, 4.0)
    half = density.sum((0, 1))
    assert float(half[20:].sum() / half[:20].sum()) == pytest.approx(0.25, abs=0.05)
    assert float(centre(density)[1].abs()) < 0.1


def test_atoms_that_do_not_fit_are_refused(tmp_path):
    path = pdb(tmp_path / "m.pdb", [(0.0, 0.0, 0.0, 1.0), (200.0, 0.0, 0.0, 1.0)])
    with pytest.raises(
        InputError, match=r"m\.pdb: 2 atoms do not fit a box of 16 x 4 Å\. Give a larger --box or --pixel-size"
    ):
        density_from_atoms(path, 16, 4.0)


def test_maps_are_resampled_to_the_voxel_size_asked_for(blobs, tmp_path):
    # A map of 4 Å voxels at 6 Å: two voxels become three, and the box grows with zeros.
    path = tmp_path / "m.mrc"
    write_map(path, blobs.density(36), 4.0)
    density = density_from_map(path, 40, 6.0)
    want = torch.zeros(40, 40, 40)
    want[8:32, 8:32, 8:32] = blobs.density(24) * (24 / 36) ** 3
    torch.testing.assert_close(density, want, rtol=0, atol=0.03 * float(want.max()))


def test_a_map_that_would_be_cut_is_refused(blobs, tmp_path):
    path = tmp_path / "m.mrc"
    write_map(path, blobs.density(48), 4.0)
    assert density_from_map(path, 40, 4.0).shape == (40, 40, 40)
    with pytest.raises(
        InputError, match=r"m\.mrc: \d+ % of the map's density does not fit a box of 16 x 4 Å\. Give a larger --box or"
    ):
        density_from_map(path, 16, 4.0)


@pytest.mark.parametrize(("box", "pixel", "says"), [(15, 4.0, "--box 15 is too small"), (24, 0.0, "--pixel-size 0 is not")])
def test_boxes_and_pixels_that_cannot_be_are_refused(box, pixel, says):
    with pytest.raises(InputError, match=says):
        density_from_source("phantom", box, pixel)


@pytest.mark.parametrize(("box", "voxel", "pixel"), [(33, 4.0, 4.0), (31, 3.1, 4.0), (40, 3.0, 4.3), (37, 2.9, 5.0)])
def test_distances_in_angstrom_are_kept_for_any_pair_of_voxel_sizes(tmp_path, box, voxel, pixel):
    source = torch.zeros(box, box, box)
    half = box // 2
    k = torch.arange(box).float() - half
    for x in (-10.0, 10.0):
        source += torch.exp(-((k - x) ** 2 + k[:, None] ** 2 + k[:, None, None] ** 2) / 4.5)
    path = tmp_path / "m.mrc"
    write_map(path, source, voxel)
    line = density_from_map(path, 32, pixel).sum((0, 1))
    at = torch.arange(32).float() - 16
    left, right = ((line * at)[part].sum() / line[part].sum() for part in (slice(0, 16), slice(17, 32)))
    assert float(right - left) * pixel == pytest.approx(20 * voxel, rel=0.006)


def test_sources_are_told_apart_and_normalised(blobs, tmp_path):
    write_map(tmp_path / "m.map", blobs.density(24), 6.0)
    pdb(tmp_path / "m.pdb", [(0.0, 0.0, 0.0, 1.0), (20.0, 0.0, 0.0, 1.0)])
    for source in ("phantom", str(tmp_path / "m.map"), str(tmp_path / "m.pdb")):
        density = density_from_source(source, 24, 6.0)
        assert density.shape == (24, 24, 24)
        assert float(density.std()) == pytest.approx(1, rel=1e-3)
    same = density_from_source(str(tmp_path / "m.map"), 24, 6.0) * blobs.density(24).std()
    torch.testing.assert_close(same, blobs.density(24), rtol=0, atol=0.02 * float(same.max()))


def test_unreadable_sources_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"unknown source model\.xyz\. Give phantom, or a PDB, mmCIF or MRC file"):
        density_from_source("model.xyz", 16, 4.0)
    with pytest.raises(InputError, match=r"gone\.pdb: no such file"):
        density_from_source("gone.pdb", 16, 4.0)
    (tmp_path / "e.pdb").write_text("END\n")
    with pytest.raises(InputError, match=r"e\.pdb: "):
        density_from_source(str(tmp_path / "e.pdb"), 16, 4.0)
    write_map(tmp_path / "z.mrc", torch.zeros(16, 16, 16), 4.0)
    with pytest.raises(InputError, match=r"z\.mrc: the density is empty"):
        density_from_source(str(tmp_path / "z.mrc"), 16, 4.0)


def test_the_phantom_fits_the_box_and_is_centred():
    density = phantom(32, 8.0)
    assert density.shape == (32, 32, 32)
    assert density.min() >= 0
    torch.testing.assert_close(centre(density), torch.zeros(3), rtol=0, atol=1.0)
    k = (torch.arange(32) - 16).float()
    distance = (k[:, None, None] ** 2 + k[None, :, None] ** 2 + k**2).sqrt()
    assert float(density[distance > 14].sum() / density.sum()) < 0.01
    assert float(density[distance > 7].sum() / density.sum()) > 0.05


def test_the_phantom_follows_its_seed():
    assert torch.equal(phantom(24, 8.0, seed=1), phantom(24, 8.0, seed=1))
    a, b = phantom(24, 8.0, seed=1).flatten(), phantom(24, 8.0, seed=2).flatten()
    assert float(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.95


def test_the_phantom_is_sampled_finer_in_a_finer_box():
    coarse, fine = phantom(24, 8.0), phantom(48, 4.0)
    pooled = torch.nn.functional.avg_pool3d(fine[None, None], 3, 2, 1)[0, 0]
    assert float(torch.corrcoef(torch.stack([coarse.flatten(), pooled.flatten()]))[0, 1]) > 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_the_phantom_has_no_symmetry(seed):
    box = 18
    density = phantom(box, 10.0, seed)
    k = (torch.arange(box) - box // 2).float()
    ball = (k[:, None, None] ** 2 + k[None, :, None] ** 2 + k**2).sqrt() < 0.37 * box

    def correlation(other):
        return float(torch.corrcoef(torch.stack([density[ball], other[ball]]))[0, 1])

    axes = torch.randn(25, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turns = exponential(torch.nn.functional.normalize(axes, dim=1) * torch.pi)
    still = torch.zeros(3)
    assert max(correlation(move_map(density, turn, still)) for turn in turns) < 0.92
    assert correlation(move_map(density, torch.eye(3).double(), still)) > 0.98
    assert correlation(mirror(density)) < 0.92
