"""Images inserted at one pose of each coset, and turned sums, are images inserted at all equivalent poses."""

from __future__ import annotations

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.geometry.rotations import random_rotations
from cryospin.geometry.symmetry import point_group
from cryospin.kernels import cpu
from cryospin.volume.accumulated import AccumulatedVolume
from cryospin.volume.lattice_mates import LatticeMates

GRID, DISC = FourierGrid(6), HalfDisc.build(6)

INSERTIONS = {"C1": 1, "C2": 1, "C3": 3, "C4": 1, "C6": 3, "D2": 1, "D4": 1, "D7": 7, "T": 12, "O": 1, "I": 5, "I1": 5}


@pytest.mark.parametrize(("name", "insertions"), INSERTIONS.items())
def test_cosets_make_up_the_group(name, insertions):
    group = point_group(name)
    mates = LatticeMates(group)
    assert len(mates.representatives) == insertions
    products = (mates.representatives[:, None] @ torch.from_numpy(mates.turns).to(group.dtype)).flatten(0, 1)
    assert len(products) == len(group)
    distance = (products[:, None] - group).abs().amax(dim=(2, 3))
    assert float(distance.amin(0).max()) < 1e-5
    assert float(distance.amin(1).max()) < 1e-5


def test_a_group_that_stands_askew_turns_no_lattice(generator):
    turn = random_rotations(1, generator)[0]
    mates = LatticeMates(turn @ point_group("D2") @ turn.T)
    assert len(mates.turns) == 1
    assert len(mates.representatives) == 4


def paired(sums):
    """Sums with each point of the plane x = 0 and its conjugate together."""
    out = sums.clone()
    out[..., 0] += sums[..., 0].flip(0, 1).conj()
    return out


@pytest.mark.parametrize("name", ["C4", "D2", "D7", "T", "O", "I"])
def test_sums_are_those_of_images_at_all_equivalent_poses(name, generator):
    rotations = random_rotations(20, generator)
    values = torch.randn(20, len(DISC), dtype=torch.complex64, generator=generator)
    weights = torch.rand(20, len(DISC), generator=generator)
    group = point_group(name)
    volume = AccumulatedVolume(GRID, group)
    # What was there before is not turned again.
    for some in (slice(0, 8), slice(8, 20)):
        volume.add_slices(rotations[some], DISC, values[some], weights[some])
    numerator, denominator = torch.zeros(GRID.shape, dtype=torch.complex64), torch.zeros(GRID.shape)
    for mate in group:
        cpu.insert_values(numerator, denominator, GRID, rotations @ mate, DISC, values, weights)
    scale = float(numerator.abs().max())
    torch.testing.assert_close(paired(volume.numerator), paired(numerator), rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(paired(volume.denominator), paired(denominator), rtol=0, atol=1e-5 * float(denominator.max()))
