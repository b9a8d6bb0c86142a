from __future__ import annotations

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.geometry.symmetry import point_group
from cryospin.kernels.types import Poses
from cryospin.maps.fsc import fourier_shell_correlation
from cryospin.volume.accumulated import AccumulatedVolume

BOX = 24
GRID, DISC = FourierGrid(9), HalfDisc.build(9)
FLAT = torch.full((10,), 1e6)


@pytest.fixture(scope="module")
def truth(blobs):
    return blobs.density(BOX)


@pytest.fixture(scope="module")
def poses():
    g = torch.Generator().manual_seed(3)
    return Poses(torch.arange(400), random_rotations(400, g), torch.randn(400, 2, generator=g) * 2)


def images(truth, poses, observe, noise=0.0):
    fine = FourierGrid(11, padding=3)
    return observe(map_to_grid(truth, fine), fine, poses, DISC, BOX, noise=noise)


def accumulated(observations, poses):
    volume = AccumulatedVolume(GRID)
    volume.add(observations, poses, torch.ones(len(poses.image)))
    return volume


def test_true_poses_give_the_map_back(truth, poses, observe):
    volume = accumulated(images(truth, poses, observe), poses)
    got = volume.solve(FLAT, box=BOX)
    fsc = fourier_shell_correlation(got, truth)
    assert float(fsc[1:8].min()) > 0.98
    scale = float((got * truth).sum() / truth.square().sum())
    assert scale == pytest.approx(1, abs=0.05), "densities are not on the scale of the projections"
    wrong = accumulated(images(truth, poses, observe), poses._replace(rotation=poses.rotation.flip(0)))
    assert fourier_shell_correlation(wrong.solve(FLAT, box=BOX), truth)[3:8].max() < 0.9


def test_an_ignored_shift_shows(truth, poses, observe):
    blurred = accumulated(images(truth, poses, observe), poses._replace(shift=torch.zeros_like(poses.shift)))
    assert fourier_shell_correlation(blurred.solve(FLAT, box=BOX), truth)[5:8].mean() < 0.9


def test_the_prior_shrinks_what_noise_dominates(truth, poses, observe):
    volume = accumulated(images(truth, poses, observe, noise=6.0), poses)
    signal = volume.shell_average(map_to_grid(truth, GRID).abs() ** 2).float()
    flat, shrunk = (volume.solve(power, box=BOX) for power in (FLAT, signal))
    assert shrunk.square().sum() < flat.square().sum()
    assert volume.solve(torch.full((10,), 1e-9), box=BOX).abs().max() < 1e-3 * flat.abs().max()
    error = [float((m - truth).square().sum()) for m in (flat, shrunk)]
    assert error[1] < 0.9 * error[0]


def test_the_filter_is_even_where_views_are_not(poses, truth, observe):
    """Signal in sparse directions is no fainter than elsewhere."""
    crowded = poses._replace(rotation=poses.rotation.clone())
    crowded.rotation[40:] = poses.rotation[0]
    volume = accumulated(images(truth, crowded, observe), crowded)
    grid_of = [map_to_grid(volume.solve(power, box=BOX), GRID) for power in (FLAT, torch.full((10,), 1e-3))]
    shell = GRID.nearest_shell("cpu")
    for radius in (3, 6):
        ratio = (grid_of[1].abs() / grid_of[0].abs().clamp_min(1e-9))[shell == radius]
        assert 0.01 < float(ratio.median()) < 0.99
        assert float(ratio.quantile(0.9) / ratio.quantile(0.1)) < 2
        weight = volume.denominator[shell == radius]
        assert float(weight.quantile(0.9) / weight.quantile(0.1)) > 10


def test_shells_beyond_the_limit_are_empty(truth, poses, observe):
    low = accumulated(images(truth, poses, observe), poses).solve(FLAT, radius=4, box=BOX)
    full = accumulated(images(truth, poses, observe), poses).solve(FLAT, box=BOX)
    fsc = fourier_shell_correlation(low, truth)
    assert float(fsc[1:4].min()) > 0.98
    k = (torch.fft.fftfreq(BOX) * BOX).square()
    beyond = (k[:, None, None] + k[None, :, None] + (torch.arange(BOX // 2 + 1).float().square())).sqrt() > 6.5
    spectra = [torch.fft.rfftn(m)[beyond].abs().square().sum() for m in (low, full)]
    assert spectra[0] < 0.05 * spectra[1]


def test_fading_halves_the_weight_of_what_was_there(truth, poses, observe):
    volume = accumulated(images(truth, poses, observe), poses)
    before = volume.solve(FLAT)
    denominator = volume.denominator.clone()
    volume.fade(0.5)
    torch.testing.assert_close(volume.denominator, denominator / 2)
    torch.testing.assert_close(volume.solve(FLAT), before, rtol=1e-2, atol=1e-2 * float(before.abs().max()))


def test_ready_made_slices_are_the_same_as_images(truth, poses, observe):
    o = images(truth, poses, observe)
    want = accumulated(o, poses)
    volume = AccumulatedVolume(GRID)
    values = o.images * DISC.shift_phase(poses.shift, BOX).conj() * o.ctf * o.weight
    volume.add_slices(poses.rotation, DISC, values, o.ctf**2 * o.weight)
    torch.testing.assert_close(volume.denominator, want.denominator, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(volume.numerator, want.numerator, rtol=1e-3, atol=1e-1)


def test_a_point_group_makes_the_map_symmetric(truth, poses, observe):
    group = point_group("C4")
    volume = AccumulatedVolume(GRID, group)
    volume.add(images(truth, poses, observe), poses, torch.ones(400))
    density = volume.solve(FLAT, box=25)
    # A quarter turn about z in an odd box maps voxels onto voxels.
    torch.testing.assert_close(torch.rot90(density, 1, (1, 2)), density, rtol=0, atol=0.05 * float(density.max()))
    plain = accumulated(images(truth, poses, observe), poses).solve(FLAT, box=25)
    assert float((torch.rot90(plain, 1, (1, 2)) - plain).abs().max()) > 0.2 * float(plain.max())


def test_shell_average_averages_over_the_lattice():
    volume = AccumulatedVolume(GRID)
    distance = volume.grid.shell_of_points()
    torch.testing.assert_close(volume.shell_average(distance.round()), torch.arange(10).double())
