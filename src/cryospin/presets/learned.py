"""`paper` and `cryoai`: poses and volume learned by gradient descent, from images to results."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from cryospin.engine.autodecode import AutoDecoding
from cryospin.engine.autoencode import AutoEncoding, Guesses
from cryospin.engine.failures import dead_heads
from cryospin.engine.final import final_maps
from cryospin.engine.half_sets import HalfSets, random_halves
from cryospin.engine.learning import Learning
from cryospin.engine.problem import Problem
from cryospin.engine.record import EpochRecord
from cryospin.environment import quick_at_bfloat16
from cryospin.formats.volume import write_map
from cryospin.fourier import CPU
from cryospin.geometry.rotations import chordal_distance_squared
from cryospin.kernels.types import Poses
from cryospin.packing import Packed
from cryospin.particles import ParticleSet
from cryospin.poses.gauss_newton import fits_of
from cryospin.poses.modes import Modes, Thinning
from cryospin.proposals.pyramid import GaussianPyramid, PyramidEncoder
from cryospin.report.evidence import gather_evidence
from cryospin.results import Result, held_beside_nothing, resolved
from cryospin.stage import Stage, Work
from cryospin.state import State
from cryospin.volume.hartley import HartleyVolume
from cryospin.volume.implicit import ImplicitVolume

TRACE, MAP_FROM_POSES = "checkpoints/trace.safetensors", "map_from_poses.mrc"
_FEW_STEPS = 4000


def assemble(problem: Problem, options: Learning, seed: int) -> AutoEncoding:
    """Encoder, volume and the stage that trains them."""
    generator = torch.Generator().manual_seed(seed)
    volume: HartleyVolume | ImplicitVolume
    if options.volume == "hartley":
        volume = HartleyVolume(problem.last_shell, options.padding, generator)
    else:
        volume = ImplicitVolume(problem.last_shell, options.implicit_width, generator)
    pyramid = GaussianPyramid(
        options.pyramid_octaves, options.pyramid_size, options.pyramid_variance, options.pyramid_scaling
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = PyramidEncoder(
            problem.box,
            options.heads,
            pyramid,
            options.channels,
            options.features,
            shifts=options.shifts == "head",
            half_precision=options.precision == "bfloat16",
        )
    return AutoEncoding(problem, encoder.to(problem.device), volume.to(problem.device), options, generator)


class Learn:
    """Auto-encoding, then auto-decoding where the preset has it, then half maps from the poses it ended with.

    The map of the result is the one that was learned. Beside it `map_from_poses.mrc` is what a weighted average gives at
    the same poses, filtered by the half maps' agreement.

    encoding, decoding: the two stages; there is no second before the first is done
    guesses: candidates of all images at the end of auto-encoding
    """

    name = "learn"

    def __init__(self, work: Work) -> None:
        self.work = work
        self.encoding = assemble(work.problem, work.settings.learning, work.settings.seed)
        self.decoding: AutoDecoding | None = None
        self.guesses: Guesses | None = None

    @classmethod
    def begun(cls, work: Work) -> Learn:
        """The stage at its start; warns where little can come of it."""
        options = work.settings.learning
        steps = options.encoding_epochs * -(-len(work.problem) // options.batch)
        if steps < _FEW_STEPS:
            work.journal.note(
                f"warning: {steps:,} steps of auto-encoding are few (the published runs took 11,000): fewer images want "
                "more epochs, --set encoding_epochs=N, or higher rates"
            )
        if options.precision == "bfloat16" and work.problem.device.type == "cpu" and quick_at_bfloat16() is False:
            work.journal.note(
                "warning: this processor has no instructions for bfloat16 and takes many times longer than without: "
                "--set precision=float32"
            )
        return cls(work)

    @property
    def finished(self) -> bool:
        """See `Stage.finished`."""
        last = self.encoding if self.decoding is None else self.decoding
        return last.done == last.epochs

    def announce(self) -> None:
        """See `Stage.announce`."""
        now = self.encoding if self.decoding is None else self.decoding
        self.work.journal.expect(now.stage, now.epochs - now.done)

    def step(self) -> Stage:
        """See `Stage.step`."""
        journal, group = self.work.journal, self.work.problem.group
        if self.decoding is not None:
            record = self.decoding.epoch()
            journal.epoch(record, self.decoding.poses, group)
            return self
        record = self.encoding.epoch()
        journal.epoch(record, self.encoding.last, group)
        if self.encoding.done == self.encoding.epochs:
            self._look_for_dead_heads(record)
            self._switch()
        return self

    def state(self) -> State:
        """See `Stage.state`."""
        return {
            "encoding": self.encoding.state(),
            "decoding": None if self.decoding is None else self.decoding.state(),
            "guesses": None if self.guesses is None else self.guesses._asdict(),
        }

    @classmethod
    def restored(cls, work: Work, state: State) -> Learn:
        """See `Stage.restored`."""
        stage = cls(work)
        stage.encoding.restore(state["encoding"])
        if state["guesses"] is not None:
            stage.guesses = Guesses(**state["guesses"])
        if state["decoding"] is not None:
            stage.decoding = stage._decoding()
            stage.decoding.restore(state["decoding"])
        return stage

    def result(self, particles: ParticleSet, packed: Packed) -> Result:
        """Maps of both halves at the final poses, and each image's confidence in its pose."""
        work, problem, folder = self.work, self.work.problem, self.work.journal.folder.path
        assert self.guesses is not None, "an encoder was trained"
        poses = self._poses()
        work.journal.note(
            "half maps: averages over halves of the images at their final poses, which were not found independently"
        )
        self.encoding.trace.save(folder / TRACE)
        half = random_halves(len(problem), work.settings.seed).to(problem.device)
        none = torch.zeros(len(problem), dtype=torch.float64, device=problem.device)
        sets = HalfSets.settled(problem, half, Modes(poses, none, none.long()))
        best, competing, confidence = _compare(sets, poses, self.guesses)
        maps = final_maps(sets, best).cpu()
        write_map(folder / MAP_FROM_POSES, maps.map, maps.pixel_size)
        evidence = gather_evidence(
            maps.map,
            sets.observations(problem.last_shell),
            best.to(CPU).poses,
            shortfall=sets.shortfall,
            shell=maps.size_angstrom / maps.resolution,
            group=problem.group,
        )
        weights = self.encoding.encoder.state_dict()
        return Result(
            particles=particles,
            config=work.settings.table() | resolved(problem, packed),
            maps=replace(maps, map=self.encoding.volume.density(problem.box).cpu()),
            poses=best.to(CPU),
            competing=competing.to(CPU),
            confidence=confidence.cpu(),
            half=half.cpu(),
            centre=packed.centre,
            encoder={name: value.cpu().contiguous() for name, value in weights.items()},
            evidence=evidence | self._head_errors(poses),
            measured={},
            beside=held_beside_nothing(sets),
        )

    def _head_errors(self, poses: Poses) -> dict[str, Tensor]:
        """Angle between the view that each candidate has for an image and the one it ended at, for the traced images."""
        assert self.guesses is not None, "an encoder was trained"
        rows = self.encoding.trace.rows
        cosine = torch.einsum("nmi,ni->nm", self.guesses.rotation[rows, :, 2], poses.rotation[rows, 2])
        angle = torch.rad2deg(cosine.clamp(-1, 1).acos())
        return {"head_row": rows.cpu(), "head_error_deg": angle.cpu()}

    def _look_for_dead_heads(self, record: EpochRecord) -> None:
        """Say which heads won hardly anything in the last epoch; a head's turned guesses count as its own."""
        assert record.winners is not None, "candidates compete"
        won = torch.tensor(record.winners).view(-1, self.work.settings.learning.heads).sum(0).tolist()
        if failure := dead_heads(won):
            self.work.journal.note(f"warning: {failure}; more images, more epochs or fewer heads may revive them")

    def _switch(self) -> None:
        """The best candidates become poses; where there is auto-decoding, it starts from them."""
        self.guesses = self.encoding.guess(self._rows())
        if not self.work.settings.learning.decoding_epochs:
            return
        self.work.journal.note(f"switch to auto-decoding: all {self.encoding.epochs} epochs of auto-encoding are done")
        self.decoding = self._decoding()
        self.announce()

    def _decoding(self) -> AutoDecoding:
        """Auto-decoding from the best guesses."""
        assert self.guesses is not None, "an encoder was trained"
        e = self.encoding
        return AutoDecoding(e.problem, self.guesses.best(self._rows()), e.volume, e.options, e.generator, e.trace)

    def _poses(self) -> Poses:
        """Each image's pose as it stands."""
        if self.decoding is not None:
            return self.decoding.poses
        assert self.guesses is not None, "an encoder was trained"
        return self.guesses.best(self._rows())

    def _rows(self) -> Tensor:
        return torch.arange(len(self.work.problem), device=self.work.problem.device)


