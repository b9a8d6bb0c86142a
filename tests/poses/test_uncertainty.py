from __future__ import annotations

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import random_rotations, to_rotation_vectors
from cryospin.kernels import reference
from cryospin.kernels.types import Poses
from cryospin.maps.fsc import fourier_shell_correlation
from cryospin.poses.gauss_newton import refine_poses
from cryospin.poses.uncertainty import POINTS, spread
from cryospin.volume.accumulated import AccumulatedVolume

# torch's forward differentiation compiles its own formulas in a way it has come to warn of.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")

BOX, COUNT, RADIUS, LOOSE = 28, 600, 12, 100.0
GRID, DISC = FourierGrid(RADIUS), HalfDisc.build(RADIUS)


@pytest.fixture(scope="module")
def setting(blobs, observe):
    """A map, faint images of it, their true poses and the best ones."""
    g = torch.Generator().manual_seed(3)
    density = blobs.density(BOX)
    volume = map_to_grid(density, GRID)
    true = Poses(torch.arange(COUNT), random_rotations(COUNT, g), torch.randn(COUNT, 2, generator=g))
    observations = observe(volume, GRID, true, DISC, BOX, noise=0.8)
    best, _ = refine_poses(volume, GRID, observations, true, steps=8, shift_sd=LOOSE)
    return density, volume, observations, true, best


def moves(of: Poses, since: Poses) -> torch.Tensor:
    """Turn and shift between poses, `(n, 5)`."""
    return torch.cat([to_rotation_vectors(of.rotation @ since.rotation.mT), of.shift - since.shift], 1).double()


def moves_of_points(points: Poses, best: Poses) -> torch.Tensor:
    """Of the points since the poses they stand for, `(n, POINTS, 5)`."""
    repeated = Poses(*(field.repeat_interleave(POINTS, 0) for field in best))
    return moves(points, repeated).unflatten(0, (COUNT, POINTS))


def test_points_have_the_mean_and_covariance_of_the_posterior(setting):
    _, volume, observations, _, best = setting
    points = spread(volume, GRID, observations, best, shift_sd=LOOSE)
    assert torch.equal(points.image, best.image.repeat_interleave(POINTS))
    move = moves_of_points(points, best)
    torch.testing.assert_close(move.mean(1), torch.zeros(COUNT, 5, dtype=torch.float64), rtol=0, atol=1e-4)
    covariance = move.mT @ move / POINTS
    precision = 2 * reference.normal_equations(volume, GRID, observations, best).matrix.double()
    precision[:, range(3), range(3)] += 25
    precision[:, range(3, 5), range(3, 5)] += LOOSE**-2
    unit = torch.eye(5, dtype=torch.float64).expand(COUNT, 5, 5)
    torch.testing.assert_close(precision @ covariance, unit, rtol=0, atol=0.1)


def test_the_best_poses_are_off_the_true_ones_by_as_much_as_the_points_say(setting):
    _, volume, observations, true, best = setting
    points = spread(volume, GRID, observations, best, shift_sd=LOOSE)
    move = moves_of_points(points, best)
    covariance = move.mT @ move / POINTS
    error = moves(best, true)
    squares = (error[:, None] @ torch.linalg.solve(covariance, error[..., None])).flatten()
    assert 3.5 < float(squares.median()) < 5.5, "of chi squared with five degrees of freedom: 4.35"


def test_points_are_askew_for_no_map(setting):
    _, volume, observations, _, best = setting
    points = spread(volume, GRID, observations, best, shift_sd=LOOSE)
    move = moves_of_points(points, best)
    skew = (move**3).sum(1)
    assert float(skew.mean(0).norm()) < 0.2 * float(skew.norm(dim=1).mean())


def test_a_map_of_points_is_nearer_the_truth_than_one_of_best_poses(setting, observe):
    density, volume, observations, true, _ = setting
    covered = spread(volume, GRID, observations, true, shift_sd=LOOSE)
    g = torch.Generator().manual_seed(8)
    drawn = torch.arange(COUNT) * POINTS + torch.randint(POINTS, (COUNT,), generator=g)
    # Poses as another map of the same quality would have given them: the images' noise is not in them.
    found = covered.take(drawn)
    agreement = {}
    for name, poses in (("best", found), ("points", spread(volume, GRID, observations, found, shift_sd=LOOSE))):
        sums = AccumulatedVolume(GRID)
        sums.add(observations, poses, torch.full((len(poses.image),), COUNT / len(poses.image)))
        solved = sums.solve(torch.full((RADIUS + 1,), 1e6), box=BOX)
        agreement[name] = fourier_shell_correlation(solved, density)[4:RADIUS].mean()
    assert agreement["points"] > agreement["best"] + 0.01
