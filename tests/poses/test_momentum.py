from __future__ import annotations

import torch

from cryospin.geometry.rotations import exponential, random_rotations
from cryospin.kernels.types import Poses
from cryospin.poses.momentum import ahead


def test_poses_go_on_by_so_much_of_what_they_moved():
    g = torch.Generator().manual_seed(2)
    before = Poses(torch.arange(50), random_rotations(50, g), torch.randn(50, 2, generator=g))
    drift, move = 0.02 * torch.randn(50, 3, generator=g), torch.randn(50, 2, generator=g)
    now = Poses(before.image, exponential(drift) @ before.rotation, before.shift + move)
    got = ahead(now, before, 0.5)
    torch.testing.assert_close(got.rotation, exponential(1.5 * drift) @ before.rotation, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.shift, before.shift + 1.5 * move)


def test_poses_that_jumped_stay():
    g = torch.Generator().manual_seed(2)
    before, now = (Poses(torch.arange(50), random_rotations(50, g), torch.randn(50, 2, generator=g)) for _ in range(2))
    got = ahead(now, before, 0.9)
    torch.testing.assert_close(got.rotation, now.rotation, rtol=0, atol=1e-6)
    assert torch.equal(got.shift, now.shift)
