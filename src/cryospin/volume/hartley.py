"""An explicit volume in Hartley space, learned by gradient descent: what the published method reconstructs.

The Hartley transform of a real map is real: `H(k) = Re F(k) - Im F(k)`, so that

    F(k) = (H(-k) + H(k)) / 2 + i (H(-k) - H(k)) / 2 .

Each lattice point holds `H = mantissa * exp(exponent)`, two numbers that Adam changes by about as much per step whatever
the size of H, which spans orders of magnitude from the lowest to the highest frequency.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cryospin.fourier import FourierGrid, HalfDisc, grid_to_map, interpolation_envelope
from cryospin.kernels import dispatch as kernels

Slicer = Callable[[Tensor, HalfDisc], Tensor]
"""Central slices at rotations `(n, 3, 3)` on a half-disc: complex64 `(n, P)`."""


class HartleyVolume(nn.Module):
    """Mantissa and exponent of a map's Hartley transform on a cubic lattice, normal at first.

    As published, the trilinear interpolation reads mantissa and exponent, and their product is taken after it.

    radius: last shell that can be read, cycles per box
    padding: lattice points per cycle per box; 1 as published
    """

    def __init__(self, radius: int, padding: int, generator: torch.Generator) -> None:
        super().__init__()
        self.grid = FourierGrid(radius, padding)
        side = 2 * self.grid.half + 1
        self.mantissa = nn.Parameter(torch.randn(side, side, side, generator=generator))
        self.exponent = nn.Parameter(torch.randn(side, side, side, generator=generator))

    def slicer(self) -> Slicer:
        """A function that slices the volume as it stands, with gradients to volume and rotations."""
        mantissa, exponent = pair(self.mantissa, self.grid), pair(self.exponent, self.grid)

        def slices(rotations: Tensor, disc: HalfDisc) -> Tensor:
            m, e = (kernels.slices(lattice, self.grid, rotations, disc) for lattice in (mantissa, exponent))
            here, opposite = ((m.real + s * m.imag) * torch.exp(e.real + s * e.imag) for s in (-1, 1))
            return torch.complex((opposite + here) / 2, (opposite - here) / 2)

        return slices

    @torch.no_grad()
    def density(self, box: int) -> Tensor:
        """The map, float32 `(box, box, box)`, without frequencies beyond the last shell."""
        inside = self.grid.nearest_shell(self.mantissa.device) <= self.grid.radius
        values = pair(self.mantissa * self.exponent.exp(), self.grid) * inside
        # What is read between lattice points is their interpolation, whose map is narrowed by the envelope.
        envelope = interpolation_envelope(box, self.grid.padding, values.device)
        return grid_to_map(values, self.grid, box) * envelope**2


def pair(values: Tensor, grid: FourierGrid) -> Tensor:
    """Real lattice values as a Hermitian half-lattice that a slice kernel reads.

    `(f(-k) + f(k)) / 2 + i (f(-k) - f(k)) / 2` keeps both values of a pair, commutes with interpolation, and is the Fourier
    transform where f is a Hartley transform.

    values: `(2 half + 1,) * 3`; returns: complex64 of `grid.shape`
    """
    here = values[..., grid.half :]
    opposite = values.flip(-1, -2, -3)[..., grid.half :]
    return nn.functional.pad(torch.complex((opposite + here) / 2, (opposite - here) / 2), (0, 1))


def unpair(values: Tensor, grid: FourierGrid) -> Tensor:
    """The inverse of `pair`: complex `grid.shape` to real `(2 half + 1,) * 3`."""
    right = values[..., :-1]
    here, opposite = right.real - right.imag, right.real + right.imag
    return torch.cat([opposite.flip(-1, -2, -3)[..., : grid.half], here], dim=-1)
