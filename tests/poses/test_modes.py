from __future__ import annotations

import math

import pytest
import torch

from cryospin.geometry.rotations import exponential, random_rotations
from cryospin.geometry.symmetry import point_group
from cryospin.kernels.types import Poses
from cryospin.poses.modes import Modes, Thinning


def modes(image: list[int], misfit: list[float], angle: list[float] | None = None) -> Modes:
    """Hypotheses whose rotations are turns about x by `angle` degrees; `source` is the row they were given in."""
    angle = angle or [37.0 * i for i in range(len(image))]
    tangent = torch.tensor([[math.radians(a), 0.0, 0.0] for a in angle])
    poses = Poses(torch.tensor(image), exponential(tangent), torch.zeros(len(image), 2))
    return Modes(poses, torch.tensor(misfit, dtype=torch.float64), torch.arange(len(image)))


def rows(m: Modes) -> list[int]:
    return m.source.tolist()


def test_ranked_is_by_image_and_best_first():
    m = modes([1, 0, 1, 0, 4], [5.0, 2.0, 3.0, 1.0, 9.0])
    ranked, rank = m.ranked()
    assert rows(ranked) == [3, 1, 2, 0, 4]
    assert ranked.poses.image.tolist() == [0, 0, 1, 1, 4]
    assert rank.tolist() == [0, 1, 0, 1, 0]
    assert torch.equal(ranked.poses.rotation[0], m.poses.rotation[3])


def test_best_is_the_lowest_misfit_of_each_image():
    assert rows(modes([2, 0, 2, 0], [5.0, 2.0, -3.0, 7.0]).best()) == [1, 2]


def test_join_keeps_everything():
    joined = Modes.join(modes([0], [1.0]), modes([0, 1], [0.5, 2.0]))
    assert len(joined) == 3
    assert joined.misfit.tolist() == [1.0, 0.5, 2.0]
    assert joined.best().misfit.tolist() == [0.5, 2.0]


def test_responsibilities_are_the_posterior_of_each_image():
    m = modes([1, 0, 1, 0], [10.0, 1000.0, 11.0, 1003.0])
    p = m.responsibilities()
    want = [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-3)), 1 / (1 + math.exp(1)), 1 / (1 + math.exp(3))]
    assert p.tolist() == pytest.approx(want, rel=1e-5)
    soft = m.responsibilities(sharpness=0.5)
    assert float(soft[0]) == pytest.approx(1 / (1 + math.exp(-0.5)), rel=1e-5)


def test_responsibilities_survive_huge_misfits():
    p = modes([0, 0], [-1e7, 1e7]).responsibilities()
    assert p.tolist() == [1.0, 0.0]


def test_near_hypotheses_are_one_mode_and_the_best_stands_for_it():
    m = modes([0, 0, 0, 0], [3.0, 1.0, 2.0, 4.0], angle=[0.0, 4.0, 90.0, 93.0])
    kept = m.distinct(Thinning(math.radians(10), worse_by=100.0, at_most=9))
    assert rows(kept) == [1, 2]


def test_the_angle_is_where_two_modes_part():
    for gap, count in ((9.0, 1), (11.0, 2)):
        m = modes([0, 0], [1.0, 2.0], angle=[20.0, 20.0 + gap])
        assert len(m.distinct(Thinning(math.radians(10), worse_by=100.0, at_most=9))) == count


def test_a_dropped_hypothesis_does_not_drop_others():
    # 8 is near 0 and 16 is near 8, but 16 is not near 0, which is the only one kept of the two.
    m = modes([0, 0, 0], [1.0, 2.0, 3.0], angle=[0.0, 8.0, 16.0])
    assert rows(m.distinct(Thinning(math.radians(10), worse_by=100.0, at_most=9))) == [0, 2]


def test_distinct_modes_are_pairwise_apart_and_represent_the_rest(generator):
    count = 200
    poses = Poses(
        torch.randint(4, (count,), generator=generator),
        random_rotations(count, generator),
        torch.zeros(count, 2),
    )
    m = Modes(poses, torch.rand(count, generator=generator, dtype=torch.float64), torch.arange(count))
    angle = 0.9
    kept = m.distinct(Thinning(angle, worse_by=100.0, at_most=count))
    near = 2 * angle**2
    for image in range(4):
        mine = kept.poses.rotation[kept.poses.image == image]
        apart = torch.cdist(mine.double().flatten(1), mine.double().flatten(1)) ** 2
        assert (apart + 100 * torch.eye(len(mine)) >= near).all()
        all_mine = poses.rotation[poses.image == image]
        reach = torch.cdist(all_mine.double().flatten(1), mine.double().flatten(1)) ** 2
        assert (reach.amin(1) < near).all(), "a hypothesis was dropped though no kept one is near"


def test_modes_of_other_images_do_not_count():
    m = modes([0, 1], [1.0, 2.0], angle=[5.0, 5.0])
    assert rows(m.distinct(Thinning(math.radians(10), worse_by=0.5, at_most=1))) == [0, 1]


def test_hopeless_modes_are_given_up_and_the_number_is_limited():
    m = modes([0, 0, 0, 0, 3], [0.0, 4.0, 6.0, 50.0, 500.0])
    assert rows(m.distinct(Thinning(0.1, worse_by=10.0, at_most=9))) == [0, 1, 2, 4]
    assert rows(m.distinct(Thinning(0.1, worse_by=10.0, at_most=2))) == [0, 1, 4]


def test_with_poses_keeps_the_source():
    m = modes([0, 1], [1.0, 2.0])
    moved = m.with_poses(m.poses._replace(shift=m.poses.shift + 1), m.misfit - 1)
    assert rows(moved) == rows(m)
    assert moved.misfit.tolist() == [0.0, 1.0]
    assert moved.poses.shift.min() == 1


def test_symmetry_mates_are_one_mode():
    # Turns about x by 180 degrees are mates in D2, turns by 90 degrees are not.
    m = modes([0, 0, 0, 1], [1.0, 1.5, 2.0, 3.0], [10.0, 190.0, 100.0, 190.0])
    assert rows(m.distinct(Thinning(0.1))) == [0, 1, 2, 3]
    assert rows(m.distinct(Thinning(0.1, group=point_group("D2")))) == [0, 2, 3]
    assert rows(m.distinct(Thinning.at(5, group=point_group("C1")))) == [0, 1, 2, 3]
