from __future__ import annotations

import pytest
import torch

from cryospin.geometry.rotations import distance_deg, random_rotations
from cryospin.proposals.pyramid import GaussianPyramid, PyramidEncoder

PUBLISHED = (64, 128, 256, 256, 256)
SMALL = (4, 4, 4, 4, 4)


def pyramid():
    return GaussianPyramid(octaves=4, size=11, variance=0.01, scaling=10.0)


def test_channels_are_ever_stronger_blurs_of_one_mean_and_deviation(generator):
    out = pyramid()(3 + 20 * torch.randn(2, 32, 32, generator=generator))
    assert out.shape == (2, 5, 32, 32)
    torch.testing.assert_close(out.mean((2, 3)), torch.full((2, 5), 0.45), rtol=0, atol=1e-4)
    torch.testing.assert_close(out.std((2, 3)), torch.full((2, 5), 0.226), rtol=1e-3, atol=0)
    roughness = (out.diff(dim=-1) ** 2).mean((0, 2, 3))
    # Of the last one the kernel holds only the middle, which is nearly a box.
    assert torch.equal(roughness[:4].argsort(descending=True), torch.arange(4))
    assert float(roughness[4]) < float(roughness[2]) / 2


def test_the_first_channel_is_the_image_itself(generator):
    images = torch.randn(2, 32, 32, generator=generator)
    got = pyramid()(images)[:, 0]
    standard = (images - images.mean((1, 2), keepdim=True)) / images.std((1, 2), keepdim=True)
    torch.testing.assert_close(got, 0.45 + 0.226 * standard, rtol=0, atol=1e-4)


def test_an_image_of_one_grey_is_no_trouble():
    assert torch.isfinite(pyramid()(torch.ones(1, 16, 16))).all()


@pytest.mark.parametrize(("box", "side"), [(16, 2), (32, 2), (48, 3), (64, 2), (100, 3), (128, 2)])
def test_any_box_leaves_the_heads_a_few_pixels(box, side):
    encoder = PyramidEncoder(box, 2, pyramid(), SMALL, (8,))
    assert encoder.rotations[0][0].in_features == SMALL[-1] * side**2
    rotation, shift = encoder(torch.randn(3, box, box))
    assert rotation.shape == (3, 2, 3, 3)
    assert not shift.any()


def test_at_the_published_box_a_head_sees_1024_features():
    encoder = PyramidEncoder(128, 1, pyramid(), PUBLISHED, (512, 256))
    linear = [layer for layer in encoder.rotations[0] if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(1024, 512), (512, 256), (256, 6)]
    convolutions = [layer for layer in encoder.trunk if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 64, 128, 128, 256, 256, 256, 256, 256, 256, 256]


def test_heads_give_different_rotations_and_shifts(generator):
    encoder = PyramidEncoder(16, 3, pyramid(), SMALL, (8, 8), shifts=True)
    with torch.no_grad():
        rotation, shift = encoder(torch.randn(4, 16, 16, generator=generator))
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(4, 3, 3, 3), rtol=0, atol=1e-4)
    assert float(distance_deg(rotation[:, 0], rotation[:, 1]).min()) > 0.1
    assert shift.shape == (4, 3, 2)
    assert not torch.allclose(shift[:, 0], shift[:, 1])


@pytest.mark.parametrize("half_precision", [False, True])
def test_it_can_learn_which_image_has_which_pose(generator, half_precision):
    torch.manual_seed(0)
    encoder = PyramidEncoder(16, 1, pyramid(), (16, 16, 16, 16, 16), (64,), half_precision=half_precision)
    images, true = torch.randn(6, 16, 16, generator=generator), random_rotations(6, generator)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    for _ in range(200):
        optimiser.zero_grad()
        ((encoder(images)[0][:, 0] - true) ** 2).sum().backward()
        optimiser.step()
    assert float(distance_deg(encoder(images)[0][:, 0].detach(), true).max()) < 15
