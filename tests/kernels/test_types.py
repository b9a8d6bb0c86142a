from __future__ import annotations

import torch

from cryospin.kernels.types import Poses


def test_up_to_keeps_what_belongs_together(problem):
    o = problem.observations
    low = o.up_to(4)
    count = o.disc.count(4)
    assert low.disc.radius == 4
    assert torch.equal(low.images, o.images[:, :count])
    assert torch.equal(low.ctf, o.ctf[:, :count])
    assert torch.equal(low.weight, o.weight[:, :count])
    assert low.box == o.box


def test_take_copies_rows_and_keeps_groups(problem):
    o = problem.observations
    some = o.take(torch.tensor([3, 1]))
    assert torch.equal(some.images, o.images[[3, 1]])
    assert torch.equal(some.group, o.group[[3, 1]])
    assert torch.equal(some.scale, o.scale[[3, 1]])
    assert some.weight is o.weight
    some.images.zero_()
    assert o.images[3].abs().sum() > 0


def test_poses_join_in_order(problem):
    p = problem.poses
    joined = Poses.join([p.take(torch.tensor([4])), p.take(torch.tensor([0, 2]))])
    assert torch.equal(joined.image, p.image[[4, 0, 2]])
    assert torch.equal(joined.rotation, p.rotation[[4, 0, 2]])
    assert torch.equal(joined.shift, p.shift[[4, 0, 2]])
