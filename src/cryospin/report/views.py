"""Class-like averages: particles seen from about the same side, beside the map's projection from there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryospin.evenly import evenly_spaced
from cryospin.fourier import CPU, FourierGrid, HalfDisc, map_to_grid, pack, unpack
from cryospin.kernels import dispatch as kernels
from cryospin.kernels.types import Observations, Poses
from cryospin.noise import in_the_mean, shell_mean
from cryospin.proposals.heads import turn_images

VIEWS = 10
_NEAREST = 100
_WITHIN_DEG, _LEAST = 12.0, 10
_CANDIDATES = 2000


@dataclass(frozen=True)
class Views:
    """Some sides of the particle, as the map and as the images show them.

    rotation: `(K, 3, 3)`
    projection: of the map, `(K, D, D)`
    average: of the particles nearest in view, CTF-corrected, `(K, D, D)`
    count: how many particles went into each average, `(K,)`
    spread_deg: their root mean square angle from the view, `(K,)`
    correlation: of projection and average, `(K,)`
    """

    rotation: Tensor
    projection: Tensor
    average: Tensor
    count: Tensor
    spread_deg: Tensor
    correlation: Tensor


def views_of(density: Tensor, observations: Observations, poses: Poses, radius: int) -> Views:
    """Sides far from each other, each with the average of up to 100 particles within 12 degrees of it, at least 10.

    density: `(d, d, d)`, the map
    observations: images with their noise weights, wherever they are
    poses: one for each image, in the order of the images, on the CPU
    radius: frequency limit of the pictures, cycles per box
    """
    o = observations.up_to(radius)
    grid, disc = FourierGrid(o.disc.radius), HalfDisc.build(o.disc.radius)
    chosen = distant_views(poses.rotation[:, 2])
    slices = kernels.slices(map_to_grid(density, grid), grid, poses.rotation[chosen], disc)
    projection = unpack(slices, disc, o.box)
    averages, counts, spreads = [], [], []
    for view, model in zip(poses.rotation[chosen], slices, strict=True):
        angle = (poses.rotation[:, 2] @ view[2]).clamp(-1, 1).acos()
        order = angle.argsort()[:_NEAREST]
        order = order[: max(_LEAST, int((angle[order] <= math.radians(_WITHIN_DEG)).sum()))]
        averages.append(_average(o.take(order).to(CPU), poses.take(order), view, model))
        counts.append(len(order))
        spreads.append(math.degrees(float((angle[order] ** 2).mean().sqrt())))
    average = torch.stack(averages)
    return Views(
        rotation=poses.rotation[chosen],
        projection=projection,
        average=average,
        count=torch.tensor(counts),
        spread_deg=torch.tensor(spreads),
        correlation=_correlation(projection, average),
    )


def distant_views(beams: Tensor, count: int = VIEWS) -> Tensor:
    """Particles whose views are far from each other, a view and its opposite being one: indices `(count,)` or fewer.

    Each is the farthest from those before it, which spreads them like the nodes of a net.

    beams: `(N, 3)` unit vectors
    """
    candidates = evenly_spaced(len(beams), _CANDIDATES)
    b = beams[candidates].double()
    # The first has the most company.
    chosen = [int((b @ b.T).abs().pow(20).sum(1).argmax())]
    nearness = (b @ b[chosen[0]]).abs()
    while len(chosen) < min(count, len(candidates)):
        chosen.append(int(nearness.argmin()))
        nearness = torch.maximum(nearness, (b @ b[chosen[-1]]).abs())
    return candidates[chosen]


def _average(o: Observations, poses: Poses, view: Tensor, model: Tensor) -> Tensor:
    """Mean of images turned into one view: `sum C X / (sum C^2 + N / S)`, as a Wiener filter has it.

    model: coefficients of the map's projection `(P,)`, whose power is taken for S
    """
    straight = o.images * o.ctf * o.disc.shift_phase(poses.shift, o.box).conj()
    between = view @ poses.rotation.mT
    # The turn about the beam that is nearest to the rotation between the two poses.
    angle = torch.atan2(between[:, 1, 0] - between[:, 0, 1], between[:, 0, 0] + between[:, 1, 1])
    images = turn_images(unpack(straight, o.disc, o.box)[:, None], angle, torch.zeros(len(angle), 2))
    mean = pack(images[:, 0].mean(0), o.disc)
    noise = shell_mean(1 / in_the_mean(o.weight, o).clamp_min(1e-12), o.disc)
    signal = shell_mean(model.real**2 + model.imag**2, o.disc)
    power = shell_mean((o.ctf**2).mean(0), o.disc)
    gain = 1 / (power + noise / (len(o.images) * signal).clamp_min(1e-12))
    return unpack(mean * gain[o.disc.shell].float(), o.disc, o.box)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Of images `(K, D, D)` pairwise."""
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)
