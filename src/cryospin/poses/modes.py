"""The competing modes of each image's pose posterior."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryospin.geometry.rotations import chordal_distance_squared
from cryospin.geometry.symmetry import nearest_mate
from cryospin.kernels.types import Poses
from cryospin.state import State


@dataclass(frozen=True)
class Thinning:
    """Which hypotheses of an image are worth keeping.

    angle: radians below which two rotations count as one mode
    worse_by: nats behind the image's best beyond which a mode is given up
    at_most: modes to keep for an image
    group: point group `(order, 3, 3)` whose mates are one mode; C1 if None
    """

    angle: float
    worse_by: float = 20.0
    at_most: int = 12
    group: Tensor | None = None

    @classmethod
    def at(cls, radius: int, at_most: int = 12, group: Tensor | None = None) -> Thinning:
        """Rotations that a frequency limit cannot tell apart, closer than `1 / 2r`, are one mode."""
        return cls(0.5 / radius, at_most=at_most, group=group)


@dataclass(frozen=True)
class Modes:
    """Pose hypotheses with their misfits; an image has one or more, anywhere in the list.

    poses: n hypotheses
    misfit: float64 `(n,)`, nats; lower is more likely
    source: int64 `(n,)`, what proposed it; the numbers' meaning is the caller's
    """

    poses: Poses
    misfit: Tensor
    source: Tensor

    @classmethod
    def join(cls, *parts: Modes) -> Modes:
        """The hypotheses of several lists."""
        return cls(
            Poses.join([p.poses for p in parts]),
            torch.cat([p.misfit for p in parts]),
            torch.cat([p.source for p in parts]),
        )

    @classmethod
    def restored(cls, state: State) -> Modes:
        """The hypotheses whose state this is."""
        return cls(Poses(state["image"], state["rotation"], state["shift"]), state["misfit"], state["source"])

    def state(self) -> State:
        """Everything, by name."""
        return {**self.poses._asdict(), "misfit": self.misfit, "source": self.source}

    def __len__(self) -> int:
        return len(self.misfit)

    def to(self, device: torch.device) -> Modes:
        """The same hypotheses on a device."""
        return Modes(self.poses.to(device), self.misfit.to(device), self.source.to(device))

    def take(self, rows: Tensor) -> Modes:
        """Some of the hypotheses."""
        return Modes(self.poses.take(rows), self.misfit[rows], self.source[rows])

    def ranked(self) -> tuple[Modes, Tensor]:
        """The same hypotheses by image and, within an image, best first; and each one's rank from 0."""
        order = torch.argsort(self.misfit, stable=True)
        order = order[torch.argsort(self.poses.image[order], stable=True)]
        _, number, count = self.poses.image[order].unique_consecutive(return_inverse=True, return_counts=True)
        start = count.cumsum(0) - count
        return self.take(order), torch.arange(len(order), device=order.device) - start[number]

    def with_poses(self, poses: Poses, misfit: Tensor) -> Modes:
        """The same hypotheses after their poses were optimised."""
        return Modes(poses, misfit, self.source)

    def best(self) -> Modes:
        """The most likely hypothesis of each image, by image."""
        ranked, rank = self.ranked()
        return ranked.take(rank == 0)

    def responsibilities(self, sharpness: float = 1.0) -> Tensor:
        """Posterior probability of each hypothesis among those of its image, float32 `(n,)`."""
        count = int(self.poses.image.max()) + 1
        lowest = self.misfit.new_full((count,), torch.inf)
        lowest.scatter_reduce_(0, self.poses.image, self.misfit, "amin")
        p = torch.exp(-sharpness * (self.misfit - lowest[self.poses.image]))
        total = p.new_zeros(count).index_add_(0, self.poses.image, p)
        return (p / total[self.poses.image]).float()

    def distinct(self, thinning: Thinning) -> Modes:
        """Only the best of each group of near-equal hypotheses, ranked."""
        ranked, rank = self.ranked()
        _, number = ranked.poses.image.unique_consecutive(return_inverse=True)
        ranked = ranked.take(ranked.misfit - ranked.misfit[rank == 0][number] <= thinning.worse_by)
        ranked, rank = ranked.ranked()
        keep = torch.ones_like(rank, dtype=torch.bool)
        # Chordal distance squared is 2 angle^2 for small angles.
        nearest = 2 * thinning.angle**2
        for judge in range(int(rank.max())):
            later = (rank > judge).nonzero()[:, 0]
            earlier = later - rank[later] + judge
            # Whether the judge itself is kept was settled by those before it.
            later, earlier = later[keep[earlier]], earlier[keep[earlier]]
            own, other = ranked.poses.rotation[later], ranked.poses.rotation[earlier]
            other = other if thinning.group is None else nearest_mate(other, own, thinning.group)
            keep[later[chordal_distance_squared(own, other) < nearest]] = False
        kept = ranked.take(keep)
        _, rank = kept.ranked()
        return kept.take(rank < thinning.at_most)
