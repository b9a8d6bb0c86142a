from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry import rotations as geometry
from cryospin.kernels import cpu
from cryospin.maps.alignment import mirror

ANGLE = st.floats(-179.9, 179.9)


@given(rot=ANGLE, tilt=st.floats(0.0, 180.0), psi=ANGLE)
@settings(max_examples=100, deadline=None)
def test_relion_angles_are_the_intrinsic_zyz_of_the_transpose(rot, tilt, psi):
    ours = geometry.from_relion_angles(torch.tensor([rot, tilt, psi], dtype=torch.float64))
    scipy = Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).as_matrix()
    torch.testing.assert_close(ours.mT, torch.from_numpy(scipy), rtol=0, atol=1e-12)


@given(rot=ANGLE, tilt=st.floats(0.0, 180.0), psi=ANGLE)
@settings(max_examples=100, deadline=None)
def test_relion_angles_round_trip(rot, tilt, psi):
    rotation = geometry.from_relion_angles(torch.tensor([rot, tilt, psi], dtype=torch.float64))
    angles = geometry.to_relion_angles(rotation)
    again = geometry.from_relion_angles(angles)
    torch.testing.assert_close(again, rotation, rtol=0, atol=1e-7)
    assert 0 <= angles[1] <= 180
    if 0.01 < tilt < 179.99:
        difference = (angles - torch.tensor([rot, tilt, psi], dtype=torch.float64) + 180) % 360 - 180
        torch.testing.assert_close(difference, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("tilt", [0.0, 180.0, 1e-7, 180 - 1e-7, 1e-4])
@pytest.mark.parametrize(("rot", "psi"), [(0.0, 0.0), (20.0, 30.0), (-150.0, 100.0), (90.0, -90.0)])
def test_relion_angles_round_trip_at_the_poles(rot, tilt, psi):
    rotation = geometry.from_relion_angles(torch.tensor([[rot, tilt, psi]], dtype=torch.float64))
    again = geometry.from_relion_angles(geometry.to_relion_angles(rotation))
    torch.testing.assert_close(again, rotation, rtol=0, atol=5e-9)


def test_float32_rotations_round_trip_closely(rotations):
    again = geometry.from_relion_angles(geometry.to_relion_angles(rotations))
    assert float(geometry.distance_deg(again, rotations).max()) < 1e-3


def test_random_rotations_are_rotations_and_uniform(generator):
    r = geometry.random_rotations(20000, generator)
    torch.testing.assert_close(r @ r.mT, torch.eye(3).expand_as(r), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(len(r)))
    # Uniform: no mean direction, and P(angle < a) = (a - sin a) / pi.
    assert float(r.mean(0).abs().max()) < 0.02
    angle = torch.deg2rad(geometry.distance_deg(r, torch.eye(3).expand_as(r)))
    for a in (0.8, 1.6, 2.4):
        expected = (a - math.sin(a)) / math.pi
        assert float((angle < a).double().mean()) == pytest.approx(expected, abs=0.015)


def test_the_seed_decides_the_rotations():
    a, b, c = (geometry.random_rotations(4, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


def test_six_numbers_give_rotations_and_keep_a_rotations_columns(rotations, generator):
    torch.testing.assert_close(geometry.from_six_numbers(rotations[..., :2].flatten(-2)), rotations, rtol=0, atol=1e-5)
    free = geometry.from_six_numbers(torch.randn(50, 6, generator=generator))
    torch.testing.assert_close(free @ free.mT, torch.eye(3).expand_as(free), rtol=0, atol=1e-5)
    assert (torch.linalg.det(free) > 0).all()


def test_distance_is_the_angle_of_the_turn_between(rotations):
    for degrees in (0.01, 5.0, 90.0, 179.0):
        axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
        turned = geometry.exponential(axis * math.radians(degrees)) @ rotations.double()
        distance = geometry.distance_deg(turned, rotations.double())
        torch.testing.assert_close(distance, torch.full_like(distance, degrees), rtol=1e-4, atol=2e-3)


def test_chordal_distance_is_eight_sine_squared_of_half_the_angle(rotations):
    turned = geometry.turn(rotations, torch.tensor([0.3, -0.5, 0.2]).expand(len(rotations), 3))
    half = math.radians(float(geometry.distance_deg(turned, rotations)[0])) / 2
    got = geometry.chordal_distance_squared(turned, rotations)
    torch.testing.assert_close(got, torch.full_like(got, 8 * math.sin(half) ** 2), rtol=1e-4, atol=1e-5)


def test_turn_acts_in_the_lab_frame_and_stays_orthonormal(rotations):
    tangent = torch.tensor([0.0, 0.0, 0.5]).expand(len(rotations), 3)
    turned = geometry.turn(rotations, tangent)
    torch.testing.assert_close(turned[:, 2], rotations[:, 2], rtol=0, atol=1e-6)
    torch.testing.assert_close(turned, geometry.in_plane(torch.tensor(0.5)) @ rotations, rtol=0, atol=1e-6)
    dirty = rotations * 1.01
    for _ in range(5):
        dirty = geometry.turn(dirty, tangent)
    torch.testing.assert_close(dirty @ dirty.mT, torch.eye(3).expand_as(dirty), rtol=0, atol=1e-6)


def test_mean_rotation_is_the_middle_and_follows_the_weights(rotations):
    centre = rotations[0].double()
    tangents = torch.tensor([[0.2, 0, 0], [-0.2, 0, 0], [0, 0.3, 0], [0, -0.3, 0]], dtype=torch.float64)
    around = geometry.exponential(tangents) @ centre
    assert float(geometry.distance_deg(geometry.mean_rotation(around, torch.ones(4)), centre)) < 1e-4
    only = geometry.mean_rotation(around, torch.tensor([0.0, 0.0, 1.0, 0.0]))
    assert float(geometry.distance_deg(only, around[2])) < 1e-4
    leaning = geometry.mean_rotation(around[:2], torch.tensor([3.0, 1.0]))
    assert geometry.distance_deg(leaning, around[0]) < geometry.distance_deg(leaning, around[1])


def test_flipped_poses_give_the_same_images_from_the_mirrored_map(blobs, rotations):
    density, grid, disc = blobs.density(25), FourierGrid(11), HalfDisc.build(8)
    want = cpu.slices(map_to_grid(density, grid), grid, rotations, disc)
    mirrored = map_to_grid(mirror(density), grid)
    got = cpu.slices(mirrored, grid, geometry.flip_hand(rotations), disc)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))
    unflipped = cpu.slices(mirrored, grid, rotations, disc)
    assert float((unflipped - want).abs().max()) > 0.1 * float(want.abs().max())


def test_flipping_twice_changes_nothing(rotations):
    flipped = geometry.flip_hand(rotations)
    torch.testing.assert_close(torch.linalg.det(flipped), torch.ones(len(rotations)))
    assert torch.equal(geometry.flip_hand(flipped), rotations)


def test_in_plane_turns_x_towards_y():
    got = geometry.in_plane(torch.tensor([math.pi / 2])) @ torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(got[0], torch.tensor([0.0, 1.0, 0.0]), rtol=0, atol=1e-6)
