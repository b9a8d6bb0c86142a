"""Auto-encoding against the published formulas, written out plainly."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cryospin.engine.autoencode import AutoEncoding, batches
from cryospin.engine.learning import Learning
from cryospin.engine.problem import Problem
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid, pack
from cryospin.geometry.rotations import distance_deg, exponential, half_turned, in_plane, random_rotations
from cryospin.kernels import cpu as kernels
from cryospin.kernels.types import Observations, Poses
from cryospin.presets.learned import assemble

BOX, RADIUS, COUNT, HEADS = 16, 7, 6, 3
DISC = HalfDisc.build(RADIUS)


def contrast_transfer(kx, ky):
    """An astigmatic oscillation, `(COUNT, ...)`."""
    rate = torch.linspace(0.05, 0.1, COUNT, dtype=torch.float64).view(-1, *[1] * kx.ndim)
    return torch.sin(0.3 + rate * (1.1 * kx**2 + 0.9 * ky**2 + 0.1 * kx * ky))


@pytest.fixture(scope="module")
def images():
    return torch.randn(COUNT, BOX, BOX, generator=torch.Generator().manual_seed(3)) * 2


@pytest.fixture(scope="module")
def problem(images):
    observations = Observations(
        images=pack(images, DISC),
        ctf=contrast_transfer(DISC.kx.double(), DISC.ky.double()).float(),
        weight=torch.ones(1, len(DISC)),
        group=torch.zeros(COUNT, dtype=torch.long),
        scale=torch.ones(COUNT),
        disc=DISC,
        box=BOX,
    )
    return Problem.pose(observations, 5.0, mask_diameter=0.84, group=torch.eye(3)[None], last_shell=RADIUS)


def dense_step(images, encoder, mantissa, exponent):
    """Losses, winners and gradients of one step: dense grids, double precision, nothing of the package.

    mantissa, exponent: `(n, n, n)` as `[z, y, x]`, centred
    """
    half, box = (len(mantissa) - 1) // 2, images.shape[-1]
    k = torch.arange(-box // 2, box // 2 + 1, dtype=torch.float64)
    ky, kx = torch.meshgrid(k, k, indexing="ij")
    inside = torch.hypot(kx, ky) < RADIUS + 0.5
    wave = torch.exp(-2j * math.pi * k[:, None] * (torch.arange(box) - box // 2) / box) / math.sqrt(box)
    spectra = torch.einsum("yp,npq,xq->nyx", wave, images.double().to(wave.dtype), wave) * inside
    seen = torch.einsum("yp,nyx,xq->npq", wave.conj(), spectra, wave.conj()).real

    weights = {name: p.detach().double().requires_grad_() for name, p in encoder.named_parameters()}
    rotations = dense_encoder(seen, weights, encoder)
    m, e = (x.detach().double().requires_grad_() for x in (mantissa, exponent))
    plane = torch.stack([kx, ky, torch.zeros_like(kx)], -1)
    # A row vector times R is R^T times the vector.
    at = torch.einsum("yxi,nhij->nhyxj", plane, rotations) / half
    both = torch.stack([m, e])[None]
    read = nn.functional.grid_sample(both, at.reshape(1, 1, 1, -1, 3), align_corners=True).reshape(2, *at.shape[:-1])
    hartley = read[0] * torch.exp(read[1])
    opposite = hartley.flip(-1, -2)
    model = torch.complex((opposite + hartley) / 2, (opposite - hartley) / 2) * contrast_transfer(kx, ky)[:, None]
    residual = (model - spectra[:, None]).abs()
    losses = (residual * inside).sum((-1, -2)) / inside.sum()
    loss, winner = losses.min(1)
    loss.mean().backward()
    gradients = {name: p.grad for name, p in weights.items()}
    return SimpleNamespace(losses=loss.detach(), winner=winner, mantissa=m.grad, exponent=e.grad, encoder=gradients)


def dense_encoder(images, weights, encoder):
    """Pyramid, trunk and heads from the encoder's own weights: rotations `(n, heads, 3, 3)`."""
    x = torch.arange(-5, 6, dtype=torch.float64)
    square = x[:, None] ** 2 + x**2
    channels = []
    for variance in (0.01, 0.1, 1.0, 10.0, 100.0):
        blur = torch.exp(-square / (2 * variance))
        blur = (blur / blur.sum())[None, None]
        image = nn.functional.conv2d(nn.functional.pad(images[:, None], (5, 5, 5, 5), mode="reflect"), blur)
        channels.append(0.45 + 0.226 * (image - image.mean((2, 3), keepdim=True)) / image.std((2, 3), keepdim=True))
    out = torch.cat(channels, 1)
    for i, layer in enumerate(encoder.trunk):
        if isinstance(layer, nn.Conv2d):
            out = nn.functional.conv2d(out, weights[f"trunk.{i}.weight"], weights[f"trunk.{i}.bias"], padding=1)
        elif isinstance(layer, nn.BatchNorm2d):
            mean, variance = out.mean((0, 2, 3), keepdim=True), out.var((0, 2, 3), correction=0, keepdim=True)
            scale, offset = (weights[f"trunk.{i}.{n}"][:, None, None] for n in ("weight", "bias"))
            out = (out - mean) / (variance + 1e-5).sqrt() * scale + offset
        elif isinstance(layer, nn.ReLU):
            out = out.clamp_min(0)
        elif isinstance(layer, nn.MaxPool2d):
            out = nn.functional.max_pool2d(out, 2)
        elif isinstance(layer, nn.AvgPool2d):
            out = nn.functional.avg_pool2d(out, 2)
    code, rotations = out.flatten(1), []
    for head in range(HEADS):
        h = code
        for i in (0, 3):
            h = (h @ weights[f"rotations.{head}.{i}.weight"].T + weights[f"rotations.{head}.{i}.bias"]).clamp_min(0)
            h = (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()
            h = h * weights[f"rotations.{head}.{i + 2}.weight"] + weights[f"rotations.{head}.{i + 2}.bias"]
        six = (h @ weights[f"rotations.{head}.6.weight"].T + weights[f"rotations.{head}.6.bias"]).unflatten(1, (3, 2))
        first = six[..., 0] / six[..., 0].norm(dim=1, keepdim=True)
        second = six[..., 1] - (first * six[..., 1]).sum(1, keepdim=True) * first
        second = second / second.norm(dim=1, keepdim=True)
        rotations.append(torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1))
    return torch.stack(rotations, 1)


