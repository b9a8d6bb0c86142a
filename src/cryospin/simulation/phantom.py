"""A made-up molecule: many domains of many sizes, without symmetry, from a seed."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

_DOMAINS = 14
_BEADS_PER_DOMAIN = 220


def phantom(box: int, pixel_size: float, seed: int = 0) -> Tensor:
    """Density of a made-up molecule about 60 % of the box across.

    Domains are packed one against another, from a seed, and each is a compact random walk of residues; two of them
    make an arm that spoils what symmetry chance left.

    returns: float32 `(box, box, box)`
    """
    rng = np.random.default_rng(seed)
    # The shape is drawn in a unit sphere, so box and pixel size only decide how finely it is sampled.
    centres, radii = _pack_domains(rng)
    beads = np.concatenate([_domain(rng, c, r) for c, r in zip(centres, radii, strict=True)])
    beads -= beads.mean(0)
    beads *= 0.30 * box / np.quantile(np.linalg.norm(beads, axis=1), 0.99)
    sigma = max(1.0, 4.0 / pixel_size)
    grid = np.zeros((box,) * 3)
    np.add.at(grid, tuple(np.rint(beads[:, ::-1]).astype(int).T + box // 2), 1.0)
    return torch.from_numpy(ndimage.gaussian_filter(grid, sigma)).float()


def _pack_domains(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres and radii of touching balls: each new one leans on one that is there, near the middle except the arm."""
    radii = rng.uniform(0.16, 0.34, _DOMAINS)
    centres = [np.zeros(3)]
    for i in range(1, _DOMAINS):
        arm = i >= _DOMAINS - 2
        parent = i - 1 if i == _DOMAINS - 1 else int(rng.integers(i))
        options = []
        for direction in rng.normal(size=(40, 3)):
            place = centres[parent] + direction / np.linalg.norm(direction) * 0.9 * (radii[parent] + radii[i])
            gap = min(np.linalg.norm(place - c) - 0.85 * (radii[i] + r) for c, r in zip(centres, radii, strict=False))
            reach = np.linalg.norm(place)
            options.append((gap < -0.05, -reach if arm else reach, tuple(place)))
        centres.append(np.array(min(options)[2]))
    return np.array(centres), radii


def _domain(rng: np.random.Generator, centre: np.ndarray, radius: float) -> np.ndarray:
    """Residues of one domain: a random walk folded back into a ball, `(n, 3)`."""
    steps = rng.normal(size=(_BEADS_PER_DOMAIN, 3)) * 0.35 * radius
    at, beads = np.zeros(3), []
    for step in steps:
        trial = at + step
        at = trial if np.linalg.norm(trial) < radius else at - 0.5 * step - 0.1 * at
        beads.append(at)
    return centre + np.array(beads)
