"""Point groups are found in maps made symmetric about axes that nobody told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cryospin.formats.volume import read_map
from cryospin.fourier import resample_map
from cryospin.geometry.rotations import from_relion_angles
from cryospin.geometry.symmetry import distance_modulo_deg, point_group
from cryospin.maps.axes import AxisSpectra, turns_of
from cryospin.maps.point_groups import find_symmetry, recognise, self_correlation
from cryospin.simulation import density_from_source
from cryospin.volume.mask import spherical_mask

BOX = 40
TURN = from_relion_angles(torch.tensor([40.0, 75.0, -120.0]))
SHIFT = torch.tensor([0.7, -0.9, 0.5], dtype=torch.float64)
STRUCTURES = Path(__file__).parents[2].parent / "shared" / "data" / "structures"


def symmetric(blobs, name, box=BOX):
    """Blobs and their mates, turned and moved as a whole, in closed form."""
    position = torch.cat([(blobs.position * 1.3 + 0.08) @ g.double().T for g in point_group(name)])
    count = len(point_group(name))
    weight = blobs.weight.repeat(count) / count
    place = 0.85 * position @ TURN.T + SHIFT / box
    return type(blobs)(place, 0.8 * blobs.width.repeat(count), weight).density(box)


@pytest.mark.parametrize("name", ["C2", "C5", "D2", "D3", "T", "O", "I"])
def test_axes_are_found_to_a_fraction_of_a_degree_and_a_voxel(blobs, name):
    found = find_symmetry(symmetric(blobs, name), name)
    assert found.score > 0.97
    assert found.holds()
    group = (TURN @ point_group(name).double() @ TURN.T).float()
    assert float(torch.cdist(found.group.flatten(1), group.flatten(1)).amin(1).max()) < 0.02, "axes stand elsewhere"
    off = (found.centre - SHIFT) @ TURN
    torch.testing.assert_close(
        off[: 2 if name[0] == "C" else 3], torch.zeros_like(off[: 2 if name[0] == "C" else 3]), rtol=0, atol=0.1
    )
    assert found.random[0] + 3 * found.random[1] < found.score


@pytest.mark.parametrize("name", ["C1", "C4", "D2", "O"])
def test_the_right_group_is_recognised_in_spite_of_noise(blobs, name, generator):
    density = symmetric(blobs, name)
    noisy = density + 0.1 * density.std() * torch.randn(density.shape, generator=generator)
    best = recognise(noisy * spherical_mask(BOX, 0.95)).best
    assert (best.name if best else "C1") == name


def test_a_cylinder_has_no_fold(blobs):
    ring = torch.linspace(0, 2 * torch.pi, 41, dtype=torch.float64)[:-1]
    tube = torch.cat([torch.stack([0.25 * ring.cos(), 0.25 * ring.sin(), 0 * ring + z], 1) for z in (-0.2, -0.05, 0.12)])
    width = torch.full((len(tube),), 0.05, dtype=torch.float64)
    weight = torch.cat([torch.full((40,), w, dtype=torch.float64) for w in (1.0, 0.6, 1.5)])
    density = type(blobs)(tube, width, weight).density(BOX)
    found = find_symmetry(density, "C5")
    assert found.score > 0.95
    assert not found.holds()


def test_a_map_looks_like_itself_about_its_own_centre_only(blobs):
    density, group = symmetric(blobs, "C3"), (TURN @ point_group("C3").double() @ TURN.T)[1:]
    right = self_correlation(density, group, SHIFT, 10)
    assert right.shape == (2, 9)
    assert float(right.min()) > 0.95
    wrong = self_correlation(density, group, SHIFT + torch.tensor([3.0, 3.0, 3.0]), 10)
    assert float(wrong[:, -3:].mean()) < 0.7


def test_waves_about_an_axis_sum_to_what_a_turn_does(blobs):
    density = symmetric(blobs, "C1")
    spectra = AxisSpectra.of(density, 6)
    torch.testing.assert_close(spectra.power.sum(1), torch.ones(len(spectra.power), dtype=torch.float64))
    axis = spectra.direction[100]
    turn = torch.linalg.matrix_exp(torch.linalg.cross(torch.eye(3, dtype=torch.float64), axis.expand(3, 3)) * 1.1).mT
    score = self_correlation(density, turn[None], torch.zeros(3), 6)[0]
    weight = torch.arange(2, 7, dtype=torch.float64) ** 2
    assert float(spectra.turned(1.1)[100]) == pytest.approx(float((score * weight).sum() / weight.sum()), abs=0.05)


def test_turns_are_counted_by_axis_and_angle():
    counted = turns_of(point_group("O").double())
    assert sum(count for _, _, count in counted) == 23
    assert sorted({round(float(torch.rad2deg(torch.tensor(angle)))) for _, angle, _ in counted}) == [90, 120, 180]


KNOWN = {
    "groel_emd1997_D7": "D7",
    "betagal_D2": "D2",
    "trpv1_C4": "C4",
    "spike_6vxx_C3": "C3",
    "ribosome70s_C1": "C1",
    "ribosome80s_4ug0_C1": "C1",
    "spike_open_C1": "C1",
    "proteasome26s_4cr2_C1": "C1",
    "clpb_1qvr_C1": "C1",
}


@pytest.mark.slow
@pytest.mark.skipif(not STRUCTURES.is_dir(), reason="needs the real structures of ../shared/data/structures")
@pytest.mark.parametrize(("name", "group"), KNOWN.items())
def test_real_structures_have_the_groups_they_are_known_for(name, group):
    path = next(STRUCTURES.glob(f"{name}.*"))
    density = read_map(path)[0] if path.suffix == ".mrc" else density_from_source(str(path), 64, 4.0)
    best = recognise(resample_map(density, min(64, density.shape[0])) * spherical_mask(min(64, density.shape[0]), 0.95)).best
    assert (best.name if best else "C1") == group


@pytest.mark.skipif(not STRUCTURES.is_dir(), reason="needs the real structures of ../shared/data/structures")
def test_the_two_folds_of_groel_are_found_off_x():
    density = resample_map(read_map(STRUCTURES / "groel_emd1997_D7.mrc")[0], 50)
    found = find_symmetry(density * spherical_mask(50, 0.95), "D7")
    assert found.score > 0.9
    assert float(found.frame[2, 2].abs()) > 0.999
    assert float(distance_modulo_deg(found.frame[None], torch.eye(3)[None], point_group("D7"))[0]) > 1