def _compare(sets: HalfSets, poses: Poses, guesses: Guesses) -> tuple[Modes, Modes, Tensor]:
    """Final poses against what the heads guessed, by the other half's map.

    Guesses nearer to the final pose than the map can tell are the same mode and do not compete.

    returns: the final poses with their misfits; these and their competitors; posterior probability of the final ones
    """
    count, heads = guesses.loss.shape
    radius = max(1, min(sets.problem.last_shell, int(sets.resolved_shell) + 2))
    near = 2 * Thinning.at(radius).angle ** 2
    other = (chordal_distance_squared(guesses.rotation, poses.rotation[:, None]) >= near).flatten()
    image = poses.image.repeat_interleave(heads)
    rivals = Poses(image, guesses.rotation.flatten(0, 1), guesses.shift.flatten(0, 1)).take(other)
    source = torch.arange(heads, device=other.device).repeat(count)[other]
    final = Modes(poses, _misfit(sets, poses, radius), torch.full_like(poses.image, heads))
    everyone = Modes.join(final, Modes(rivals, _misfit(sets, rivals, radius), source))
    return final, everyone.ranked()[0], everyone.responsibilities()[:count]


def _misfit(sets: HalfSets, poses: Poses, radius: int) -> Tensor:
    """Nats by which each hypothesis is less likely than no particle, float64, by the map that the other half gives.

    An image is in its own half's map at its final pose, and would prefer it for that.
    """
    observations = sets.observations(radius)
    misfit = torch.zeros(len(poses.image), dtype=torch.float64, device=poses.image.device)
    for half in (0, 1):
        members = (sets.half[poses.image] == half).nonzero()[:, 0]
        some = poses.take(members)
        fit = fits_of(*sets.volume(1 - half, radius), observations, some)
        misfit[members] = fit.misfit(observations.scale[some.image]).double()
    return misfit
