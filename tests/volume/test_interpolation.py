"""What slicing a map and putting the slices together again costs, with nothing else in the way."""

from __future__ import annotations

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels import cpu
from cryospin.kernels.types import Observations, Poses
from cryospin.maps.fsc import fourier_shell_correlation
from cryospin.volume.accumulated import AccumulatedVolume
from cryospin.volume.halves import HalfMaps
from cryospin.volume.mask import spherical_mask

BOX, VIEWS = 64, 4000
RADIUS = BOX // 2 - 1


@pytest.fixture(scope="module")
def fsc():
    """Of a map of white noise within a ball of 60 to 80 % of the box, and of its slices put together again."""
    g = torch.Generator().manual_seed(0)
    truth = torch.randn(BOX, BOX, BOX, generator=g) * spherical_mask(BOX, 0.6, 0.1)
    disc, finer, views = HalfDisc.build(RADIUS), FourierGrid(RADIUS, padding=4), random_rotations(VIEWS, g)
    slices = cpu.slices(map_to_grid(truth, finer), finer, views, disc)
    plain = Observations(
        images=slices,
        ctf=torch.ones(slices.shape),
        weight=torch.ones(1, len(disc)),
        group=torch.zeros(VIEWS, dtype=torch.long),
        scale=torch.ones(VIEWS),
        disc=disc,
        box=BOX,
    )
    sums = AccumulatedVolume(FourierGrid(RADIUS))
    sums.add(plain, Poses(torch.arange(VIEWS), views, torch.zeros(VIEWS, 2)), torch.ones(VIEWS))
    back = HalfMaps(sums, sums).together(BOX)
    return fourier_shell_correlation(back, truth)


def test_interpolation_costs_next_to_nothing_up_to_nine_tenths_of_nyquist(fsc):
    assert float(fsc[1 : int(0.9 * BOX / 2) + 1].min()) > 0.999
