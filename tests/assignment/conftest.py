"""Images of a known density, and a run that had found it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from known_truth import BOX, COUNT, PIXEL, run_that_knows

from cryospin.simulation import ImagingConditions, simulate


@pytest.fixture(scope="session")
def particle(blobs):
    """Sixty small blobs: detail in every shell, so that poses are sharp and a wrong one shows.

    Of the nine wide blobs that other tests use nothing is left beyond shell 9, and the likeliest poses of such images are
    three degrees from the truth.
    """
    generator = torch.Generator().manual_seed(1)
    position = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    radius = 0.3 * torch.rand(60, 1, generator=generator, dtype=torch.float64) ** (1 / 3)
    even = torch.ones(60, dtype=torch.float64)
    position = radius * position / position.norm(dim=1, keepdim=True)
    return replace(blobs, position=position, width=0.03 * even, weight=100 * even)


@pytest.fixture(scope="session")
def data(tmp_path_factory, particle):
    """Images of a known density."""
    out = tmp_path_factory.mktemp("data")
    simulate(particle.density(BOX), PIXEL, COUNT, out, ImagingConditions(snr=0.2, shift_sd=1.0), seed=4)
    return out


@pytest.fixture(scope="session")
def run(data, tmp_path_factory):
    """What a run would leave that had found the truth, with heads that have learned nothing."""
    return run_that_knows(tmp_path_factory.mktemp("run"), data, "C1")
