"""Each way to fail is found where it was made, and not in a start that went well."""

from __future__ import annotations

import pytest
import torch

from blob_images import BOX, DIAMETER, SHELL, blob_images, competition_in, posed
from cryospin.engine import failures
from cryospin.engine.failures import (
    collapse,
    dead_heads,
    examine,
    hollow_shell,
    no_structure,
    overfitted_noise,
    pile_up,
)
from cryospin.engine.held_out import BesideNothing, Gains, of_nothing
from cryospin.geometry.rotations import random_rotations
from cryospin.proposals.heads import HeadProposals

COUNT = 400


def distances(box):
    x = torch.arange(box) - box // 2
    return (x[:, None, None] ** 2 + x[None, :, None] ** 2 + x**2).float().sqrt()


def even(generator, count=400):
    return random_rotations(count, generator)[:, 2]


def beside(gain, of_nothing):
    return BesideNothing(gain.double(), of_nothing.double(), torch.zeros(0, 3))


@pytest.mark.parametrize("test", [collapse, no_structure])
def test_gains_like_those_of_nothing_are_a_collapse(test, generator):
    noise = 5 + 2 * torch.randn(2, 300, generator=generator)
    said = test(beside(*noise))
    assert "nats" in said
    assert said.startswith(("collapse: ", "no structure was found: "))
    assert test(beside(noise[0] + 6, noise[1])) == ""


def test_a_ball_and_a_shell_are_found_and_a_particle_is_not(blobs):
    distance = distances(BOX)
    shell = torch.exp(-((distance - 7) ** 2) / 4)
    particle = blobs.density(BOX)
    assert "hollow shell: 98 %" in hollow_shell(shell, DIAMETER)
    assert "hollow shell: 99 %" in hollow_shell(torch.exp(-(distance**2) / 30), DIAMETER)
    assert hollow_shell(particle, DIAMETER) == ""
    rough = shell * (1 + 0.5 * torch.randn(shell.shape, generator=torch.Generator().manual_seed(1)))
    assert "hollow shell" in hollow_shell(rough, DIAMETER)


def test_a_map_that_drains_everything_to_one_axis_is_found(generator):
    uneven = even(generator) * torch.tensor([0.05, 0.05, 1.0])
    crowd = uneven / uneven.norm(dim=1, keepdim=True)
    ring = even(generator) * torch.tensor([1.0, 1.0, 0.05])
    ring = ring / ring.norm(dim=1, keepdim=True)
    assert "pile-up: views crowd about an axis" in pile_up(crowd, crowd)
    assert "pile-up: views crowd about a ring" in pile_up(ring, ring)
    assert pile_up(even(generator), even(generator)) == ""


def test_particles_that_lie_on_one_side_are_no_pile_up(generator):
    uneven = even(generator) * torch.tensor([0.05, 0.05, 1.0])
    assert pile_up(uneven / uneven.norm(dim=1, keepdim=True), even(generator)) == ""


def test_heads_that_never_win_are_named():
    assert dead_heads([300, 0, 350, 2, 348]).startswith("dead heads: 2, 4 of 5 ")
    assert dead_heads([300, 40, 350, 310]) == ""
    assert dead_heads([]) == ""


def test_what_does_not_help_held_out_images_is_overfitted():
    assert overfitted_noise(Gains(20.0, 3.0)) == (
        "overfitted noise: images gain 20.0 nats by their own half's map and 3.0 by the other's"
    )
    assert overfitted_noise(Gains(20.0, 18.0)) == ""


def test_a_map_of_few_images_of_noise_is_overfitted(start):
    """Each image in the map of its own half, at whatever pose: it agrees with what it left there."""
    competed, images = start
    few = of_nothing(images.take(torch.arange(COUNT)), torch.Generator().manual_seed(4))
    problem, standing = competed(few)
    standing.modes = standing.modes.best().take(torch.arange(30))
    standing.images = torch.arange(30)
    assert any(line.startswith("overfitted noise: ") for line in examine(problem, standing, SHELL, None).failures)


@pytest.fixture(scope="module")
def start(blobs, observe):
    """A problem, and what a round of competition in some map leads to."""
    images, density, _ = blob_images(blobs, observe, COUNT)

    def competed(observations=images):
        problem = posed(observations)
        competition = competition_in(problem, density)
        competition.round(SHELL)
        return problem, competition.standing

    return competed, images


def test_nothing_is_found_in_a_start_that_went_well(start):
    problem, standing = start[0]()
    found = examine(problem, standing, SHELL, HeadProposals(3))
    assert found.failures == []
    assert found.gains.own > found.gains.other > 10


def test_a_start_on_images_of_nothing_collapses(start):
    competed, images = start
    problem, standing = competed(of_nothing(images, torch.Generator().manual_seed(4)))
    found = examine(problem, standing, SHELL, None)
    assert any(line.startswith("collapse: ") for line in found.failures)


def test_heads_that_no_image_is_near_to_are_found_in_a_start(start, monkeypatch):
    monkeypatch.setattr(failures, "_TAUGHT", COUNT)
    problem, standing = start[0]()
    heads = HeadProposals(3)
    with torch.no_grad():
        for branch in heads.encoder.branch[:5]:
            # Shifts by the whole box, which no particle has.
            branch[-1].bias[6:] += 1.0
    found = examine(problem, standing, SHELL, heads)
    assert [line for line in found.failures if line.startswith("dead heads: 1, 2, 3, 4, 5 of 7")]
