from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryospin.fourier import (
    FourierGrid,
    HalfDisc,
    grid_to_map,
    interpolation_envelope,
    map_to_grid,
    pack,
    resample_map,
    unpack,
)
from cryospin.kernels.reference import sample


@given(radius=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_half_disc_with_its_mates_is_the_whole_disc(radius):
    disc = HalfDisc.build(radius)
    half = {(int(x), int(y)) for x, y in zip(disc.kx, disc.ky, strict=True)}
    mates = {(-x, -y) for x, y in half}
    inside = range(-radius, radius + 1)
    disc_points = {(x, y) for x in inside for y in inside if round(math.hypot(x, y)) <= radius}
    assert half | mates == disc_points
    assert half & mates == {(0, 0)}
    assert len(half) == len(disc)


def test_half_disc_needs_a_radius():
    with pytest.raises(ValueError, match="radius of at least 1"):
        HalfDisc.build(0)


@given(radius=st.integers(2, 15), lower=st.integers(1, 15))
@settings(max_examples=20, deadline=None)
def test_a_lower_frequency_limit_is_a_prefix(radius, lower):
    lower = min(lower, radius)
    disc = HalfDisc.build(radius)
    short = disc.prefix(lower)
    count = disc.count(lower)
    assert short.radius == lower
    assert len(short) == count
    assert torch.equal(disc.kx[:count], short.kx)
    assert torch.equal(disc.ky[:count], short.ky)
    assert (disc.shell[count:] > lower).all()


def test_shells_are_sorted_and_counted():
    disc = HalfDisc.build(9)
    assert (disc.shell.diff() >= 0).all()
    assert torch.equal(disc.shell, torch.hypot(disc.kx, disc.ky).round().long())
    assert disc.shell_counts().sum() == len(disc)
    assert disc.shell_counts()[1] == 4
    assert disc.prefix(20) is disc


@pytest.mark.parametrize("box", [17, 18, 24, 25])
def test_pack_is_the_centred_transform(box, generator):
    image = torch.randn(box, box, generator=generator, dtype=torch.float64)
    disc = HalfDisc.build(7)
    position = torch.arange(box, dtype=torch.float64) - box // 2
    turn = -2 * math.pi / box
    along_x = torch.exp(1j * turn * disc.kx.double()[:, None] * position)
    along_y = torch.exp(1j * turn * disc.ky.double()[:, None] * position)
    direct = torch.einsum("py,yx,px->p", along_y, image.to(along_y.dtype), along_x) / box
    torch.testing.assert_close(pack(image, disc), direct.to(torch.complex64), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("box", [17, 18, 24])
def test_unpack_inverts_pack_for_band_limited_images(box, generator):
    disc = HalfDisc.build(8)
    packed = torch.randn(3, len(disc), generator=generator, dtype=torch.complex64)
    packed[:, 0] = packed[:, 0].real
    images = unpack(packed, disc, box)
    assert images.dtype == torch.float32
    torch.testing.assert_close(pack(images, disc), packed, rtol=1e-4, atol=1e-5)


def test_unpack_of_a_bigger_box_is_the_same_image_sampled_finer(blobs, rotations):
    image = blobs.image(24, rotations[0], torch.zeros(2))
    disc = HalfDisc.build(11)
    fine = unpack(pack(image, disc), disc, 48) * 2
    torch.testing.assert_close(fine[::2, ::2], image, rtol=0, atol=2e-2 * float(image.max()))


def test_boxes_too_small_are_refused():
    disc = HalfDisc.build(8)
    with pytest.raises(ValueError, match="15 pixels holds no frequency of 8"):
        pack(torch.zeros(15, 15), disc)
    with pytest.raises(ValueError, match="16 pixels cannot show 8"):
        unpack(torch.zeros(len(disc), dtype=torch.complex64), disc, 16)


@pytest.mark.parametrize("box", [16, 33])
def test_white_noise_of_variance_one_gives_coefficients_of_variance_one(box, generator):
    disc = HalfDisc.build(7)
    packed = pack(torch.randn(4000, box, box, generator=generator), disc)
    variance = (packed.abs() ** 2).mean(0)
    assert abs(float(variance[1:].mean()) - 1) < 0.01
    assert float((variance[1:] - 1).abs().max()) < 0.12
    assert abs(float(variance[0]) - 1) < 0.12


def test_shift_phase_moves_the_image(blobs, rotations):
    box, disc = 32, HalfDisc.build(15)
    shift = torch.tensor([[3.0, -2.0]])
    still = blobs.image(box, rotations[0], torch.zeros(2))
    moved = unpack(pack(still, disc) * disc.shift_phase(shift, box), disc, box)[0]
    torch.testing.assert_close(moved, still.roll((-2, 3), (0, 1)), rtol=0, atol=1e-2 * float(still.max()))


@pytest.mark.parametrize("box", [24, 25])
def test_slices_of_a_padded_grid_are_close_to_the_exact_transform(box, blobs, generator):
    grid = FourierGrid(box // 2 - 1, padding=2)
    values = map_to_grid(blobs.density(box), grid)
    direction = torch.randn(2000, 3, generator=generator)
    points = direction / direction.norm(dim=1, keepdim=True) * torch.rand(2000, 1, generator=generator) * grid.radius
    exact = blobs.transform(points).to(torch.complex64) / box
    error = (sample(values, grid, points) - exact).abs().square().mean().sqrt() / exact.abs().square().mean().sqrt()
    assert float(error) < 0.02
    unpadded = FourierGrid(box // 2 - 1, padding=1)
    coarse = sample(map_to_grid(blobs.density(box), unpadded), unpadded, points)
    worse = (coarse - exact).abs().square().mean().sqrt() / exact.abs().square().mean().sqrt()
    assert error < 0.5 * worse


def test_lattice_points_lie_where_the_grid_says(blobs):
    grid, box = FourierGrid(5, padding=2), 24
    points = grid.points()
    assert points.shape == (*grid.shape, 3)
    assert torch.equal(points[grid.half, grid.half, 0], torch.zeros(3))
    torch.testing.assert_close(grid.shell_of_points(), points.norm(dim=-1))
    # On a lattice point only the envelope's division separates the values from the map's own transform.
    envelope = interpolation_envelope(box, 2)
    values = map_to_grid(blobs.density(box) * envelope, grid)
    near = grid.shell_of_points() <= grid.radius
    torch.testing.assert_close(values[near], (blobs.transform(points[near]) / box).to(torch.complex64), rtol=0, atol=5e-3)


@pytest.mark.parametrize(("box", "padding"), [(16, 1), (16, 2), (17, 2), (20, 3)])
def test_grid_to_map_inverts_map_to_grid(box, padding, generator):
    # A band-limited map without the outermost voxels, so that neither the limit nor the padding cuts anything.
    grid = FourierGrid(box // 2 - 1, padding=1)
    spectrum = torch.randn(grid.shape, generator=generator, dtype=torch.complex64)
    spectrum *= torch.exp(-((grid.shell_of_points() / 3) ** 2))
    density = grid_to_map(spectrum, grid, box) * interpolation_envelope(box, 1)
    k = (torch.arange(box) - box // 2).float() / box
    density *= torch.exp(-(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) / 0.02)
    fine = FourierGrid(box // 2 - 1, padding)
    twice = interpolation_envelope(box, padding) ** 2
    back = grid_to_map(map_to_grid(density, fine), fine, box) * twice
    torch.testing.assert_close(back, density, rtol=0, atol=1e-2 * float(density.abs().max()))


def test_grid_to_map_defaults_to_the_smallest_box_that_carries_the_grid():
    grid = FourierGrid(6)
    assert grid_to_map(torch.zeros(grid.shape, dtype=torch.complex64), grid).shape == (14, 14, 14)


@pytest.mark.parametrize(("box", "target"), [(24, 32), (32, 24), (25, 32), (32, 25), (24, 24)])
def test_resampling_keeps_the_physical_map(box, target, blobs):
    # Densities are per voxel, so their values scale with the voxel's volume.
    got = resample_map(blobs.density(box), target) * (box / target) ** 3
    want = blobs.density(target)
    assert got.shape == want.shape
    torch.testing.assert_close(got, want, rtol=0, atol=0.02 * float(want.max()))
    assert abs(float(got.sum() / want.sum()) - 1) < 1e-3


def test_resampling_keeps_values_of_a_constant_map():
    torch.testing.assert_close(resample_map(torch.full((16, 16, 16), 2.5), 24), torch.full((24, 24, 24), 2.5))
