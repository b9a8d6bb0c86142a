"""A made-up molecule: a bulky body of many domains, without symmetry, from a seed."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

_DOMAINS = 20
_RADII = (0.46, 0.20)
"""Radius of the largest and of the smallest domain; the whole molecule has a radius of about 1."""

_OVERLAP = 0.80
_DRAFTS = 60
_ROD_LENGTH, _ROD_WIDTH = 0.24, 0.085
_BEADS_PER_ROD = 12
_EXTENT = 0.30


def phantom(box: int, pixel_size: float, seed: int = 0) -> Tensor:
    """Density of a made-up molecule about 60 % of the box across.

    Domains of many sizes are packed into a lopsided body with one protrusion; each is a chain of straight rods, as
    helices are, folded into a ball, and some are denser than others, as RNA is denser than protein.

    returns: float32 `(box, box, box)`
    """
    rng = np.random.default_rng(seed)
    # The shape is drawn at unit size, so box and pixel size only decide how finely it is sampled.
    centres, radii = _pack_domains(rng)
    weights = rng.uniform(0.7, 1.5, _DOMAINS)
    domains = [_fold_domain(rng, c, r) for c, r in zip(centres, radii, strict=True)]
    beads = np.concatenate(domains)
    weight = np.repeat(weights, [len(d) for d in domains])
    beads -= np.average(beads, axis=0, weights=weight)
    beads *= _EXTENT * box / np.quantile(np.linalg.norm(beads, axis=1), 0.97)
    blurred = ndimage.gaussian_filter(_splat(beads, weight, box), max(1.0, 4.0 / pixel_size))
    return torch.from_numpy(blurred)


def _pack_domains(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres `(n, 3)` and radii `(n,)` of overlapping balls, the largest first and near the middle.

    Each ball leans on one that is there already, wherever it fits closest to the middle of an ellipsoid; the last
    one goes as far out as it can.
    """
    radii = np.geomspace(*_RADII, _DOMAINS)
    stretch = np.array([1.0, 1.12, 0.85])
    centres = np.zeros((1, 3))
    for i in range(1, _DOMAINS):
        parent = rng.integers(i, size=_DRAFTS) if i < _DOMAINS - 1 else np.full(_DRAFTS, i - 1)
        direction = rng.normal(size=(_DRAFTS, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        places = centres[parent] + direction * (_OVERLAP * (radii[parent] + radii[i]))[:, None]
        apart = np.linalg.norm(places[:, None] - centres, axis=2) - _OVERLAP * (radii[:i] + radii[i])
        reach = np.linalg.norm(places / stretch, axis=1)
        crowded = np.maximum(-apart.min(1), 1e-6)
        cost = 20 * crowded + (reach if i < _DOMAINS - 1 else -reach)
        centres = np.vstack([centres, places[cost.argmin()]])
    return centres, radii


def _fold_domain(rng: np.random.Generator, centre: np.ndarray, radius: float) -> np.ndarray:
    """Beads of one domain, `(n, 3)`: rods end to end inside a ball, each in the emptiest direction on offer."""
    rods = max(4, round(4.19 * radius**3 / (_ROD_LENGTH * _ROD_WIDTH**2)))
    end = rng.normal(size=3) * 0.3 * radius
    middles = np.full((1, 3), 9.0)
    beads = []
    for _ in range(rods):
        turns = rng.normal(size=(24, 3))
        ends = end + turns * (_ROD_LENGTH / np.linalg.norm(turns, axis=1))[:, None]
        outside = np.maximum(np.linalg.norm(ends, axis=1) - radius, 0)
        halfway = (end + ends) / 2
        room = np.linalg.norm(halfway[:, None] - middles, axis=2).min(1)
        best = (np.minimum(room, 2 * _ROD_WIDTH) - 3 * outside).argmax()
        beads.append(np.linspace(end, ends[best], _BEADS_PER_ROD, endpoint=False))
        middles = np.vstack([middles, halfway[best]])
        end = ends[best]
    return centre + np.concatenate(beads)


def _splat(points: np.ndarray, weight: np.ndarray, box: int) -> np.ndarray:
    """Points `(n, 3)` as (x, y, z) from the box centre, each shared among its eight voxels: float32 `(box,) * 3`."""
    low = np.floor(points[:, ::-1]).astype(int)
    fraction = points[:, ::-1] - low
    grid = np.zeros((box,) * 3, np.float32)
    for corner in np.ndindex(2, 2, 2):
        share = np.where(corner, fraction, 1 - fraction).prod(1) * weight
        np.add.at(grid, tuple((low + corner + box // 2).T), share)
    return grid
