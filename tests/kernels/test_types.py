from __future__ import annotations

import torch

from cryospin.disk_rows import allocate_rows
from cryospin.kernels.types import Poses
from cryospin.poses.gauss_newton import refine_poses
from cryospin.volume.accumulated import AccumulatedVolume


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


def on_disk(o, folder):
    """The same observations with their images in a file."""
    everything = torch.arange(len(o.images))
    images, ctf = (allocate_rows(*x.shape, x.dtype, folder) for x in (o.images, o.ctf))
    images[everything], ctf[everything] = o.images, o.ctf
    return o._replace(images=images, ctf=ctf)


def test_blocks_hold_every_hypothesis_once_with_its_image(problem, tmp_path, monkeypatch):
    monkeypatch.setattr("cryospin.kernels.types._BLOCK_COEFFICIENTS", 3 * len(problem.observations.disc))
    stored = on_disk(problem.observations, tmp_path)
    seen = []
    for o, poses, rows in stored.blocks(problem.poses):
        assert len(rows) <= 3
        assert torch.equal(poses.rotation, problem.poses.rotation[rows])
        assert torch.equal(o.images[poses.image], problem.observations.images[problem.poses.image[rows]])
        assert torch.equal(o.ctf[poses.image], problem.observations.ctf[problem.poses.image[rows]])
        assert torch.equal(o.scale[poses.image], problem.observations.scale[problem.poses.image[rows]])
        seen.append(rows)
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(len(problem.poses.image)))


def test_no_number_depends_on_where_images_are_kept(problem, tmp_path, monkeypatch):
    monkeypatch.setattr("cryospin.kernels.types._BLOCK_COEFFICIENTS", 3 * len(problem.observations.disc))
    results = []
    for o in (problem.observations, on_disk(problem.observations, tmp_path)):
        for radius in (o.disc.radius - 2, o.disc.radius):
            some = o.up_to(radius)
            poses, misfit = refine_poses(problem.volume, problem.grid, some, problem.poses, steps=2, shift_sd=2.0)
            sums = AccumulatedVolume(problem.grid)
            sums.add(some, poses, torch.ones(len(misfit)))
            results.append((poses.rotation, poses.shift, misfit, sums.numerator, sums.denominator))
    for memory, disk in zip(results[:2], results[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(memory, disk, strict=True))
