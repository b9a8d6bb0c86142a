"""What the kernels work on: packed observations and pose hypotheses, plain tensors with names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cryospin.fourier import HalfDisc
from cryospin.geometry.so3_grid import sorted_by_view

_BLOCK_COEFFICIENTS = 1 << 25
"""Of a block of images: enough for neighbours in view to share what the cache holds, little beside a volume's sums."""

_MAD_TO_SD = 1.4826
"""Of a normal distribution: its standard deviation over the median absolute deviation."""


class Observations(NamedTuple):
    """Packed images with what is known of each coefficient.

    images: complex64 `(N, P)`, orthonormal Fourier coefficients, the particle's shift still in them
    ctf: float32 `(N, P)`
    Both may be `DiskRows` instead of tensors, or wait in memory for a device; `take` and `blocks` bring them where the
    rest is.
    weight: float32 `(G, P)`, inverse noise variance for each noise group
    group: int64 `(N,)`, noise group of each image
    scale: float32 `(N,)`, contrast of each image relative to the volume
    disc: the coefficients' frequencies
    box: pixels; the unit of shifts is one of these pixels
    """

    images: Tensor
    ctf: Tensor
    weight: Tensor
    group: Tensor
    scale: Tensor
    disc: HalfDisc
    box: int

    def up_to(self, radius: int) -> Observations:
        """The same images with a lower frequency limit: views, nothing is copied."""
        count = self.disc.count(radius)
        return self._replace(
            images=self.images[:, :count],
            ctf=self.ctf[:, :count],
            weight=self.weight[:, :count],
            disc=self.disc.prefix(radius),
        )

    @property
    def device(self) -> torch.device:
        """Where what is computed from the images is."""
        return self.weight.device

    @property
    def resident(self) -> bool:
        """Whether the images themselves are there, too."""
        return isinstance(self.images, Tensor) and self.images.device == self.device

    def to(self, device: torch.device) -> Observations:
        """The same images on a device."""
        fields = {name: getattr(self, name).to(device) for name in ("images", "ctf", "weight", "group", "scale")}
        return self._replace(**fields, disc=HalfDisc.build(self.disc.radius, device))

    def take(self, rows: Tensor) -> Observations:
        """A copy of some images, on the device."""
        stored = rows.to(self.images.device) if isinstance(self.images, Tensor) else rows.cpu()
        images, ctf = self.images[stored].to(self.device), self.ctf[stored].to(self.device)
        return self._replace(images=images, ctf=ctf, group=self.group[rows], scale=self.scale[rows])

    def blocks(self, poses: Poses) -> Iterator[tuple[Observations, Poses, Tensor]]:
        """Hypotheses in blocks of neighbours in view, each with its images in memory.

        The blocks depend on the poses and the frequency limit alone, so that results are the same to the last bit whether
        the images are in memory or on disk.

        returns: observations, hypotheses whose `image` counts among these observations, and which hypotheses they are
        """
        order = sorted_by_view(poses.rotation)
        for rows in order.split(max(1, _BLOCK_COEFFICIENTS // len(self.disc))):
            some = poses.take(rows)
            if self.resident:
                yield self, some, rows
            else:
                images, place = some.image.unique(return_inverse=True)
                yield self.take(images), some._replace(image=place), rows


class Poses(NamedTuple):
    """Pose hypotheses; one image may have several.

    image: int64 `(n,)`, row in the observations
    rotation: float32 `(n, 3, 3)`
    shift: float32 `(n, 2)`, displacement of the particle (x, y) from the box centre, pixels
    """

    image: Tensor
    rotation: Tensor
    shift: Tensor

    def to(self, device: torch.device) -> Poses:
        """The same hypotheses on a device."""
        return Poses(*(field.to(device) for field in self))

    def take(self, rows: Tensor) -> Poses:
        """Some of the hypotheses."""
        return Poses(self.image[rows], self.rotation[rows], self.shift[rows])

    @classmethod
    def join(cls, parts: list[Poses]) -> Poses:
        """Hypotheses of several lists one after another."""
        return cls(*(torch.cat(field) for field in zip(*parts, strict=True)))


class Fit(NamedTuple):
    """How pose hypotheses fit their images.

    cross: `(n,)`, sum of weight * Re(conj(image) * model) at contrast 1
    power: `(n,)`, sum of weight * |model|^2 at contrast 1
    """

    cross: Tensor
    power: Tensor

    def misfit(self, scale: Tensor) -> Tensor:
        """Weighted squared residual less the image's own power: `scale^2 power - 2 scale cross`."""
        return scale * (scale * self.power - 2 * self.cross)

    @property
    def contrast(self) -> Tensor:
        """Likeliest contrast of each hypothesis' image, `(n,)`; its standard error is `1 / sqrt(2 power)`."""
        return self.cross / self.power.clamp_min(1e-9)

    def contrast_deviation(self) -> Tensor:
        """By how many standard errors each hypothesis' contrast departs from the median: `(n,)`."""
        contrast = self.contrast
        return (contrast - contrast.median()) * (2 * self.power).sqrt()

    def contrast_spread(self) -> Tensor:
        """Robust standard deviation of the contrasts in units of their standard error; 1 where noise alone moves them."""
        return _MAD_TO_SD * self.contrast_deviation().abs().median()


class NormalEquations(NamedTuple):
    """Quadratic model of the misfit of each hypothesis about its pose.

    Parameters are a lab-frame turn (3, radians) and the shift (2, pixels).

    cross, power: as in `Fit`
    gradient: `(n, 5)`, half the gradient of the misfit
    matrix: `(n, 5, 5)`, Gauss-Newton matrix, half the Hessian of the misfit
    """

    cross: Tensor
    power: Tensor
    gradient: Tensor
    matrix: Tensor

    @property
    def fit(self) -> Fit:
        """The misfit alone."""
        return Fit(self.cross, self.power)


class GridScores(NamedTuple):
    """Log-likelihoods of n images on a grid of 2G rotations, each at its best shift.

    best: float32 `(n, 2G)`, relative to an image without a particle, nats; G rotations and then the same turned
        by 180 degrees in the plane (`geometry.rotations.with_half_turns`)
    shift: int64 `(n, 2G)`, which shift was best
    """

    best: Tensor
    shift: Tensor


class GridExpectation(NamedTuple):
    """Images averaged over their posterior on a grid of 2G rotations and S shifts.

    A rotation and that turned by 180 degrees in the plane share a slice, the images of the second as their conjugates.

    numerator: complex64 `(G, P)`, weighted CTF-multiplied data, ready for insertion at each of the first G rotations
    denominator: float32 `(G, P)`, weighted squared CTF
    best: int64 `(n,)`, the most likely cell of each image, counted as `shift * 2G + rotation`
    """

    numerator: Tensor
    denominator: Tensor
    best: Tensor
