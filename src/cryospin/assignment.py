"""Poses for new particles of a structure that a run has solved, without another run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cryospin.engine.assign import Assigner, Trial
from cryospin.engine.half_sets import random_halves
from cryospin.engine.likeness import DOUBTFUL, likeness
from cryospin.environment import cores_to_use
from cryospin.errors import InputError
from cryospin.findings import Findings
from cryospin.formats.table import AssignedPoses
from cryospin.formats.whole import refuse_to_replace
from cryospin.geometry.symmetry import in_asymmetric_unit
from cryospin.model import Model
from cryospin.packing import Packed
from cryospin.particles import ParticleSet
from cryospin.posed_tables import TABLES, write_tables
from cryospin.run import ParticlePoses
from cryospin.selection import Selection
from cryospin.settings import PROPOSALS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CHUNK = 20_000
"""Particles that are in memory at once."""

_SAME_SIZE = 0.005


@dataclass(frozen=True)
class Assignment:
    """What was found for new particles, in the order of their table.

    poses: in the frame of the run's map; the confidence counts both other poses and the doubt whether the image shows the
        particle at all
    log_likelihood: of the pose, nats relative to an image without a particle, float64 `(N,)`
    shortfall: by how many standard deviations each image's contrast falls short of the usual, `(N,)`
    contrast: the usual one, relative to that of the run's images
    trial: what the run's heads were worth for some of the images; None where they had no grid to compare with
    seconds: that finding the poses took, without reading
    findings: what is suspicious about the table
    group: the run's point group, `(order, 3, 3)`, by which poses are equivalent
    """

    poses: ParticlePoses
    log_likelihood: np.ndarray
    shortfall: np.ndarray
    contrast: float
    trial: Trial | None
    seconds: float
    findings: Findings
    group: Tensor

    def __len__(self) -> int:
        return len(self.poses)

    @property
    def doubtful(self) -> int:
        """How many images hardly resemble the map."""
        return int((self.shortfall >= DOUBTFUL).sum())

    def plot_orientations(self, path: str | Path | None = None) -> Figure:
        """How densely the views are spread over the sphere; written to a PNG too where a path is given."""
        from cryospin.report.figures import plot_orientations

        return plot_orientations(torch.from_numpy(self.poses.rotation), path, group=self.group)


class _Part(NamedTuple):
    """What was found for some of the particles: rotation, shift in Å, share of the pose among the modes, and as `Posed`."""

    rotation: Tensor
    shift: Tensor
    share: Tensor
    log_likelihood: Tensor
    shortfall: Tensor
    reach: Tensor


def assign(
    run: str | Path,
    particles: str | Path,
    out: str | Path,
    *,
    proposals: str = "both",
    invert: bool | None = None,
    recentre: bool = False,
    threads: int | None = None,
    datadir: str | Path | None = None,
    ctf: str | Path | None = None,
    selection: Selection | None = None,
    reading: Callable[[int], Callable[[int], None]] = lambda total: lambda n: None,
) -> Assignment:
    """Find poses in a finished run's map and write the particle tables with them to a folder, as a run does.

    proposals: `heads`, `grid`, or `both`: the heads where some images show that they serve, with the grid where they
        leave doubt, and the grid for all if they do not, or the run has none
    invert: whether protein is dark in the images; None for as in the run, or by looking where tables say it of each image
    recentre: centre the particles by the shifts in the table before anything else
    reading: called with the number of images; what it returns is called with the number done since the last call
    raises: `InputError` where heads are asked for and the run has none, or the particles are not imaged alike
    """
    out = Path(out)
    refuse_to_replace(out, TABLES)
    if threads is not None:
        torch.set_num_threads(cores_to_use(threads))
    model = Model.of_run(Path(run))
    _check_proposals(model, proposals)
    proposals = proposals if model.heads else "grid"
    new = ParticleSet.load(particles, datadir, ctf, selection)
    box = _common_box(model, new)
    with _made(out):
        inverted = _inverted(model, new, box) if invert is None else invert
        assigner, progress, seconds = Assigner(model, proposals, box), reading(len(new)), 0.0
        parts, found = _parts(len(new)), list[_Part]()
        for rows in parts:
            packed = new.take(rows).pack(box, invert=inverted, recentre=recentre)
            started = time.monotonic()
            found.append(_assigned(assigner, packed))
            seconds += time.monotonic() - started
            progress(len(rows))
        result = _joined(found, parts, assigner, seconds, new.table.findings)
        _write(new, result, out)
    return result


@contextmanager
def _made(out: Path) -> Iterator[None]:
    """The folder, made before work begins so that one that cannot be is told of; whatever fails leaves nothing of it."""
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for name in TABLES:
            (out / name).unlink(missing_ok=True)
        if new:
            with suppress(OSError):
                out.rmdir()
        raise


def _check_proposals(model: Model, proposals: str) -> None:
    if proposals not in PROPOSALS:
        raise InputError(f"--proposals {proposals} is not known", remedy=f"Choose from {', '.join(PROPOSALS)}")
    if proposals == "heads" and model.heads is None:
        raise InputError(
            "has no trained heads, since heads took no part in it",
            where=model.run,
            remedy="Give --proposals grid, which needs none, or a run of the default preset",
        )


def _common_box(model: Model, new: ParticleSet) -> int:
    """The box at which new images and map have the same pixels."""
    size, own = new.size_angstrom, model.size_angstrom
    if abs(size - own) > _SAME_SIZE * own:
        raise InputError(
            f"images are {size:.1f} Å wide ({new.box} pixels of {new.pixel_size:.4g} Å), the run's {own:.1f} Å",
            where=new.table.path,
            remedy="Extract the particles with the same box in Å; their pixel size may differ",
        )
    return min(model.box, new.box // 2 * 2)


def _inverted(model: Model, new: ParticleSet, box: int) -> bool:
    """Whether protein is dark in new images: as in the run, unless either table has signs, which say it image by image."""
    return new.looks_dark(box) if model.signed or new.table.sign is not None else model.invert


def _parts(count: int) -> list[np.ndarray]:
    """Rows in parts that are each spread over the whole table: the first tells what is usual in all of it."""
    number = -(-count // _CHUNK)
    return [np.arange(part, count, number) for part in range(number)]


def _assigned(assigner: Assigner, packed: Packed) -> _Part:
    """Poses of some of the particles."""
    posed = assigner.assign(packed.observations)
    ranked, rank = posed.modes.ranked()
    best = ranked.take(rank == 0)
    return _Part(
        rotation=in_asymmetric_unit(best.poses.rotation, assigner.model.group),
        shift=best.poses.shift.double() * packed.pixel_size + packed.centre,
        share=ranked.responsibilities()[rank == 0].double(),
        log_likelihood=-best.misfit,
        shortfall=posed.shortfall,
        reach=posed.reach,
    )


def _joined(
    found_in: list[_Part], parts: list[np.ndarray], assigner: Assigner, seconds: float, findings: Findings
) -> Assignment:
    """What was found in all parts, in the order of the table."""
    model, place = assigner.model, torch.from_numpy(np.concatenate(parts)).argsort()
    found = _Part(*(torch.cat(field)[place] for field in zip(*found_in, strict=True)))
    half = random_halves(len(found.rotation), model.seed) + 1
    confidence = found.share * likeness(found.shortfall, found.reach)
    poses = ParticlePoses(found.rotation.double().numpy(), found.shift.numpy(), confidence.numpy(), half.numpy())
    return Assignment(
        poses=poses,
        log_likelihood=found.log_likelihood.numpy(),
        shortfall=found.shortfall.numpy(),
        contrast=assigner.contrast / model.contrast,
        trial=assigner.trial,
        seconds=seconds,
        findings=findings,
        group=model.group,
    )


def _write(new: ParticleSet, found: Assignment, out: Path) -> None:
    """The particle tables with poses, as a run writes them."""
    poses = AssignedPoses(
        rotation=torch.from_numpy(found.poses.rotation),
        shift=torch.from_numpy(found.poses.shift_A),
        half=found.poses.half,
        confidence=found.poses.confidence,
        log_likelihood=found.log_likelihood,
    )
    write_tables(out, new.table, poses, found.shortfall)
