"""Which of many images show the particle, by contrasts that are drawn with known shares."""

from __future__ import annotations

import pytest
import torch

from cryospin.engine.likeness import likeness, usual_contrast

PRECISION = 14.0


def contrasts(generator, share: float, usual: float, count: int = 4000):
    """Some images at the usual contrast and the others anywhere below, all with noise; and which are which."""
    shows = torch.rand(count, generator=generator) < share
    below = usual * torch.rand(count, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, generator=generator, dtype=torch.float64) / PRECISION
    return torch.where(shows, usual, below) + noise, shows


@pytest.mark.parametrize("share", [0.2, 0.7, 0.98])
def test_likeness_is_the_share_of_images_that_show_the_particle(generator, share):
    contrast, shows = contrasts(generator, share, 1.0)
    probability = likeness((1 - contrast) * PRECISION, torch.full_like(contrast, PRECISION))
    assert float(probability.mean()) == pytest.approx(share, abs=0.03)
    for low, high in ((0.0, 0.2), (0.2, 0.8), (0.8, 1.01)):
        some = (probability >= low) & (probability < high)
        if some.sum() > 100:
            assert float(shows[some].double().mean()) == pytest.approx(float(probability[some].mean()), abs=0.1)


@pytest.mark.parametrize("share", [0.3, 0.98])
@pytest.mark.parametrize("usual", [0.6, 1.0, 1.9])
def test_the_usual_contrast_is_found_among_others(generator, share, usual):
    contrast, _ = contrasts(generator, share, usual, 500)
    found = usual_contrast(contrast, torch.full_like(contrast, PRECISION), 1.0)
    assert found == pytest.approx(usual, rel=0.03)


def test_images_of_nothing_do_not_pass_for_the_usual(generator):
    contrast = torch.randn(500, generator=generator, dtype=torch.float64) / PRECISION
    found = usual_contrast(contrast, torch.full_like(contrast, PRECISION), 1.0)
    assert found >= 0.4
    probability = likeness((found - contrast) * PRECISION, torch.full_like(contrast, found * PRECISION))
    assert float(probability.mean()) < 0.1
