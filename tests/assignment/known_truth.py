"""Runs that know the truth, and heads that do."""

from __future__ import annotations

import json

import torch

from cryospin.formats.star import read_poses
from cryospin.formats.tensors import write_tensors
from cryospin.formats.volume import read_map, write_map
from cryospin.fourier import FourierGrid, map_to_grid
from cryospin.kernels.types import Poses
from cryospin.noise import weighted
from cryospin.particles import ParticleSet
from cryospin.poses.gauss_newton import fits_of
from cryospin.proposals.heads import Encoder

BOX, PIXEL, COUNT = 32, 6.0, 120
MEASURED = {
    "noise": torch.full((BOX // 2,), 1.0, dtype=torch.float64),
    "contrast": torch.tensor(1.0),
    "spread": torch.tensor(1.0),
    "limit": torch.tensor(14),
}


def run_that_knows(folder, data, symmetry):
    (folder / "checkpoints").mkdir()
    (folder / "config.toml").write_text(f'symmetry = "{symmetry}"\ninvert = false\nseed = 0\n')
    (folder / "checkpoints" / "finished.json").write_text(json.dumps({}))
    write_map(folder / "map.mrc", gain(data) * true_density(data), PIXEL)
    write_tensors(folder / "checkpoints" / "model.safetensors", MEASURED)
    torch.manual_seed(0)
    write_tensors(folder / "checkpoints" / "heads.safetensors", Encoder().state_dict())
    return folder


def true_density(data):
    return read_map(data / "truth.mrc")[0]


def true_poses(data):
    true = read_poses(data / "truth.star")
    return Poses(torch.arange(COUNT), true.rotation.float(), (true.shift / PIXEL).float())


def gain(data):
    """Contrast of the packed images relative to the true map, by least squares at the true poses."""
    packed, grid = ParticleSet.load(data / "particles.star").pack(BOX), FourierGrid(14)
    seen = weighted(packed.observations.up_to(14), torch.ones(15, dtype=torch.float64))
    fit = fits_of(map_to_grid(true_density(data), grid), grid, seen, true_poses(data))
    return float(fit.cross.sum() / fit.power.sum())


def knowing(data, monkeypatch, heads):
    """Let heads guess the true views, some degrees off, at any angle in the plane."""
    tilt = torch.linalg.matrix_exp(torch.tensor([[0, 0, 0.08], [0, 0, -0.06], [-0.08, 0.06, 0]]))
    turned = tilt @ read_poses(data / "truth.star").rotation.float()
    images = ParticleSet.load(data / "particles.star").pack(BOX).observations.images

    def propose(observations):
        # Which image it is shows in the data themselves.
        some = observations.images[:, :20]
        row = (some[:, None] - images[None, :, :20]).abs().sum(2).argmin(1)
        rotation = turned[row][:, None].expand(-1, 7, -1, -1).flatten(0, 1)
        return Poses(torch.arange(len(row)).repeat_interleave(7), rotation, torch.zeros(7 * len(row), 2))

    monkeypatch.setattr(heads, "propose", propose)
