"""A map as a solid lit from the viewer's side, without a renderer."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cryospin.fourier import resample_map

_LIGHT = np.array([0.35, 0.45, 0.82])
_AMBIENT = 0.25
_FINEST = 96


def shaded_surface(density: Tensor, share: float = 0.12) -> np.ndarray:
    """Brightness of a map's surface seen along -z, from 0 to 1, float `(d, d)`; NaN where there is nothing.

    A ray for each pixel ends where the density first exceeds a level, between two voxels; the surface is lit by the
    angle between light and gradient.

    density: `(d, d, d)` as `[z, y, x]`; small ones are drawn on a finer grid
    share: of the voxels within the ball that fills the box, how many lie above the level
    """
    box = max(density.shape[-1], _FINEST)
    fine = resample_map(density.float(), box).numpy()
    x = np.arange(box) - box // 2
    ball = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 < (box / 2) ** 2
    fine = np.where(ball, fine, fine.min())
    level = np.quantile(fine[ball], 1 - share)
    down = fine[::-1]
    above = down > level
    first = above.argmax(0)
    hit = above.any(0)
    rows, columns = np.nonzero(hit)
    at = first[hit]
    over, before = down[at, rows, columns], down[np.maximum(at - 1, 0), rows, columns]
    share_beyond = np.where(at > 0, (over - level) / np.maximum(over - before, 1e-12), 0.0)
    gradient = np.stack(np.gradient(down))
    near = gradient[:, at, rows, columns]
    normal = near + share_beyond * (gradient[:, np.maximum(at - 1, 0), rows, columns] - near)
    # Outward is down the gradient; the first axis runs away from the viewer.
    normal = np.stack([-normal[2], -normal[1], normal[0]])
    normal /= np.maximum(np.linalg.norm(normal, axis=0), 1e-12)
    brightness = _AMBIENT + (1 - _AMBIENT) * np.clip(np.tensordot(_LIGHT / np.linalg.norm(_LIGHT), normal, 1), 0, 1)
    image = np.full(hit.shape, np.nan)
    image[hit] = brightness
    return image
