"""Auto-decoding: every image's pose is a parameter of its own, and poses and volume are optimised in turn.

Stage 2 of the published method.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.engine.autoencode import LearnedVolume, batches
from cryospin.engine.diverging import refuse_diverged
from cryospin.engine.fourier_loss import FourierLoss
from cryospin.engine.learning import Learning
from cryospin.engine.problem import Problem
from cryospin.engine.record import EpochRecord
from cryospin.engine.trace import Trace
from cryospin.geometry.rotations import distance_deg
from cryospin.kernels.types import Poses
from cryospin.poses.adam import PoseTable
from cryospin.state import State, optimiser_state, restore_optimiser


class AutoDecoding:
    """The table of poses and the volume.

    poses: one for each image, by image: where to start
    trace: where the poses of a few images are written down
    """

    stage = "auto-decode"

    def __init__(
        self,
        problem: Problem,
        poses: Poses,
        volume: LearnedVolume,
        options: Learning,
        generator: torch.Generator,
        trace: Trace,
    ) -> None:
        self.problem, self.volume, self.options, self.generator, self.trace = problem, volume, options, generator, trace
        self.observations = problem.observations.up_to(problem.last_shell)
        self.loss = FourierLoss(options.loss, self.observations.disc)
        self.epochs, self.done = options.decoding_epochs, 0
        shift_rate = 0.0 if options.shifts == "none" else options.shift_rate
        first, second = options.pose_betas
        self.table = PoseTable(poses, options.rotation_rate, shift_rate, (first, second))
        self.for_volume = torch.optim.Adam(volume.parameters(), lr=options.decoding_volume_rate, fused=True)  # type: ignore[arg-type]

    @property
    def poses(self) -> Poses:
        """All poses as they stand."""
        return self.table.poses(torch.arange(len(self.problem), device=self.problem.device))

    def state(self) -> State:
        """What an epoch leaves to the next, but for the volume, the trace and the order of the images."""
        return {"table": self.table.state(), "for_volume": optimiser_state(self.for_volume), "done": self.done}

    def restore(self, state: State) -> None:
        """Go on from there."""
        self.table.restore(state["table"])
        restore_optimiser(self.for_volume, state["for_volume"])
        self.done = state["done"]

    def epoch(self) -> EpochRecord:
        """All images once: steps on a batch's poses, then on the volume."""
        before, total = self.table.rotation.clone(), 0.0
        for rows in batches(self.problem.order(self.generator), self.options.batch):
            total += self._learn(rows) * len(rows)
        self.done += 1
        self.trace.add_poses(self.table.rotation[self.trace.rows])
        return EpochRecord(
            self.stage,
            self.problem.angstrom(self.observations.disc.radius),
            total / len(self.problem),
            pose_change_deg=float(distance_deg(self.table.rotation, before).median()),
        )

    def _learn(self, rows: Tensor) -> float:
        """Pose steps with the volume held, volume steps with the poses held; returns the last mean loss."""
        some, image = self.observations.take(rows), torch.arange(len(rows), device=rows.device)
        with torch.no_grad():
            slicer = self.volume.slicer()

        def mean_loss(rotation: Tensor, shift: Tensor) -> Tensor:
            refuse_diverged("auto-decoding", rotation, shift)
            return self.loss(slicer, some, Poses(image, rotation, shift)).mean()

        self.table.optimise(rows, self.options.pose_steps, mean_loss)
        poses = self.table.poses(rows)._replace(image=image)
        refuse_diverged("auto-decoding", poses.rotation, poses.shift)
        for _ in range(self.options.volume_steps):
            loss = self.loss(self.volume.slicer(), some, poses).mean()
            self.for_volume.zero_grad()
            loss.backward()
            self.for_volume.step()
        return float(loss.detach())
