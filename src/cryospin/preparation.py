"""From what a user asked for to a problem to solve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from cryospin.engine.problem import SHIFT_LIMIT, Problem
from cryospin.errors import InputError
from cryospin.formats.plausibility import FEWEST
from cryospin.formats.read import read_poses
from cryospin.formats.table import GivenPoses
from cryospin.geometry.symmetry import point_group
from cryospin.memory import fits_in_memory, fits_on
from cryospin.packing import Packed
from cryospin.particles import ParticleSet
from cryospin.settings import Settings

MASK_DIAMETER = 0.84
"""Of the box, unless the user gives one."""

LEAST_SHELL = 8
"""Cycles per box that poses are told apart by at least."""

_ROUNDING = 1e-3
_LEAST_DIAMETER = 0.1
_MANY_OFF_CENTRE = 0.02


def off_centre(particles: ParticleSet) -> str:
    """What the table's shifts say of particles farther from the middle than is searched; nothing where they are few."""
    if particles.table.shift is None:
        return ""
    limit = SHIFT_LIMIT * particles.size_angstrom
    share = float((particles.table.shift.norm(dim=1) > limit).double().mean())
    if share < _MANY_OFF_CENTRE:
        return ""
    return (
        f"by the table's shifts {100 * share:.0f} % of the particles are farther from the middle of their images than the "
        f"{limit:.0f} Å that are searched"
    )


def prepare(
    settings: Settings, reading: Callable[[int], Callable[[int], None]] = lambda total: lambda n: None
) -> tuple[ParticleSet, Packed, Problem]:
    """Read the images and say what is to be reconstructed from them.

    Where `settings` ask for something the images cannot give, `InputError` says so.

    reading: called with the number of images; what it returns is called with the number read since the last call
    """
    particles = ParticleSet.load(settings.particles, settings.datadir, settings.ctf, settings.selection)
    if len(particles) < FEWEST:
        raise InputError(
            f"{len(particles)} particles are too few to find a structure from",
            where=settings.particles,
            remedy=f"Give at least {FEWEST}, better some thousands",
        )
    box = particles.working_box(settings.box)
    _refuse_what_does_not_fit(settings, particles.size_angstrom)
    device = settings.computes_on.device
    memory = fits_in_memory(len(particles), box, settings.cores, settings.memory)
    resident = device.type != "cpu" and fits_on(device, len(particles), box)
    packed = particles.pack(
        box,
        invert=settings.invert,
        recentre=settings.recentre,
        folder=None if resident or memory else _existing(settings.out),
        progress=reading(len(particles)),
        device=device,
        resident=resident,
    )
    side, radius = particles.size_angstrom, packed.observations.disc.radius
    problem = Problem.pose(
        packed.observations,
        packed.pixel_size,
        mask_diameter=min(1.0, settings.mask_diameter / side) if settings.mask_diameter else MASK_DIAMETER,
        group=point_group(settings.imposed),
        early_group=point_group(settings.imposed if settings.impose == "start" else "C1"),
        last_shell=radius if settings.max_resolution is None else min(radius, round(side / settings.max_resolution)),
    )
    return particles, packed, problem


def _refuse_what_does_not_fit(settings: Settings, side: float) -> None:
    """Raise `InputError` for a mask that is no particle's in this box, and a limit too coarse to search at."""
    coarsest = side / LEAST_SHELL
    if settings.max_resolution is not None and round(side / settings.max_resolution) < LEAST_SHELL:
        raise InputError(
            f"--max-resolution {settings.max_resolution:g} is too coarse to find poses by in a box of {side:.0f} Å",
            remedy=f"Give {coarsest:.0f} Å or less",
        )
    if settings.mask_diameter is not None and settings.mask_diameter > side * (1 + _ROUNDING):
        raise InputError(
            f"--mask-diameter {settings.mask_diameter:g} is wider than the box of {side:.0f} Å",
            remedy="Give the particle's longest side and some margin, in Å",
        )
    if settings.mask_diameter is not None and settings.mask_diameter < _LEAST_DIAMETER * side:
        raise InputError(
            f"--mask-diameter {settings.mask_diameter:g} leaves hardly anything of the box of {side:.0f} Å",
            remedy="Give the particle's longest side and some margin, in Å",
        )


def _existing(folder: Path) -> Path:
    """The folder, or what of the way to it is there already."""
    return next(f for f in (folder.absolute(), *folder.absolute().parents) if f.is_dir())


def true_poses(settings: Settings, particles: ParticleSet, packed: Packed) -> tuple[Tensor, Tensor] | None:
    """True rotations and shifts of the packed images, in pixels of the run's box, row by row."""
    if settings.truth_poses is None:
        return None
    given = poses_of(particles, read_poses(settings.truth_poses), settings.truth_poses)
    device = packed.observations.device
    return given.rotation.to(device), ((given.shift - packed.centre) / packed.pixel_size).to(device)


def poses_of(particles: ParticleSet, given: GivenPoses, where: Path) -> GivenPoses:
    """Poses of the run's particles, by the names of their images, or else out of those of its whole table row by row.

    raises: `InputError` where there are more or fewer
    """
    if (paired := given.of(particles.table.images)) is not None:
        return paired
    if len(given.rotation) == len(particles):
        return given
    rows = particles.table.rows
    if len(given.rotation) <= int(rows.max()):
        raise InputError(
            f"has {len(given.rotation)} particles, {particles.table.path} {len(particles)}",
            where=where,
            remedy="Give the poses of the same particles",
        )
    return given.take(rows)
