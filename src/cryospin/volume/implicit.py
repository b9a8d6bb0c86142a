"""A volume as a neural network over Fourier space, in the manner of cryoAI's FourierNet (Levy et al., ECCV 2022)."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from cryospin.fourier import FourierGrid, HalfDisc, grid_to_map, interpolation_envelope
from cryospin.volume.hartley import Slicer

_MODULANT = (3, 40.0)
_ENVELOPE = (2, 30.0)
"""Hidden layers and frequency factor of the two networks."""

_CHUNK = 1 << 15


class ImplicitVolume(nn.Module):
    """`F(k) = exp(a(k)) b(k)` with two sine networks a and b, real and imaginary part each.

    Frequencies are scaled so that the last shell lies at 1. The transform of a real map is Hermitian: the networks see only
    the half-space x > 0 (with half of the plane x = 0), and the rest is its conjugate.

    radius: last shell that can be read, cycles per box
    width: neurons in a layer
    """

    def __init__(self, radius: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.radius = radius
        self.modulant = _sine_network(width, *_MODULANT, generator)
        self.envelope = _sine_network(width, *_ENVELOPE, generator)

    def forward(self, frequencies: Tensor) -> Tensor:
        """Transform at frequencies in cycles per box, `(..., 3)` as (x, y, z): complex64 `(...)`."""
        x, y, z = frequencies.detach().unbind(-1)
        # 1 in one half of the space, -1 in the other, 0 at the origin.
        side = torch.where(x != 0, x, torch.where(y != 0, y, z)).sign()
        at = torch.where(side[..., None] < 0, -frequencies, frequencies) / self.radius
        out = torch.exp(self.envelope(at)) * self.modulant(at)
        return torch.complex(out[..., 0], side * out[..., 1])

    def slicer(self) -> Slicer:
        """A function that slices the volume, with gradients to the networks and the rotations."""

        def slices(rotations: Tensor, disc: HalfDisc) -> Tensor:
            return self(torch.einsum("nix,ip->npx", rotations[:, :2], torch.stack([disc.kx, disc.ky])))

        return slices

    @torch.no_grad()
    def density(self, box: int) -> Tensor:
        """The map, float32 `(box, box, box)`, without frequencies beyond the last shell."""
        grid = FourierGrid(self.radius, padding=1)
        device = next(self.parameters()).device
        inside = grid.nearest_shell(device) <= grid.radius
        values = torch.zeros(grid.shape, dtype=torch.complex64, device=device)
        values[inside] = torch.cat([self(part) for part in grid.points(device)[inside].split(_CHUNK)])
        return grid_to_map(values, grid, box) * interpolation_envelope(box, 1, device)


class _Sine(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.factor * x)


def _sine_network(width: int, hidden: int, factor: float, generator: torch.Generator) -> nn.Sequential:
    """A perceptron with sines for activations, its weights drawn as Sitzmann et al. (NeurIPS 2020) have them."""
    sizes = [3] + [width] * (hidden + 1) + [2]
    layers: list[nn.Module] = []
    for level, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layer = nn.Linear(inputs, outputs)
        bound = 1 / inputs if level == 0 else math.sqrt(6 / inputs) / factor
        with torch.no_grad():
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)
        layers += [layer, _Sine(factor)]
    return nn.Sequential(*layers[:-1])
