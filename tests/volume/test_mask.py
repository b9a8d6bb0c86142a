from __future__ import annotations

import pytest
import torch

from cryospin.volume.mask import EDGE, outline_mask, spherical_mask


@pytest.mark.parametrize("box", [24, 33])
def test_spherical_mask_is_one_inside_and_zero_outside(box):
    mask = spherical_mask(box, 0.6)
    k = (torch.arange(box) - box // 2) / box
    distance = (k[:, None, None] ** 2 + k[None, :, None] ** 2 + k**2).sqrt()
    assert (mask[distance <= 0.3] == 1).all()
    assert (mask[distance >= 0.3 + EDGE + 1e-6].abs() < 1e-6).all()
    edge = mask[(distance > 0.305) & (distance < 0.3 + EDGE - 0.005)]
    assert ((edge > 0) & (edge < 1)).all()


def test_outline_mask_holds_the_particle_and_little_else(blobs):
    density = blobs.density(32)
    mask = outline_mask([density], 0.9, 0.15)
    assert mask.shape == density.shape
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert float((density * mask).sum() / density.sum()) > 0.92
    assert float(mask.mean()) < 0.25 * float(spherical_mask(32, 0.9).mean())


def test_outline_mask_tightens_as_the_map_sharpens(blobs):
    density = blobs.density(32)
    solid = outline_mask([density], 0.9, 0.01) == 1
    fine, coarse = (outline_mask([density], 0.9, detail) for detail in (0.1, 0.2))
    assert (fine[solid] == 1).all()
    assert (coarse >= fine).all()
    assert float((coarse > 0).float().mean()) > 1.5 * float((fine > 0).float().mean())


def test_outline_mask_drops_specks_and_fills_holes(blobs):
    density = blobs.density(32)
    density[16, 16, 28] = density.max()
    density[16:18, 16:18, 16:18] = 0
    mask = outline_mask([density], 0.9, 2 / 32)
    assert mask[16, 16, 16] == 1
    assert mask[16, 16, 28] == 0


def test_outline_mask_of_nothing_is_the_ball():
    density = torch.zeros(16, 16, 16)
    assert torch.equal(outline_mask([density], 0.8, 0.1), spherical_mask(16, 0.8))


def test_outline_mask_leaves_out_what_is_noise_in_either_map(blobs):
    density, g = blobs.density(32), torch.Generator().manual_seed(0)
    noise = 0.3 * float(density.max()) * torch.randn(2, 32, 32, 32, generator=g)
    shared = outline_mask((density + noise[0], density + noise[1]), 0.9, 0.1)
    alone = outline_mask([density + noise[0]], 0.9, 0.1)
    assert float(shared.mean()) < 0.5 * float(alone.mean())
    assert float((density * shared).sum() / density.sum()) > 0.9


def test_outline_mask_holds_what_is_darker_than_the_solvent(blobs):
    density = blobs.density(32)
    assert torch.equal(outline_mask([-density], 0.9, 0.1), outline_mask([density], 0.9, 0.1))


def test_outline_mask_holds_fainter_parts_where_there_is_less_noise(blobs):
    """A part of an eighth of the density is particle where it stands out of the noise, and is left out where it does not."""
    density, g = blobs.density(32), torch.Generator().manual_seed(0)
    part = torch.zeros_like(density)
    part[10:22, 10:22, 24:29] = 0.13 * float(density.max())
    clear, faint = (level * float(density.max()) * torch.randn(2, 32, 32, 32, generator=g) for level in (0.005, 0.06))
    within = [outline_mask(density + part + noise, 0.95, 0.03)[part > 0].mean() for noise in (clear, faint)]
    assert within[0] > 0.9
    assert within[1] < 0.2
