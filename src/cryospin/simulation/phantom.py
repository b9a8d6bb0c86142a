"""A made-up molecule: a bulky body of many domains, without symmetry, from a seed."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

_DOMAINS = 20
_RADII = (0.44, 0.20)
"""Radius of the largest and of the smallest domain; the whole molecule has a radius of about 1."""

_OVERLAP = 0.78
_LAYOUTS, _PLACES, _AXES = 64, 60, 96
_SPRAWL = 0.5
"""Weight of the farthest domain's distance against the symmetry, when layouts are judged."""

_ROD_LENGTH, _ROD_WIDTH = 0.24, 0.085
_BEADS_PER_ROD = 12
_EXTENT = 0.30


def phantom(box: int, pixel_size: float, seed: int = 0) -> Tensor:
    """Density of a made-up molecule about 60 % of the box across.

    Domains of many sizes are packed into a lopsided body with one protrusion; each is a chain of straight rods, as
    helices are, folded into a ball, and some are denser than others, as RNA is denser than protein. Of several such
    layouts the one is taken that is at once compact and least symmetric.

    returns: float32 `(box, box, box)`
    """
    rng = np.random.default_rng(seed)
    # The shape is drawn at unit size, so box and pixel size only decide how finely it is sampled.
    centres, radii, weights = min((_lay_out(rng) for _ in range(_LAYOUTS)), key=_flaw)
    domains = [_fold_domain(rng, c, r) for c, r in zip(centres, radii, strict=True)]
    beads = np.concatenate(domains)
    weight = np.repeat(weights, [len(d) for d in domains])
    beads -= np.average(beads, axis=0, weights=weight)
    beads *= _EXTENT * box / np.quantile(np.linalg.norm(beads, axis=1), 0.97)
    blurred = ndimage.gaussian_filter(_splat(beads, weight, box), max(1.0, 4.0 / pixel_size))
    return torch.from_numpy(blurred)


def _lay_out(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres `(n, 3)`, radii `(n,)` and densities `(n,)` of overlapping balls, the largest first.

    Each ball leans on one that is there already, wherever it fits closest to the middle of its lobe: the body, a
    second one beside it, and a small one that sticks out.
    """
    radii = np.geomspace(*_RADII, _DOMAINS)
    densities = rng.choice([0.6, 1.0, 1.8], _DOMAINS, p=[0.3, 0.4, 0.3])
    lobes = np.vstack([np.zeros(3), _directions(rng, 2) * [[0.7], [0.9]]])
    lobe = rng.choice(3, _DOMAINS, p=[0.5, 0.3, 0.2])
    centres = np.zeros((1, 3))
    for i in range(1, _DOMAINS):
        parent = rng.integers(i, size=_PLACES)
        places = centres[parent] + _directions(rng, _PLACES) * (_OVERLAP * (radii[parent] + radii[i]))[:, None]
        gap = (np.linalg.norm(places[:, None] - centres, axis=2) - _OVERLAP * (radii[:i] + radii[i])).min(1)
        reach = np.linalg.norm(places - lobes[lobe[i]], axis=1)
        centres = np.vstack([centres, places[(reach - 20 * np.minimum(gap, -1e-6)).argmin()]])
    return centres, radii, densities


def _flaw(layout: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """What a layout is judged by, less being better: its symmetry and how far it sprawls."""
    centres = layout[0]
    return _twofold(*layout) + _SPRAWL * float(np.linalg.norm(centres - centres.mean(0), axis=1).max())


def _twofold(centres: np.ndarray, radii: np.ndarray, densities: np.ndarray) -> float:
    """Greatest correlation of a layout, as Gaussians, with itself turned by 180 degrees about any axis."""
    mass = densities * radii**3
    at = centres - np.average(centres, axis=0, weights=mass)
    axes = _directions(np.random.default_rng(0), _AXES)
    turned = 2 * (at @ axes.T).T[:, :, None] * axes[:, None] - at
    spread = 0.3 * (radii[:, None] ** 2 + radii**2)
    pair = mass[:, None] * mass / spread**1.5

    def overlap(other: np.ndarray) -> np.ndarray:
        square = ((at[:, None] - other[..., None, :, :]) ** 2).sum(-1)
        return (pair * np.exp(-square / (2 * spread))).sum((-2, -1))

    return float((overlap(turned) / overlap(at)).max())


def _directions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Unit vectors, evenly distributed, `(count, 3)`."""
    x = rng.normal(size=(count, 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _fold_domain(rng: np.random.Generator, centre: np.ndarray, radius: float) -> np.ndarray:
    """Beads of one domain, `(n, 3)`: rods end to end inside a ball, each in the emptiest direction on offer."""
    rods = max(4, round(4.19 * radius**3 / (_ROD_LENGTH * _ROD_WIDTH**2)))
    end = rng.normal(size=3) * 0.3 * radius
    middles = np.full((1, 3), 9.0)
    beads = []
    for _ in range(rods):
        ends = end + _ROD_LENGTH * _directions(rng, 24)
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
