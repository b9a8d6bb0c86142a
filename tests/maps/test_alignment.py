from __future__ import annotations

import math

import pytest
import torch

from cryospin.geometry.rotations import distance_deg, exponential, from_relion_angles
from cryospin.maps.alignment import align_maps, apply_alignment, map_likeness, mirror, move_map
from cryospin.maps.fsc import fourier_shell_correlation

BOX = 24
TURN = from_relion_angles(torch.tensor([40.0, 75.0, -120.0]))
SHIFT = torch.tensor([0.6, -0.8, 0.4], dtype=torch.float64)


@pytest.mark.parametrize("box", [16, 17])
def test_mirroring_keeps_the_centre_and_undoes_itself(box, generator):
    a = torch.randn(box, box, box, generator=generator)
    centre = box // 2
    m = mirror(a)
    assert torch.equal(m[centre], a[centre])
    assert torch.equal(m[centre + 3], a[centre - 3])
    assert torch.equal(mirror(m), a)


@pytest.mark.parametrize("box", [24, 25])
def test_moving_a_map_turns_and_shifts_its_density(box, blobs):
    moved = move_map(blobs.density(box), TURN, SHIFT)
    position = blobs.position @ TURN.T + SHIFT / box
    want = type(blobs)(position, blobs.width, blobs.weight).density(box)
    torch.testing.assert_close(moved, want, rtol=0, atol=0.05 * float(want.max()))


def test_not_moving_a_map_keeps_it(blobs):
    a = blobs.density(BOX)
    still = move_map(a, torch.eye(3, dtype=torch.float64), torch.zeros(3))
    torch.testing.assert_close(still, a, rtol=0, atol=0.05 * float(a.max()))


def test_maps_are_as_alike_as_they_are_once_one_lies_on_the_other(blobs, generator):
    fixed = blobs.density(BOX)
    assert map_likeness(mirror(move_map(fixed, TURN, SHIFT)), fixed, 6) > 0.98
    other = type(blobs)(blobs.position.flip(0) * torch.tensor([1.0, -0.5, 1.5]), blobs.width, blobs.weight).density(BOX)
    assert map_likeness(other, fixed, 6) < 0.8


def test_a_known_motion_is_found_to_a_fraction_of_a_degree_and_a_voxel(blobs):
    moving = blobs.density(BOX)
    fixed = move_map(moving, TURN, SHIFT)
    found = align_maps(moving, fixed)
    assert not found.flipped
    assert float(distance_deg(found.turn, TURN)) < 0.3
    torch.testing.assert_close(found.shift, SHIFT, rtol=0, atol=0.05)
    assert found.correlation > 0.99
    fsc = fourier_shell_correlation(apply_alignment(moving, found), fixed)
    assert float(fsc[1:8].min()) > 0.98
    assert fourier_shell_correlation(moving, fixed)[2:8].mean() < 0.7


def test_the_other_hand_is_told_in_spite_of_noise_and_contrast(blobs, generator):
    moving = blobs.density(BOX)
    turn = exponential(torch.tensor([0.0, math.radians(170), 0.4], dtype=torch.float64))
    fixed = 0.3 * move_map(mirror(moving), turn, -SHIFT)
    noisy = fixed + 0.3 * fixed.std() * torch.randn(fixed.shape, generator=generator)
    found = align_maps(moving, noisy, radius=6)
    assert found.flipped
    assert float(distance_deg(found.turn, turn)) < 3.0
    torch.testing.assert_close(found.shift, -SHIFT, rtol=0, atol=0.4)
    assert fourier_shell_correlation(apply_alignment(moving, found), fixed)[1:6].min() > 0.95


@pytest.mark.slow
def test_strangers_do_not_match(blobs, generator):
    noise = torch.randn(BOX, BOX, BOX, generator=generator)
    assert align_maps(noise, blobs.density(BOX)).correlation < 0.6
