"""What a run reconstructs from: everything that is fixed once the images are packed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels.types import Observations, Poses
from cryospin.noise import estimate_spectra, information, weighted
from cryospin.proposals.heads import INPUT_RADIUS
from cryospin.volume.accumulated import AccumulatedVolume
from cryospin.volume.mask import spherical_mask

SHIFT_SD, SHIFT_LIMIT = 0.03, 0.08
"""Prior of the particle's displacement and the farthest searched, fractions of the box."""


@dataclass(frozen=True)
class Problem:
    """Packed images with what is known of them before any pose is.

    observations: all images; their weights are 1, a stage sets its own
    pixel_size: Å, at the run's box
    mask_diameter: the particle's, fraction of the box
    group: point group imposed on the refinement, `(order, 3, 3)`
    early_group: point group imposed before that, `(order, 3, 3)`: the same, or C1
    last_shell: no frequency beyond this is used, cycles per box
    total: mean power of each noise group's images in each shell, float64 `(G, radius + 1)`
    noise: first estimate of their noise power, like `total`
    signal: first estimate of the volume's power before the CTF, float64 `(radius + 1,)`
    information: nats by which the right pose of an average image beats no particle, up to each shell
    """

    observations: Observations
    pixel_size: float
    mask_diameter: float
    group: Tensor
    early_group: Tensor
    last_shell: int
    total: Tensor
    noise: Tensor
    signal: Tensor
    information: Tensor

    @classmethod
    def pose(
        cls,
        observations: Observations,
        pixel_size: float,
        *,
        mask_diameter: float,
        group: Tensor,
        last_shell: int,
        early_group: Tensor | None = None,
    ) -> Problem:
        """Estimate the spectra of packed images; `early_group` is `group` where it is not given."""
        spectra = estimate_spectra(observations)
        return cls(
            observations=observations,
            pixel_size=pixel_size,
            mask_diameter=mask_diameter,
            group=group.to(observations.device),
            early_group=(group if early_group is None else early_group).to(observations.device),
            last_shell=min(last_shell, observations.disc.radius),
            total=spectra.total,
            noise=spectra.noise,
            signal=spectra.signal,
            information=information(observations, spectra),
        )

    def __len__(self) -> int:
        return len(self.observations.images)

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self.observations.device

    @property
    def box(self) -> int:
        """Pixels."""
        return self.observations.box

    @property
    def imposes_later(self) -> bool:
        """Whether the refinement has a symmetry that was not imposed before it."""
        return len(self.group) != len(self.early_group)

    @property
    def shift_sd(self) -> float:
        """Standard deviation of the prior on displacements, pixels."""
        return SHIFT_SD * self.box

    @property
    def shift_limit(self) -> float:
        """Farthest displacement searched, pixels."""
        return SHIFT_LIMIT * self.box

    def shell_with(self, nats: float, least: int, most: int) -> int:
        """First shell up to which an image carries this much information, within bounds."""
        enough = (self.information >= nats).nonzero()
        shell = int(enough[0]) if len(enough) else most
        return min(max(shell, least), most, self.last_shell)

    def seen(self, radius: int) -> Observations:
        """All images up to a frequency limit, or as far as heads look where that is farther."""
        return self.observations.up_to(max(radius, min(INPUT_RADIUS, self.last_shell)))

    def angstrom(self, shell: float) -> float:
        """Resolution in Å of a frequency in cycles per box."""
        return self.box * self.pixel_size / max(shell, 1e-9)

    def masked_volume(self, density: Tensor, radius: int) -> tuple[Tensor, FourierGrid]:
        """Lattice of a map within the particle's sphere, ready to be sliced up to a frequency limit."""
        grid = FourierGrid(radius)
        mask = spherical_mask(density.shape[-1], self.mask_diameter, device=density.device)
        return map_to_grid(density * mask, grid), grid

    def order(self, generator: torch.Generator) -> Tensor:
        """All images in random order."""
        return torch.randperm(len(self), generator=generator).to(self.device)

    def volume_of_noise(self, rows: Tensor, radius: int, generator: torch.Generator) -> AccumulatedVolume:
        """Some images in random poses: a start without structure, of about the right spectrum."""
        some = weighted(self.observations.up_to(radius).take(rows), self.total)
        poses = Poses(torch.arange(len(rows)), random_rotations(len(rows), generator), torch.zeros(len(rows), 2))
        volume = AccumulatedVolume(FourierGrid(radius), self.early_group)
        volume.add(some, poses.to(self.device), torch.ones(len(rows), device=self.device))
        return volume
