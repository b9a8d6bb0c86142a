from __future__ import annotations

import torch

from cryospin.engine.autodecode import AutoDecoding
from cryospin.engine.learning import Learning
from cryospin.engine.problem import Problem
from cryospin.engine.trace import Trace
from cryospin.fourier import FourierGrid, HalfDisc, low_pass, map_to_grid
from cryospin.geometry.rotations import distance_deg, exponential, random_rotations
from cryospin.kernels.types import Poses
from cryospin.volume.hartley import HartleyVolume, unpair

BOX, RADIUS, COUNT = 24, 9, 40
DISC = HalfDisc.build(RADIUS)


def setting(blobs, observe, generator, *, shift_sd):
    """Images of a map, a Hartley volume that holds it, and poses 8 degrees off."""
    fine = FourierGrid(RADIUS, padding=3)
    shift = torch.randn(COUNT, 2, generator=generator) * shift_sd
    true = Poses(torch.arange(COUNT), random_rotations(COUNT, generator), shift)
    observations = observe(map_to_grid(blobs.density(BOX), fine), fine, true, DISC, BOX, noise=0.3)
    problem = Problem.pose(observations, 5.0, mask_diameter=0.84, group=torch.eye(3)[None], last_shell=RADIUS)
    volume = HartleyVolume(RADIUS, 2, generator)
    with torch.no_grad():
        volume.exponent.zero_()
        volume.mantissa.copy_(unpair(map_to_grid(blobs.density(BOX), volume.grid), volume.grid))
    axis = torch.nn.functional.normalize(torch.randn(COUNT, 3, generator=generator), dim=1)
    start = Poses(true.image, exponential(axis * 0.14) @ true.rotation, torch.zeros(COUNT, 2))
    return problem, volume, true, start


def test_poses_come_back_to_the_truth(blobs, observe, generator):
    problem, volume, true, start = setting(blobs, observe, generator, shift_sd=0.7)
    options = Learning(decoding_volume_rate=1e-4, rotation_rate=0.01, shift_rate=0.05, shifts="search")
    trace = Trace.of(COUNT)
    stage = AutoDecoding(problem, start, volume, options, generator, trace)
    records = [stage.epoch() for _ in range(15)]
    assert float(distance_deg(start.rotation, true.rotation).median()) > 7.9
    assert float(distance_deg(stage.poses.rotation, true.rotation).median()) < 1.5
    assert float((stage.poses.shift - true.shift).norm(dim=1).median()) < 0.1
    assert records[-1].loss < records[0].loss
    assert records[0].pose_change_deg > records[-1].pose_change_deg
    assert len(trace.poses) == 15
    assert torch.equal(trace.poses[-1], stage.poses.rotation)


def test_without_shifts_only_rotations_move(blobs, observe, generator):
    problem, volume, _, start = setting(blobs, observe, generator, shift_sd=0.0)
    stage = AutoDecoding(problem, start, volume, Learning(shifts="none"), generator, Trace.of(COUNT))
    stage.epoch()
    assert not stage.poses.shift.any()
    assert float(distance_deg(stage.poses.rotation, start.rotation).min()) > 0


def test_the_volume_learns_from_poses_that_are_right(blobs, observe, generator):
    problem, volume, true, _ = setting(blobs, observe, generator, shift_sd=0.0)
    with torch.no_grad():
        volume.mantissa.mul_(0.3)
    options = Learning(shifts="none", rotation_rate=0.0, decoding_volume_rate=0.05)
    stage = AutoDecoding(problem, true, volume, options, generator, Trace.of(COUNT))
    truth = low_pass(blobs.density(BOX), RADIUS)
    before = float((volume.density(BOX) - truth).norm())
    for _ in range(10):
        stage.epoch()
    assert float((volume.density(BOX) - truth).norm()) < 0.6 * before
    assert float(distance_deg(stage.poses.rotation, true.rotation).max()) < 0.1