def test_one_step_of_the_published_method(problem, images):
    options = Learning(heads=HEADS, channels=(4, 4, 6, 6, 6), features=(12, 8), shifts="none", batch=COUNT)
    stage = assemble(problem, options, seed=2)
    before = {name: p.detach().clone() for name, p in stage.volume.named_parameters()}
    stage.encoder.train()
    expected = dense_step(images, stage.encoder, **before)
    losses, winner = stage._learn(stage.observations)

    assert len(set(winner.tolist())) > 1, "more than one head wins"
    assert torch.equal(winner, expected.winner)
    torch.testing.assert_close(losses.double(), expected.losses, rtol=1e-4, atol=0)
    for name, parameter in stage.volume.named_parameters():
        gradient = getattr(expected, name)
        assert float(gradient.abs().max()) > 0
        torch.testing.assert_close(
            parameter.grad.double(), gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()), msg=name
        )
        # Adam's first step is the rate, against the gradient, wherever there is one.
        clear = gradient.abs() > 1e-3 * gradient.abs().max()
        moved = (parameter - before[name]).detach()[clear]
        torch.testing.assert_close(moved, -5e-3 * gradient[clear].sign().float(), rtol=1e-2, atol=1e-6)
    largest = max(float(g.abs().max()) for g in expected.encoder.values())
    for name, parameter in stage.encoder.named_parameters():
        gradient = expected.encoder[name]
        torch.testing.assert_close(parameter.grad.double(), gradient, rtol=1e-2, atol=1e-3 * largest, msg=name)


def test_steps_lower_the_loss(problem):
    options = Learning(heads=2, channels=(4, 4, 4, 4, 4), features=(8,), shifts="none", batch=3, volume_rate=0.05)
    stage = assemble(problem, options, seed=0)
    records = [stage.epoch() for _ in range(25)]
    assert records[-1].loss < 0.98 * records[0].loss
    assert all(sum(r.winners) == COUNT for r in records)
    assert len(stage.trace.guesses) == 25
    assert records[0].pose_change_deg is None
    assert records[1].pose_change_deg >= 0


