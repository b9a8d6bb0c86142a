from __future__ import annotations

import pytest
import torch

from cryospin.engine.trace import Trace
from cryospin.evaluation.heads import trace_errors, view_posterior
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import exponential, flip_hand, random_rotations
from cryospin.geometry.symmetry import point_group
from cryospin.kernels.types import Poses

COUNT, HEADS = 60, 3


def off_by(rotations, degrees, generator):
    axis = torch.nn.functional.normalize(torch.randn(*rotations.shape[:-2], 3, generator=generator), dim=-1)
    return exponential(axis * torch.deg2rad(torch.tensor(degrees))) @ rotations


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("symmetry", ["C1", "C3"])
def test_each_head_is_judged_in_the_frame_in_which_the_run_ended(generator, flipped, symmetry):
    group = point_group(symmetry)
    true, frame = random_rotations(COUNT, generator), random_rotations(1, generator)[0]
    mate = group[torch.randint(len(group), (COUNT, HEADS), generator=generator)]
    heads = torch.stack([off_by(true, degrees, generator) for degrees in (2.0, 30.0, 5.0)], 1) @ mate
    own = flip_hand(heads @ frame) if flipped else heads @ frame
    losses = torch.tensor([0.1, 0.9, 0.5]).expand(COUNT, HEADS)
    trace = Trace(torch.arange(COUNT))
    trace.add_guesses(own, losses.roll(1, 1))
    trace.add_guesses(own, losses)
    errors = trace_errors(trace, true, group)
    assert errors.of_epochs.shape == (2, COUNT)
    torch.testing.assert_close(errors.of_heads.median(0).values, torch.tensor([2.0, 30.0, 5.0]).double(), rtol=0.15, atol=0)
    assert float(errors.of_epochs[0].median()) > 15
    assert float(errors.of_epochs[1].median()) == pytest.approx(2, rel=0.15)
    assert errors.heads.shape == (2, COUNT, HEADS, 3, 3)


def test_the_most_likely_view_is_the_true_one(blobs, observe, generator):
    grid, disc = FourierGrid(8), HalfDisc.build(8)
    volume = map_to_grid(blobs.density(24), grid)
    poses = Poses(torch.arange(6), random_rotations(6, generator), torch.zeros(6, 2))
    observations = observe(volume, grid, poses, disc, 24, noise=1.0)
    views, posterior = view_posterior(volume, grid, observations, step_deg=10.0)
    rot, tilt = torch.deg2rad(views[posterior.argmax(1)]).unbind(1)
    beam = torch.stack([tilt.sin() * rot.cos(), tilt.sin() * rot.sin(), tilt.cos()], 1)
    angle = torch.rad2deg(torch.arccos((beam * poses.rotation[:, 2].double()).sum(1)))
    assert float(angle.max()) < 10
    assert float(posterior.amax(1).abs().max()) == 0
    assert float(posterior.amin(1).max()) < -20
