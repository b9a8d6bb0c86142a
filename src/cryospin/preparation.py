"""From what a user asked for to a problem to solve."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cryospin.engine.problem import Problem
from cryospin.errors import InputError
from cryospin.formats.star import read_poses
from cryospin.geometry.symmetry import point_group
from cryospin.particles import Packed, ParticleSet
from cryospin.settings import Settings

MASK_DIAMETER = 0.84
"""Of the box, unless the user gives one."""

FEWEST = 100
"""Fewer particles than this say nothing about a structure that nobody knows."""


def prepare(
    settings: Settings, reading: Callable[[int], Callable[[int], None]] = lambda total: lambda n: None
) -> tuple[ParticleSet, Packed, Problem]:
    """Read the images and say what is to be reconstructed from them.

    Where `settings` ask for something the images cannot give, `InputError` says so.

    reading: called with the number of images; what it returns is called with the number read since the last call
    """
    particles = ParticleSet.load(settings.particles, settings.datadir)
    if len(particles) < FEWEST:
        raise InputError(
            f"{len(particles)} particles are too few to find a structure from",
            where=settings.particles,
            remedy=f"Give at least {FEWEST}, better some thousands",
        )
    box = particles.working_box(settings.box)
    packed = particles.pack(box, invert=settings.invert, progress=reading(len(particles)))
    side, radius = particles.size_angstrom, packed.observations.disc.radius
    problem = Problem.pose(
        packed.observations,
        packed.pixel_size,
        mask_diameter=min(1.0, settings.mask_diameter / side) if settings.mask_diameter else MASK_DIAMETER,
        group=point_group(settings.symmetry),
        last_shell=radius if settings.max_resolution is None else max(8, min(radius, round(side / settings.max_resolution))),
    )
    return particles, packed, problem


def true_poses(settings: Settings, particles: ParticleSet) -> tuple[Tensor, Tensor] | None:
    """True poses, row by row."""
    if settings.truth_poses is None:
        return None
    given = read_poses(settings.truth_poses)
    if len(given.rotation) != len(particles):
        raise InputError(
            f"has {len(given.rotation)} particles, {settings.particles} {len(particles)}",
            where=settings.truth_poses,
            remedy="Give the true poses of the same particles",
        )
    return given.rotation, given.shift / particles.pixel_size
