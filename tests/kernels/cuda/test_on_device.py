"""What only a device can show: the kernels at real sizes against those of the CPU, and a whole run."""

from __future__ import annotations

import pytest
import torch

from cryospin.evaluation.evaluate import evaluate
from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.geometry.rotations import random_rotations
from cryospin.geometry.so3_grid import rotation_grid
from cryospin.kernels import cpu, dispatch
from cryospin.kernels.types import Observations, Poses
from cryospin.pipeline import reconstruct
from cryospin.settings import Settings
from cryospin.simulation import ImagingConditions, density_from_source, simulate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
IMAGES = 400


@pytest.fixture(scope="module", params=[31, 63])
def both(request):
    """A random problem of a real size, on the CPU and on the device."""
    g = torch.Generator().manual_seed(3)
    grid, disc = FourierGrid(request.param), HalfDisc.build(request.param)
    volume = torch.randn(grid.shape, generator=g, dtype=torch.complex64)
    # On the plane x = 0 a rounding error decides which of two mates is read; in a real map's volume they agree.
    volume[:, :, 0] = (volume[:, :, 0] + volume[:, :, 0].flip(0, 1).conj()) / 2
    observations = Observations(
        images=torch.randn(IMAGES, len(disc), generator=g, dtype=torch.complex64),
        ctf=torch.rand(IMAGES, len(disc), generator=g) * 2 - 1,
        weight=torch.rand(2, len(disc), generator=g) + 0.3,
        group=torch.randint(2, (IMAGES,), generator=g),
        scale=torch.rand(IMAGES, generator=g) + 0.5,
        disc=disc,
        box=2 * request.param + 2,
    )
    image = torch.randint(IMAGES, (3 * IMAGES,), generator=g)
    poses = Poses(image, random_rotations(len(image), g), torch.randn(len(image), 2, generator=g) * 2)
    device = torch.device("cuda", 0)
    near = (volume, grid, observations, poses)
    return near, (volume.to(device), grid, observations.to(device), poses.to(device))


def equal(far, near, tolerance=1e-4):
    torch.testing.assert_close(far.cpu().to(near.dtype), near, rtol=tolerance, atol=tolerance * float(near.abs().max()))


def test_kernels_of_poses_equal_those_of_the_cpu(both):
    (volume, grid, o, poses), there = both
    far = dispatch.slices(there[0], grid, there[3].rotation, there[2].disc)
    equal(far, cpu.slices(volume, grid, poses.rotation, o.disc))
    for own, near in zip(dispatch.normal_equations(*there), cpu.normal_equations(*both[0]), strict=True):
        equal(own, near, 1e-3)
    for own, near in zip(dispatch.fits(*there), cpu.fits(*both[0]), strict=True):
        equal(own, near, 1e-3)


def test_insertion_equals_that_of_the_cpu(both):
    found = []
    for volume, grid, o, poses in both:
        sums = torch.zeros_like(volume), torch.zeros(grid.shape, device=volume.device)
        dispatch.insert(*sums, grid, o, poses, torch.ones(len(poses.image), device=volume.device))
        found.append(sums)
    for near, far in zip(*found, strict=True):
        equal(far, near)


def test_the_grid_equals_that_of_the_cpu(both):
    (volume, grid, o, _), (_, _, there, _) = both
    few, few_there = o.up_to(9), there.up_to(9)
    slices = 0.1 * cpu.slices(volume, grid, rotation_grid(14.5, in_plane_deg=180.0), few.disc)
    shifts = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)) * 2
    prior = torch.zeros(20)
    far = (slices.cuda(), few_there, shifts.cuda(), prior.cuda())
    equal(dispatch.grid_scores(*far).best, cpu.grid_scores(slices, few, shifts, prior).best, 5e-3)
    near = cpu.grid_expectation(slices, few, shifts, prior, 0.2)
    found = dispatch.grid_expectation(*far, 0.2)
    equal(found.numerator, near.numerator, 1e-2)
    equal(found.denominator, near.denominator, 1e-2)


@pytest.mark.parametrize("proposals", ["both", "heads"])
def test_a_whole_run_on_the_device(tmp_path, proposals):
    density = density_from_source("phantom", 32, 8.0, seed=1)
    simulate(density, 8.0, 1200, tmp_path, ImagingConditions(snr=0.3, shift_sd=1.0), seed=3)
    run = tmp_path / "run"
    reconstruct(Settings(particles=tmp_path / "particles.star", out=run, proposals=proposals, device="cuda"))
    assert "computing on cuda:0" in (run / "log.txt").read_text()
    figures = evaluate(run, truth_map=tmp_path / "truth.mrc", truth_poses=tmp_path / "truth.star")
    # Heads alone do not always find a structure in so few images.
    if proposals == "both":
        assert figures["rotation_error_deg"]["median"] < 4
        assert figures["resolution_A"]["fsc_0_5"] < 1.12 * figures["true_poses_A"]["fsc_0_5"]
