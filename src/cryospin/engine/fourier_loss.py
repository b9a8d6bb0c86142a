"""How well slices fit images, as methods that learn by gradient descent measure it."""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.fourier import HalfDisc
from cryospin.kernels.types import Observations, Poses
from cryospin.volume.hartley import Slicer


class FourierLoss:
    """Mean residual of an image's coefficients over the disc, absolute (`l1`) or squared (`l2`).

    The published loss runs over the whole disc of a `(D + 1, D + 1)` grid. Images and slices are Hermitian, so opposite
    coefficients have equal residuals and the packed half-disc gives the same mean once frequency 0 counts half.
    """

    def __init__(self, kind: str, disc: HalfDisc) -> None:
        self.squared = kind == "l2"
        weight = torch.ones(len(disc), device=disc.shell.device)
        weight[0] = 0.5
        self.weight = weight / weight.sum()

    def of_images(self, slices: Tensor, observations: Observations, poses: Poses) -> Tensor:
        """Loss of each hypothesis, `(n,)`; slices `(n, P)` are those of the poses' rotations."""
        o, image = observations, poses.image
        model = slices * o.ctf[image] * o.disc.shift_phase(poses.shift, o.box)
        residual = (model - o.images[image]).abs()
        return (residual**2 if self.squared else residual) @ self.weight

    def __call__(self, slicer: Slicer, observations: Observations, poses: Poses) -> Tensor:
        """Loss of each hypothesis `(n,)`, with gradients to all that the slices depend on."""
        return self.of_images(slicer(poses.rotation, observations.disc), observations, poses)


def best_shifts(slices: Tensor, observations: Observations, image: Tensor, shifts: Tensor) -> Tensor:
    """The displacement, of several, at which each slice correlates best with its image: `(n, 2)`, pixels.

    slices: `(n, P)`; image: `(n,)`, row in the observations; shifts: `(S, 2)`
    """
    o = observations
    product = o.images[image].conj() * slices * o.ctf[image]
    phase = o.disc.shift_phase(shifts, o.box)
    # Re(product * phase), as one product of real matrices.
    both, turned = (torch.view_as_real(x.resolve_conj()).flatten(1) for x in (product, phase.conj()))
    score = both @ turned.T
    return shifts[score.argmax(1)]
