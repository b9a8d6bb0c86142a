"""`paper` and `cryoai`: poses and volume learned by gradient descent, from images to results."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from cryospin.engine.autodecode import AutoDecoding
from cryospin.engine.autoencode import AutoEncoding, Guesses, LearnedVolume
from cryospin.engine.final import final_maps
from cryospin.engine.half_sets import HalfSets
from cryospin.engine.learning import Learning
from cryospin.engine.problem import Problem
from cryospin.formats.volume import write_map
from cryospin.geometry.rotations import chordal_distance_squared
from cryospin.journal import Journal
from cryospin.kernels import cpu as kernels
from cryospin.kernels.types import Poses
from cryospin.particles import Packed, ParticleSet
from cryospin.poses.modes import Modes, Thinning
from cryospin.proposals.pyramid import GaussianPyramid, PyramidEncoder
from cryospin.results import Result, resolved
from cryospin.settings import Settings
from cryospin.volume.hartley import HartleyVolume
from cryospin.volume.implicit import ImplicitVolume

TRACE, MAP_FROM_POSES = "checkpoints/trace.safetensors", "map_from_poses.mrc"
_FEW_STEPS = 4000


def assemble(problem: Problem, options: Learning, seed: int) -> AutoEncoding:
    """Encoder, volume and the stage that trains them."""
    generator = torch.Generator().manual_seed(seed)
    volume: LearnedVolume
    if options.volume == "hartley":
        volume = HartleyVolume(problem.last_shell, options.padding, generator)
    else:
        volume = ImplicitVolume(problem.last_shell, options.implicit_width, generator)
    pyramid = GaussianPyramid(
        options.pyramid_octaves, options.pyramid_size, options.pyramid_variance, options.pyramid_scaling
    )
    with torch.random.fork_rng():
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
    return AutoEncoding(problem, encoder, volume, options, generator)


def learn(settings: Settings, particles: ParticleSet, packed: Packed, problem: Problem, journal: Journal) -> Result:
    """Auto-encoding, then auto-decoding where the preset has it, then half maps from the poses it ended with.

    The map of the result is the one that was learned. Beside it `map_from_poses.mrc` is what a weighted average gives at
    the same poses, filtered by the half maps' agreement.
    """
    options = settings.learning
    encoding = assemble(problem, options, settings.seed)
    steps = options.encoding_epochs * -(-len(problem) // options.batch)
    if steps < _FEW_STEPS:
        journal.note(
            f"warning: {steps:,} steps of auto-encoding are few (the published runs took 11,000): fewer images want more "
            "epochs, --set encoding_epochs=N, or higher rates"
        )
    journal.expect(encoding.stage, encoding.epochs)
    for _ in range(encoding.epochs):
        record = encoding.epoch()
        journal.epoch(record, encoding.last, problem.group)
    rows = torch.arange(len(problem))
    guesses = encoding.guess(rows)
    poses = guesses.best(rows)
    if options.decoding_epochs:
        journal.note(f"switch to auto-decoding: all {encoding.epochs} epochs of auto-encoding are done")
        decoding = AutoDecoding(problem, poses, encoding.volume, options, encoding.generator, encoding.trace)
        journal.expect(decoding.stage, decoding.epochs)
        for _ in range(decoding.epochs):
            record = decoding.epoch()
            journal.epoch(record, decoding.poses, problem.group)
        poses = decoding.poses
    journal.note("half maps: averages over halves of the images at their final poses, which were not found independently")
    encoding.trace.save(journal.folder.path / TRACE)
    return _result(settings, particles, packed, encoding, poses, guesses, journal)


def _result(
    settings: Settings,
    particles: ParticleSet,
    packed: Packed,
    encoding: AutoEncoding,
    poses: Poses,
    guesses: Guesses,
    journal: Journal,
) -> Result:
    """Maps of both halves at the final poses, and each image's confidence in its pose."""
    problem = encoding.problem
    half = torch.randperm(len(problem), generator=torch.Generator().manual_seed(settings.seed + 3)) % 2
    none = torch.zeros(len(problem), dtype=torch.float64)
    sets = HalfSets.settled(problem, half, Modes(poses, none, none.long()))
    best, competing, confidence = _compare(sets, poses, guesses)
    maps = final_maps(sets, best)
    write_map(journal.folder.path / MAP_FROM_POSES, maps.map, maps.pixel_size)
    return Result(
        particles=particles,
        config=settings.table() | resolved(problem, packed),
        maps=replace(maps, map=encoding.volume.density(problem.box)),
        poses=best,
        competing=competing,
        confidence=confidence,
        half=half,
        centre=packed.centre,
        encoder={name: value.contiguous() for name, value in encoding.encoder.state_dict().items()},
    )


def _compare(sets: HalfSets, poses: Poses, guesses: Guesses) -> tuple[Modes, Modes, Tensor]:
    """Final poses against what the heads guessed, by each half's map.

    Guesses nearer to the final pose than the map can tell are the same mode and do not compete.

    returns: the final poses with their misfits; these and their competitors; posterior probability of the final ones
    """
    count, heads = guesses.loss.shape
    radius = max(1, min(sets.problem.last_shell, int(sets.resolved_shell) + 2))
    near = 2 * Thinning.at(radius).angle ** 2
    other = (chordal_distance_squared(guesses.rotation, poses.rotation[:, None]) >= near).flatten()
    image = torch.arange(count).repeat_interleave(heads)
    rivals = Poses(image, guesses.rotation.flatten(0, 1), guesses.shift.flatten(0, 1)).take(other)
    source = torch.arange(heads).repeat(count)[other]
    final = Modes(poses, _misfit(sets, poses, radius), torch.full((count,), heads))
    everyone = Modes.join(final, Modes(rivals, _misfit(sets, rivals, radius), source))
    return final, everyone.ranked()[0], everyone.responsibilities()[:count]


def _misfit(sets: HalfSets, poses: Poses, radius: int) -> Tensor:
    """Nats by which each hypothesis is less likely than no particle, float64."""
    observations, misfit = sets.observations(radius), torch.zeros(len(poses.image), dtype=torch.float64)
    for half in (0, 1):
        members = (sets.half[poses.image] == half).nonzero()[:, 0]
        some = poses.take(members)
        fit = kernels.fits(*sets.volume(half, radius), observations, some)
        misfit[members] = fit.misfit(observations.scale[some.image]).double()
    return misfit