def test_the_frequency_limit_rises_where_it_is_asked_to(problem):
    numbers = {"heads": 1, "channels": (4, 4, 4, 4, 4), "features": (8,), "shifts": "none", "encoding_epochs": 10}
    limits = {}
    for first in (0, 3):
        stage = assemble(problem, Learning(first_shell=first, **numbers), seed=0)
        limits[first] = [BOX * 5.0 / stage.epoch().frequency_limit_A for _ in range(10)]
    assert limits[0] == [RADIUS] * 10
    assert limits[3][0] == 3
    assert limits[3] == sorted(limits[3])
    assert limits[3][7:] == [RADIUS] * 3


class Stub(nn.Module):
    """An encoder that says what it is told to, whatever it sees."""

    def __init__(self, rotation, shift):
        super().__init__()
        self.rotation, self.shift, self.images = nn.Parameter(rotation), shift, None

    def forward(self, images):
        self.images = images
        return self.rotation, self.shift


class Known(nn.Module):
    """A volume that is right already."""

    def __init__(self, lattice, grid):
        super().__init__()
        self.lattice, self.grid = nn.Parameter(lattice), grid

    def slicer(self):
        return lambda rotations, disc: kernels.slices(self.lattice, self.grid, rotations, disc)


@pytest.fixture
def known(blobs, observe, generator):
    """A volume, five images of it, and their poses; whole pixels, so that images can be compared."""
    grid, disc = FourierGrid(9), HalfDisc.build(9)
    volume = Known(map_to_grid(blobs.density(24), grid), grid)
    true = Poses(torch.arange(5), random_rotations(5, generator), torch.randint(-2, 3, (5, 2), generator=generator).float())
    observations = observe(volume.lattice.detach(), grid, true, disc, 24, noise=0.1)
    problem = Problem.pose(observations, 5.0, mask_diameter=0.84, group=torch.eye(3)[None], last_shell=9)
    return SimpleNamespace(volume=volume, true=true, problem=problem)


def test_the_turned_copy_wins_where_its_pose_is_the_right_one(known, generator):
    wrong = random_rotations(5, generator)
    half_turn = in_plane(torch.full((5,), math.pi))
    copy_right = torch.tensor([True, False, True, True, False])[:, None, None]
    own = torch.where(copy_right, wrong, known.true.rotation)
    copies = torch.where(copy_right, half_turn @ known.true.rotation, wrong)
    stub = Stub(torch.cat([own, copies])[:, None], torch.cat([known.true.shift, -known.true.shift])[:, None])
    options = Learning(heads=1, symmetrised=True, shifts="head", loss="l2")
    stage = AutoEncoding(known.problem, stub, known.volume, options, torch.Generator())
    found = stage.guess(torch.arange(5))
    assert torch.equal(found.loss.argmin(1), copy_right[:, 0, 0].long())
    best = found.best(torch.arange(5))
    assert float(distance_deg(best.rotation, known.true.rotation).max()) < 0.01
    torch.testing.assert_close(best.shift, known.true.shift)
    assert stage.names == ["head 1", "head 1, turned"]
    # The encoder saw each image, and each turned by 180 degrees about the centre of the box.
    images, turned = stub.images.chunk(2)
    y, x = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    torch.testing.assert_close(turned, images[:, (24 - y) % 24, (24 - x) % 24])


def test_turned_poses_turn_back(generator):
    rotations = random_rotations(4, generator)
    half_turn = exponential(torch.tensor([[0.0, 0.0, math.pi]]))
    torch.testing.assert_close(half_turned(half_turn @ rotations), rotations, rtol=0, atol=1e-5)


def test_each_candidate_is_judged_at_its_best_shift(known, generator):
    rotation = torch.stack([random_rotations(5, generator), known.true.rotation], 1)
    stub = Stub(rotation, torch.zeros(5, 2, 2))
    options = Learning(heads=2, shifts="search", shift_limit=0.13)
    found = AutoEncoding(known.problem, stub, known.volume, options, torch.Generator()).guess(torch.arange(5))
    assert torch.equal(found.loss.argmin(1), torch.ones(5).long())
    torch.testing.assert_close(found.best(torch.arange(5)).shift, known.true.shift)


@pytest.mark.parametrize(("count", "size"), [(33, 32), (65, 32), (64, 32), (5, 32), (97, 16)])
def test_no_batch_is_left_with_one_image(count, size):
    parts = batches(torch.arange(count), size)
    assert torch.equal(torch.cat(parts), torch.arange(count))
    assert max(len(p) for p in parts) <= size
    assert min(len(p) for p in parts) >= min(count, size // 2)
