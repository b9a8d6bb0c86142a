"""Maps as the page's 3D view takes them: cropped, coarse enough, eight bits a voxel."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryospin.fourier import resample_map
from cryospin.report.contents import Maps
from cryospin.volume.halves import masked_fsc, wiener_filtered

LARGEST_BOX = 96
"""Voxels along a side: three maps of this size are 3.6 MB of a page."""

_SURFACE = 0.5
"""Of the density inside a particle, where its surface is."""

_UNMASKED = 0.05
"""Share of the box that the first contour encloses while there is no mask."""

_EDGE = 0.02


def surfaces(maps: Maps) -> dict[str, Any]:
    """The map and, where there are any, the half maps, filtered and masked as the map is.

    returns: `size` (x, y, z) in voxels, `voxel` in Å, `level` of the first contour (fraction of the highest density),
        and by each map's name its voxels as base64: unsigned bytes, 0 for nothing, 255 for its highest density; z fastest
    """
    named = {"map": maps.density}
    if maps.halves is not None and maps.mask is not None:
        fsc = masked_fsc(maps.halves, maps.mask)
        for name, half in zip(("half1", "half2"), maps.halves, strict=True):
            named[name] = wiener_filtered(half * maps.mask, fsc, whole=False)
    box = min(LARGEST_BOX, maps.density.shape[0])
    small = {name: resample_map(density, box).clamp_min(0) for name, density in named.items()}
    bytes_of = {name: (255 * d / d.max().clamp_min(1e-12)).round().to(torch.uint8) for name, d in small.items()}
    inside = torch.stack(list(bytes_of.values())).amax(0) > 255 * _EDGE
    z, y, x = (_extent(inside.any(dim=other)) for other in ((1, 2), (0, 2), (0, 1)))
    # For 3Dmol x varies slowest and z fastest.
    cropped = {name: values[z, y, x].permute(2, 1, 0).contiguous().numpy() for name, values in bytes_of.items()}
    return {
        "size": list(cropped["map"].shape),
        "voxel": maps.size_A / box if maps.voxel > 0 else 1.0,
        "level": _level(small["map"], maps, box),
        **{name: base64.b64encode(values.tobytes()).decode() for name, values in cropped.items()},
    }


def _extent(occupied: Tensor) -> slice:
    """From the first to the last occupied place along an axis, and one more on either side if there is one."""
    where = occupied.nonzero()[:, 0]
    if len(where) == 0:
        return slice(0, len(occupied))
    return slice(max(0, int(where[0]) - 1), min(len(occupied), int(where[-1]) + 2))


def _level(density: Tensor, maps: Maps, box: int) -> float:
    """Fraction of the highest density at which a contour is the particle's surface.

    A blurred solid has half of its inner density there. The inner density is the mean over the mask, each place weighted
    with its own density, so that solvent in the mask does not count.
    """
    highest = max(float(density.max()), 1e-12)
    if maps.mask is None:
        level = float(np.quantile(density.numpy(), 1 - _UNMASKED))
    else:
        inside = density[resample_map(maps.mask, box) > 0.5].double()
        level = _SURFACE * float(inside.square().sum() / inside.sum().clamp_min(1e-12))
    return float(np.clip(level / highest, 0.08, 0.8))
