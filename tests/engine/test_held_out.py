"""What images say of a map they had no part in: right maps, wrong ones, and images of nothing."""

from __future__ import annotations

import pytest
import torch

from blob_images import SHELL, blob_images, competition_in, half_mirrored, posed
from cryospin.engine.held_out import beside_nothing, gains, half_volumes, halved, of_nothing, shares
from cryospin.fourier import FourierGrid, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.noise import weighted
from cryospin.poses.gauss_newton import fits_of
from cryospin.poses.modes import Modes

COUNT = 400


@pytest.fixture(scope="module")
def setting(blobs, observe):
    """Noisy images of the blobs, their map and their poses."""
    images = blob_images(blobs, observe, COUNT)
    return posed(images.observations), images.density, images.true


def modes_at(poses):
    none = torch.zeros(len(poses.image), dtype=torch.float64)
    return Modes(poses, none, none.long())


def examined(problem, modes, noise=None):
    """Gains of the images by the maps that given poses make, and beside images of nothing."""
    some = weighted(problem.observations, problem.noise if noise is None else noise).up_to(SHELL)
    half = halved(len(problem), problem.device)
    volumes = half_volumes(problem, some, modes, half)
    return gains(problem, some, modes, half, volumes), beside_nothing(problem, some, half, volumes)


def competed(problem, density):
    """Where a round of competition leads from some map."""
    competition = competition_in(problem, density)
    competition.round(SHELL)
    return competition.standing


def test_halves_are_equal_and_always_the_same():
    half = halved(101, torch.device("cpu"))
    assert abs(int(half.sum()) - 50.5) < 1
    assert torch.equal(half, halved(101, torch.device("cpu")))


def test_at_true_poses_the_other_half_s_map_is_nearly_as_good_as_one_s_own(setting):
    problem, density, true = setting
    found, _ = examined(problem, modes_at(true))
    assert found.own > found.other > 0.8 * found.own
    # What the images gain in the true map, less what 200 images leave of it.
    grid = FourierGrid(SHELL)
    some = weighted(problem.observations, problem.noise).up_to(SHELL)
    fit = fits_of(map_to_grid(density, grid), grid, some, true)
    assert 0.85 < found.other / -float(fit.misfit(torch.ones(COUNT)).mean()) < 1


def test_noise_helps_its_own_half_only(setting):
    problem, _, true = setting
    noise = posed(of_nothing(problem.observations, torch.Generator().manual_seed(4)))
    found, _ = examined(noise, modes_at(true))
    assert found.own > 0.5
    assert found.other < 0.2 * found.own


def shares_of_inserted(problem, inserted):
    """How sure images are of the poses they were inserted at rather than of others at random."""
    other = inserted._replace(rotation=random_rotations(COUNT, torch.Generator().manual_seed(6)))
    some = weighted(problem.observations, problem.noise).up_to(SHELL)
    half = halved(COUNT, problem.device)
    modes = Modes.join(modes_at(inserted), modes_at(other))
    share = shares(problem, some, modes, half, half_volumes(problem, some, modes_at(inserted), half))
    torch.testing.assert_close(share[:COUNT] + share[COUNT:], torch.ones(COUNT))
    return share[:COUNT]


def test_images_are_sure_of_poses_that_the_other_half_confirms(setting):
    problem, _, true = setting
    assert float((shares_of_inserted(problem, true) > 0.95).double().mean()) > 0.95


def test_images_of_nothing_are_not_sure_of_the_poses_they_were_inserted_at(setting):
    problem, _, true = setting
    noise = posed(of_nothing(problem.observations, torch.Generator().manual_seed(4)))
    assert abs(float(shares_of_inserted(noise, true).mean()) - 0.5) < 0.06


def test_an_image_with_one_mode_is_sure(setting):
    problem, _, true = setting
    some = weighted(problem.observations, problem.noise).up_to(SHELL)
    half = halved(COUNT, problem.device)
    modes = modes_at(true)
    assert (shares(problem, some, modes, half, half_volumes(problem, some, modes, half)) == 1).all()


def test_images_of_nothing_keep_their_spectrum_and_lose_their_particle(setting):
    problem, _, _ = setting
    some = weighted(problem.observations, problem.noise)
    nothing = of_nothing(some, torch.Generator().manual_seed(1))
    assert torch.allclose(nothing.images.abs(), some.images.abs(), atol=1e-5)
    likeness = (nothing.images * some.images.conj()).sum() / (some.images.abs() ** 2).sum()
    assert abs(likeness) < 0.02


def test_particles_gain_more_than_images_of_nothing_do(setting):
    problem, _, true = setting
    _, beside = examined(problem, modes_at(true))
    assert beside.lead > 2
    assert float(beside.of_nothing.mean()) < 0.2 * float(beside.gain.mean())


def test_in_a_map_of_noise_that_competed_for_its_poses_images_gain_what_nothing_gains(setting):
    """Aligned to a map of its own making, noise agrees with itself; fresh noise agrees as well."""
    problem, density, _ = setting
    noise = posed(of_nothing(problem.observations, torch.Generator().manual_seed(4)))
    standing = competed(noise, density)
    found, beside = examined(noise, standing.modes.best(), standing.noise)
    assert found.own > 2
    assert abs(beside.lead) < 0.4


def test_of_two_starts_held_out_images_choose_the_right_one(setting):
    problem, density, _ = setting
    (right, _), (bad, _) = (
        examined(problem, standing.modes.best(), standing.noise)
        for standing in (competed(problem, density), competed(problem, half_mirrored(density)))
    )
    assert right.other > bad.other + 2
