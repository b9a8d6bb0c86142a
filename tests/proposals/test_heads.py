from __future__ import annotations

import math

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import distance_deg, in_plane, random_rotations
from cryospin.kernels.types import Poses
from cryospin.proposals.heads import INPUT_BOX, HeadProposals, encoder_input, turn_images

BOX = 24
GRID, DISC = FourierGrid(10), HalfDisc.build(10)


@pytest.fixture(scope="module")
def setting(blobs, observe):
    """Images of a map at a few known poses, centred and not."""
    g = torch.Generator().manual_seed(2)
    volume = map_to_grid(blobs.density(BOX), GRID)
    true = Poses(torch.arange(24), random_rotations(24, g), torch.randn(24, 2, generator=g))
    return volume, observe(volume, GRID, true, DISC, BOX), true


def test_each_head_proposes_a_pose_for_each_image(setting):
    _, observations, _ = setting
    poses = HeadProposals(seed=0, heads=3).propose(observations)
    assert torch.equal(poses.image, torch.arange(24).repeat_interleave(3))
    assert poses.rotation.shape == (72, 3, 3)
    assert poses.shift.shape == (72, 2)
    torch.testing.assert_close(poses.rotation @ poses.rotation.mT, torch.eye(3).expand(72, 3, 3), rtol=0, atol=1e-4)
    assert not torch.allclose(poses.rotation[0], poses.rotation[1])
    assert not poses.rotation.requires_grad


def test_the_seed_decides_the_heads_and_leaves_others_alone(setting):
    _, observations, true = setting
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = (HeadProposals(seed, heads=2) for seed in (1, 1, 2))
    for heads in (a, b, c):
        heads.learn(observations, true)
    assert torch.equal(torch.rand(3), expected), "the global generator was used"
    one, two, three = (heads.propose(observations).rotation for heads in (a, b, c))
    assert torch.equal(one, two)
    assert not torch.allclose(one, three)


def test_learning_a_pose_teaches_it(setting):
    _, observations, true = setting
    heads = HeadProposals(seed=0, heads=2)
    one, copies = observations.take(torch.tensor([0])), true.take(torch.zeros(16, dtype=torch.long))

    def distance():
        poses = heads.propose(one)
        return float(distance_deg(poses.rotation, true.rotation[:1].expand(2, 3, 3)).min())

    before = distance()
    assert not heads.trained
    for _ in range(70):
        nearest = heads.learn(observations, copies)
        assert nearest.shape == (2,)
        assert nearest.sum() == 16
    assert heads.trained
    assert before > 40
    assert distance() < 20


def test_heads_follow_a_map_that_is_turned(setting, generator):
    """What they learned is proposed in the new frame, and what they learn there is the same."""
    _, observations, true = setting
    turn, one, other = random_rotations(1, generator)[0], HeadProposals(seed=0, heads=2), HeadProposals(seed=0, heads=2)
    for heads in (one, other):
        heads.learn(observations, true)
    other.turn(turn)
    turned = true._replace(rotation=true.rotation @ turn)
    one.learn(observations, true)
    other.learn(observations, turned)
    torch.testing.assert_close(other.propose(observations).rotation, one.propose(observations).rotation @ turn)
    assert torch.equal(other.nearest(observations, turned), one.nearest(observations, true))
    kept = HeadProposals(seed=5, heads=2)
    kept.load(other.weights())
    assert torch.equal(kept.propose(observations).rotation, other.propose(observations).rotation)
    again = HeadProposals(seed=5, heads=2)
    again.restore(other.state())
    assert torch.equal(again.propose(observations).rotation, other.propose(observations).rotation)


def test_encoder_input_is_upright_whitened_and_of_unit_variance(setting):
    _, observations, _ = setting
    images = encoder_input(observations)
    assert images.shape == (24, 1, INPUT_BOX, INPUT_BOX)
    torch.testing.assert_close(images.std(dim=(1, 2, 3)), torch.ones(24), rtol=0.01, atol=0)
    # Twice the CTF, so its sign is gone: an image and its contrast reversal by the CTF look alike.
    flipped = observations._replace(images=-observations.images, ctf=-observations.ctf)
    torch.testing.assert_close(encoder_input(flipped), images)
    louder = observations._replace(images=3 * observations.images)
    torch.testing.assert_close(encoder_input(louder), images, rtol=1e-4, atol=1e-4)


def test_encoder_input_of_an_empty_image_is_finite(setting):
    _, observations, _ = setting
    empty = observations._replace(images=torch.zeros_like(observations.images))
    assert (encoder_input(empty) == 0).all()


@pytest.mark.parametrize("degrees", [0.0, 90.0, -90.0, 37.0, 200.0])
def test_turning_an_image_is_projecting_at_the_turned_pose(blobs, degrees):
    g = torch.Generator().manual_seed(1)
    rotation = random_rotations(1, g)[0]
    angle = torch.tensor([math.radians(degrees)])
    shift, move = torch.tensor([1.5, -1.0]), torch.tensor([[0.04, -0.06]])
    turn = in_plane(angle)[0]
    image = blobs.image(BOX, rotation, shift)
    got = turn_images(image[None, None], angle, move)[0, 0]
    want = blobs.image(BOX, turn @ rotation, turn[:2, :2] @ shift + move[0] * BOX)
    error = (got - want).norm() / want.norm()
    assert float(error) < 0.06
    backwards = blobs.image(BOX, turn.T @ rotation, turn.T[:2, :2] @ shift + move[0] * BOX)
    if degrees % 180:
        assert float((got - backwards).norm() / want.norm()) > 0.3


def test_images_that_stay_are_not_changed(generator):
    images = torch.randn(3, 1, INPUT_BOX, INPUT_BOX, generator=generator)
    got = turn_images(images, torch.zeros(3), torch.zeros(3, 2))
    torch.testing.assert_close(got, images, rtol=0, atol=1e-5)
