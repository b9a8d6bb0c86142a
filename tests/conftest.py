"""A small molecule whose projections are known in closed form, and random problems for the kernels."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

# As the command line has it, and before PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import torch

# Where there is no device, the Triton kernels are tried in Triton's interpreter, and Triton decides that when it is
# imported, which parts of PyTorch may do.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
from torch import Tensor

from cryospin.formats.star import read_star
from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels import cpu
from cryospin.kernels.types import Observations, Poses
from cryospin.simulation import ImagingConditions, simulate

# One thread, so that the time does not depend on what else the machine does; test_threads tries more.
torch.set_num_threads(1)


@dataclass(frozen=True)
class Blobs:
    """Gaussian blobs: density, transform and projections are sums of closed forms.

    position: `(n, 3)` (x, y, z), width and weight `(n,)`; lengths are fractions of the box
    """

    position: Tensor
    width: Tensor
    weight: Tensor

    def with_mates(self, group: Tensor) -> Blobs:
        """These blobs and their mates under a point group `(order, 3, 3)` about the centre."""
        position = torch.cat([self.position @ turn.double().T for turn in group])
        return Blobs(position, self.width.repeat(len(group)), self.weight.repeat(len(group)))

    def density(self, box: int) -> Tensor:
        """Samples at voxel centres, `(box, box, box)`, such that sums over voxels are sums of weights."""
        k = torch.arange(box, dtype=torch.float64) - box // 2
        out = torch.zeros(box, box, box, dtype=torch.float64)
        for p, w, a in zip(self.position * box, self.width * box, self.weight, strict=True):
            gx, gy, gz = (torch.exp(-((k - c) ** 2) / (2 * w**2)) / (w * math.sqrt(2 * math.pi)) for c in p)
            out += a * gz[:, None, None] * gy[None, :, None] * gx
        return out.float()

    def image(self, box: int, rotation: Tensor, shift: Tensor) -> Tensor:
        """Projection along z of the molecule turned by `rotation` and moved by `shift` (x, y) pixels: `(box, box)`."""
        k = torch.arange(box, dtype=torch.float64) - box // 2
        lab = (rotation.double() @ self.position.T).T[:, :2] * box + shift.double()
        out = torch.zeros(box, box, dtype=torch.float64)
        for (x, y), w, a in zip(lab, self.width * box, self.weight, strict=True):
            gx, gy = (torch.exp(-((k - c) ** 2) / (2 * w**2)) / (w * math.sqrt(2 * math.pi)) for c in (x, y))
            out += a * gy[:, None] * gx
        return out.float()

    def transform(self, frequencies: Tensor) -> Tensor:
        """Integral transform at `(..., 3)` cycles per box."""
        f = frequencies.double()
        phase = -2 * math.pi * (f @ self.position.T)
        size = self.weight * torch.exp(-2 * math.pi**2 * (f**2).sum(-1, keepdim=True) * self.width**2)
        return torch.polar(size, phase).sum(-1)


@pytest.fixture(scope="session")
def blobs() -> Blobs:
    """Nine blobs within a third of the box, without symmetry."""
    generator = torch.Generator().manual_seed(5)
    position = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    position = 0.22 * position / position.norm(dim=1, keepdim=True) * torch.linspace(0.3, 1, 9)[:, None]
    width = torch.linspace(0.045, 0.07, 9, dtype=torch.float64)
    weight = torch.linspace(0.6, 1.4, 9, dtype=torch.float64) * 100
    return Blobs(position, width, weight)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


@pytest.fixture
def rotations(generator) -> Tensor:
    return random_rotations(12, generator)


@pytest.fixture(scope="session")
def problem() -> SimpleNamespace:
    """A random volume and random images with nothing left at 1 or 0: what every kernel is tried on."""
    g = torch.Generator().manual_seed(2)
    grid, disc, box, count, hypotheses = FourierGrid(7, padding=2), HalfDisc.build(6), 18, 5, 11
    observations = Observations(
        images=torch.randn(count, len(disc), generator=g, dtype=torch.complex64),
        ctf=torch.rand(count, len(disc), generator=g) * 2 - 1,
        weight=torch.rand(3, len(disc), generator=g) + 0.3,
        group=torch.tensor([2, 0, 1, 1, 0]),
        scale=torch.rand(count, generator=g) + 0.5,
        disc=disc,
        box=box,
    )
    poses = Poses(
        image=torch.randint(count, (hypotheses,), generator=g),
        rotation=random_rotations(hypotheses, g),
        shift=torch.randn(hypotheses, 2, generator=g) * 2,
    )
    return SimpleNamespace(
        grid=grid,
        disc=disc,
        observations=observations,
        poses=poses,
        volume=torch.randn(grid.shape, generator=g, dtype=torch.complex64),
        responsibility=torch.rand(hypotheses, generator=g),
        shifts=torch.randn(4, 2, generator=g) * 2,
        log_prior=-torch.rand(4, generator=g),
        rotations=random_rotations(20, g),
    )


def observe(
    volume: Tensor,
    grid: FourierGrid,
    poses: Poses,
    disc: HalfDisc,
    box: int,
    noise: float = 0.0,
    seed: int = 0,
) -> Observations:
    """Images of a volume at given poses with an oscillating CTF and white noise of a given deviation."""
    g = torch.Generator().manual_seed(seed)
    count = len(poses.rotation)
    rate = 0.02 + 0.03 * torch.rand(count, 1, generator=g)
    ctf = torch.sin(0.1 + rate * (disc.kx**2 + disc.ky**2))
    signal = cpu.slices(volume, grid, poses.rotation, disc) * ctf * disc.shift_phase(poses.shift, box)
    signal = signal + noise * torch.randn(signal.shape, generator=g, dtype=signal.dtype)
    return Observations(
        images=signal,
        ctf=ctf,
        weight=torch.full((1, len(disc)), 1 / max(noise, 1e-1) ** 2),
        group=torch.zeros(count, dtype=torch.long),
        scale=torch.ones(count),
        disc=disc,
        box=box,
    )


@pytest.fixture(name="observe", scope="session")
def _observe():
    return observe


@pytest.fixture(scope="session")
def simulated(tmp_path_factory, blobs) -> Path:
    """A folder with 12 noisy images of 24 pixels, their table, their truth and the map."""
    folder = tmp_path_factory.mktemp("simulated")
    simulate(blobs.density(24), 6.0, 12, folder, ImagingConditions(snr=20.0, astigmatism=1500.0), seed=1)
    return folder


@pytest.fixture
def table(simulated, tmp_path) -> SimpleNamespace:
    """A copy of the simulated set to spoil: `edit(old, new)` rewrites the table, `read()` reads it."""
    star, stack = tmp_path / "particles.star", tmp_path / "particles.mrcs"
    star.write_bytes((simulated / "truth.star").read_bytes())
    stack.write_bytes((simulated / "particles.mrcs").read_bytes())

    def edit(old: str, new: str, count: int = -1) -> None:
        text = star.read_text()
        assert old in text
        star.write_text(text.replace(old, new, count))

    def column(name: str, row: int, value: str) -> None:
        """Replace one value of the particles block; rows count from 0."""
        lines = star.read_text().splitlines()
        start = lines.index("data_particles")
        labels = [i for i in range(start, len(lines)) if lines[i].startswith("_rln")]
        where = next(i for i, line in enumerate(labels) if lines[line].split()[0] == f"_{name}")
        target = labels[-1] + 1 + row
        words = lines[target].split()
        words[where] = value
        lines[target] = " ".join(words)
        star.write_text("\n".join(lines) + "\n")

    return SimpleNamespace(star=star, stack=stack, folder=tmp_path, edit=edit, column=column, read=lambda: read_star(star))
