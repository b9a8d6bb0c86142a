from __future__ import annotations

import pytest
import torch

from cryospin.fourier import HalfDisc
from cryospin.kernels import cpu, reference
from cryospin.kernels.types import Observations

BOTH = pytest.mark.parametrize("kernels", [reference, cpu], ids=["reference", "cpu"])


@pytest.fixture(scope="module")
def grid(problem):
    cut = reference.slices(problem.volume, problem.grid, problem.rotations, problem.disc)
    return cut * 0.3, problem.observations, problem.shifts, problem.log_prior


def log_posterior(cut, o, shifts, log_prior):
    """The definition, image by image: squared residuals against those of an empty image, plus the prior.

    Of the slices and then of their conjugates, which the rotations turned by 180 degrees in the plane have.
    """
    cut = torch.cat([cut, cut.conj()])
    out = torch.empty(len(o.images), len(shifts), len(cut), dtype=torch.float64)
    for i, (image, ctf) in enumerate(zip(o.images, o.ctf, strict=True)):
        weight = o.weight[o.group[i]].double()
        for s in range(len(shifts)):
            model = cut * o.disc.shift_phase(shifts[s : s + 1], o.box) * ctf * o.scale[i]
            gain = (weight * image.abs() ** 2).sum() - (weight * (image - model).abs() ** 2).sum(1)
            out[i, s] = gain + log_prior[s]
    return out


@BOTH
def test_scores_are_the_drop_of_the_squared_residual(kernels, grid):
    want = log_posterior(*grid)
    scores = kernels.grid_scores(*grid)
    torch.testing.assert_close(scores.best.double(), want.amax(1), rtol=1e-4, atol=1e-2)
    assert torch.equal(scores.shift, want.argmax(1))
    assert len(scores.shift.unique()) > 1


@BOTH
def test_entropies_are_those_of_the_sharpened_posterior(kernels, grid):
    sharpness = torch.tensor([1e-9, 0.02, 0.1, 1.0])
    p = torch.softmax(sharpness.double()[:, None] * log_posterior(*grid).flatten(1)[:, None], -1)
    want = -(p * p.clamp_min(1e-300).log()).sum(-1)
    got = kernels.grid_entropies(*grid, sharpness)
    torch.testing.assert_close(got.double(), want, rtol=1e-3, atol=2e-3)
    cells = 2 * len(grid[0]) * len(grid[2])
    torch.testing.assert_close(got[:, 0].exp(), torch.full((len(got),), float(cells)), rtol=1e-3, atol=0)


@BOTH
@pytest.mark.parametrize("sharpness", [0.05, 1.0])
def test_expectation_weights_images_with_their_posterior(kernels, grid, sharpness):
    cut, o, shifts, _ = grid
    scores = log_posterior(*grid)
    p = torch.softmax(sharpness * scores.flatten(1), 1).view_as(scores)
    numerator = torch.zeros(len(cut), len(o.disc), dtype=torch.complex128)
    denominator = torch.zeros(len(cut), len(o.disc), dtype=torch.float64)
    for i in range(len(o.images)):
        transfer = (o.ctf[i] * o.scale[i]).double()
        weight = o.weight[o.group[i]].double()
        for s in range(len(shifts)):
            moved = o.images[i] * o.disc.shift_phase(shifts[s : s + 1], o.box)[0].conj()
            own, turned = p[i, s, :, None].chunk(2)
            numerator += weight * transfer * (own * moved + turned * moved.conj())
            denominator += (own + turned) * (weight * transfer**2)
    got = kernels.grid_expectation(*grid, sharpness)
    torch.testing.assert_close(got.numerator.to(numerator.dtype), numerator, rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(got.denominator.double(), denominator, rtol=1e-3, atol=1e-3)
    assert torch.equal(got.best, scores.flatten(1).argmax(1))


@BOTH
def test_every_image_is_shared_out_whole(kernels, grid):
    o = grid[1]
    total = ((o.ctf * o.scale[:, None]) ** 2 * o.weight[o.group]).sum(0)
    got = kernels.grid_expectation(*grid, 0.2).denominator.sum(0)
    torch.testing.assert_close(got, total, rtol=1e-4, atol=1e-4)


def test_cpu_works_in_blocks_without_a_seam(grid, monkeypatch):
    whole = cpu.grid_expectation(*grid, 0.1), cpu.grid_scores(*grid), cpu.grid_entropies(*grid, torch.tensor([0.1]))
    monkeypatch.setattr("cryospin.kernels.cpu.scoring._SCORES_AT_ONCE", 4 * len(grid[0]) * len(grid[2]))
    split = cpu.grid_expectation(*grid, 0.1), cpu.grid_scores(*grid), cpu.grid_entropies(*grid, torch.tensor([0.1]))
    assert torch.equal(split[0].best, whole[0].best)
    pairs = (split[0].numerator, whole[0].numerator), (split[0].denominator, whole[0].denominator)
    for some, all_at_once in (*pairs, (split[1].best, whole[1].best), (split[2], whole[2])):
        # Products of another size may be rounded in another way.
        assert float((some - all_at_once).norm()) < 1e-2 * float(all_at_once.norm())


def test_coarse_products_move_scores_by_little_beside_their_noise():
    """At sizes where processors take their short cuts: images of 100 nats against 1,000 slices."""
    g = torch.Generator().manual_seed(0)
    disc = HalfDisc.build(9)
    slices = torch.randn(1000, len(disc), dtype=torch.complex64, generator=g)
    transfer = torch.rand(64, len(disc), generator=g)
    strength = (100 / (transfer**2 * slices[:64].abs() ** 2).sum(1)).sqrt()
    noise = torch.randn(64, len(disc), dtype=torch.complex64, generator=g)
    observations = Observations(
        images=slices[:64] * transfer * strength[:, None] + noise,
        ctf=transfer,
        weight=torch.ones(1, len(disc)),
        group=torch.zeros(64, dtype=torch.long),
        scale=strength,
        disc=disc,
        box=32,
    )
    still = torch.zeros(1, 2), torch.zeros(1)
    fast, exact = (k.grid_scores(slices, observations, *still).best for k in (cpu, reference))
    assert torch.equal(exact.argmax(1), torch.arange(64))
    assert float((fast - exact).square().mean().sqrt()) < 0.1
    assert float((fast - exact).abs().max()) < 1.0
