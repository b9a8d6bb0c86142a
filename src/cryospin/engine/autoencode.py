"""Auto-encoding: an encoder guesses several poses for each image, and encoder and volume learn from the best.

Stage 1 of the published method, and the whole of cryoAI. Only the winner of an image has a gradient, so the
others are sliced without one.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cryospin.engine.diverging import refuse_diverged
from cryospin.engine.fourier_loss import FourierLoss, best_shifts
from cryospin.engine.learning import Learning
from cryospin.engine.problem import Problem
from cryospin.engine.record import EpochRecord
from cryospin.engine.trace import Trace
from cryospin.fourier import unpack
from cryospin.geometry.rotations import distance_deg, half_turned
from cryospin.kernels.types import Observations, Poses
from cryospin.proposals.pyramid import PyramidEncoder
from cryospin.state import State, optimiser_state, restore_optimiser
from cryospin.volume.hartley import Slicer

_CHUNK = 256


class LearnedVolume(Protocol):
    """What gradient descent can reconstruct: its parameters are an optimiser's, its slices have gradients."""

    def slicer(self) -> Slicer:
        """A function that slices the volume as it stands."""

    def density(self, box: int) -> Tensor:
        """The map, `(box, box, box)`."""

    def parameters(self) -> object:
        """What an optimiser moves."""

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters by name."""

    def load_state_dict(self, state: dict[str, Tensor]) -> object:
        """Take the parameters back."""


class Guesses(NamedTuple):
    """C candidates for each of n images.

    rotation: `(n, C, 3, 3)`; shift: `(n, C, 2)`, pixels; loss: `(n, C)`
    """

    rotation: Tensor
    shift: Tensor
    loss: Tensor

    def best(self, rows: Tensor) -> Poses:
        """The candidate of least loss, for images that are numbered `rows`."""
        which = (torch.arange(len(rows), device=rows.device), self.loss.argmin(1))
        return Poses(rows, self.rotation[which], self.shift[which])


class AutoEncoding:
    """Encoder and volume, trained together.

    problem: the images
    encoder, volume: what learns
    options: rates and the rest
    generator: of the images' order
    """

    stage = "auto-encode"

    def __init__(
        self, problem: Problem, encoder: PyramidEncoder, volume: LearnedVolume, options: Learning, generator: torch.Generator
    ) -> None:
        self.problem, self.encoder, self.volume, self.options = problem, encoder, volume, options
        self.generator = generator
        self.epochs, self.done = options.encoding_epochs, 0
        self._limit_frequencies()
        self.for_encoder = torch.optim.Adam(encoder.parameters(), lr=options.encoder_rate, fused=True)
        self.for_volume = torch.optim.Adam(volume.parameters(), lr=options.volume_rate, fused=True)  # type: ignore[arg-type]
        self.shifts = _square_of_shifts(options.shift_limit * problem.box, options.shift_step).to(problem.device)
        heads = [f"head {i + 1}" for i in range(options.heads)]
        self.names = heads + ([f"{name}, turned" for name in heads] if options.symmetrised else [])
        self.trace = Trace.of(len(problem), problem.device)
        self.last: Poses | None = None

    def state(self) -> State:
        """What an epoch leaves to the next."""
        return {
            "encoder": self.encoder.state_dict(),
            "volume": self.volume.state_dict(),
            "for_encoder": optimiser_state(self.for_encoder),
            "for_volume": optimiser_state(self.for_volume),
            "generator": self.generator.get_state(),
            "trace": self.trace.state(),
            "last": None if self.last is None else self.last._asdict(),
            "done": self.done,
        }

    def restore(self, state: State) -> None:
        """Go on from there."""
        self.encoder.load_state_dict(state["encoder"])
        self.volume.load_state_dict(state["volume"])
        restore_optimiser(self.for_encoder, state["for_encoder"])
        restore_optimiser(self.for_volume, state["for_volume"])
        self.generator.set_state(state["generator"])
        self.trace = Trace.restored(state["trace"])
        self.last = None if state["last"] is None else Poses(**state["last"])
        self.done = state["done"]

    def epoch(self) -> EpochRecord:
        """All images once, in batches."""
        wins, total = torch.zeros(len(self.names), dtype=torch.long), 0.0
        self._limit_frequencies()
        self.encoder.train()
        for rows in batches(self.problem.order(self.generator), self.options.batch):
            losses, winner = self._learn(self.observations.take(rows))
            wins += torch.bincount(winner, minlength=len(self.names)).cpu()
            total += float(losses.sum())
        found = self.guess(self.trace.rows)
        self.trace.add_guesses(found.rotation, found.loss)
        poses = found.best(self.trace.rows)
        change = None if self.last is None else float(distance_deg(poses.rotation, self.last.rotation).median())
        self.last = poses
        self.done += 1
        return EpochRecord(
            self.stage,
            self.problem.angstrom(self.observations.disc.radius),
            total / len(self.problem),
            pose_change_deg=change,
            winners=wins.tolist(),
            winner_names=self.names,
        )

    @torch.no_grad()
    def guess(self, rows: Tensor) -> Guesses:
        """Candidates of some images, by the encoder as it stands."""
        self.encoder.eval()
        slicer, found = self.volume.slicer(), []
        for part in rows.split(_CHUNK):
            some = self.observations.take(part)
            rotation, shift = self._candidates(some)
            found.append(self._judge(slicer, some, rotation, shift))
        return Guesses(*(torch.cat(field) for field in zip(*found, strict=True)))

    def _limit_frequencies(self) -> None:
        """Compare images up to this epoch's frequency limit: the last one, unless the options have it rise."""
        last = self.problem.last_shell
        first = min(self.options.first_shell or last, last)
        risen = min(1.0, self.done / max(1.0, self.options.rise * self.epochs))
        self.observations = self.problem.observations.up_to(round(first + (last - first) * risen))
        self.loss = FourierLoss(self.options.loss, self.observations.disc)

    def _learn(self, some: Observations) -> tuple[Tensor, Tensor]:
        """One step on a batch; returns each image's loss and which candidate won it."""
        rotation, shift = self._candidates(some)
        slicer, rows = self.volume.slicer(), torch.arange(len(some.images), device=self.problem.device)
        with torch.no_grad():
            found = self._judge(slicer, some, rotation, shift)
        winner = found.loss.argmin(1)
        # A shift that was searched for has no gradient, one that a head gave has.
        moved = shift if self.options.shifts == "head" else found.shift
        losses = self.loss(slicer, some, Poses(rows, rotation[rows, winner], moved[rows, winner]))
        self.for_encoder.zero_grad()
        self.for_volume.zero_grad()
        losses.mean().backward()
        self.for_encoder.step()
        self.for_volume.step()
        return losses.detach(), winner

    def _candidates(self, some: Observations) -> tuple[Tensor, Tensor]:
        """The heads' rotations `(n, C, 3, 3)` and displacements `(n, C, 2)` for a batch."""
        images = unpack(some.images, some.disc, some.box)
        rotation, shift = self._both_ways(images) if self.options.symmetrised else self.encoder(images)
        refuse_diverged("auto-encoding", rotation, shift)
        return rotation, shift

    def _both_ways(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the heads say of images `(n, box, box)`, and of the same turned by 180 degrees in their planes."""
        # About the centre of an even box, an image turned by 180 degrees is its mirror along both axes, one pixel on.
        both = torch.cat([images, images.flip(-1, -2).roll((1, 1), (-1, -2))])
        (rotation, turned), (shift, moved) = (x.chunk(2) for x in self.encoder(both))
        return torch.cat([rotation, half_turned(turned)], 1), torch.cat([shift, -moved], 1)

    def _judge(self, slicer: Slicer, some: Observations, rotation: Tensor, shift: Tensor) -> Guesses:
        """The loss of every candidate, each at its best shift where that is searched for."""
        count = rotation.shape[1]
        image = torch.arange(len(rotation), device=rotation.device).repeat_interleave(count)
        slices = slicer(rotation.flatten(0, 1), some.disc)
        shift = shift.flatten(0, 1)
        if self.options.shifts == "search":
            shift = best_shifts(slices, some, image, self.shifts)
        loss = self.loss.of_images(slices, some, Poses(image, rotation.flatten(0, 1), shift))
        return Guesses(rotation, shift.unflatten(0, (-1, count)), loss.unflatten(0, (-1, count)))


def batches(order: Tensor, size: int) -> tuple[Tensor, ...]:
    """Nearly equal parts of at most `size` images: batch norm could make nothing of a last one alone."""
    return order.tensor_split(-(-len(order) // size))


def _square_of_shifts(limit: float, step: float) -> Tensor:
    """Displacements on a square lattice within `limit` of the centre, `(S, 2)`, pixels."""
    reach = int(limit // step)
    axis = torch.arange(-reach, reach + 1) * step
    shifts = torch.cartesian_prod(axis, axis)
    return shifts[shifts.norm(dim=1) <= limit + 1e-6]
