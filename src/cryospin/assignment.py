"""Poses for new particles of a structure that a run has solved, without another run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryospin.engine.assign import Assigner
from cryospin.errors import InputError
from cryospin.formats.table import AssignedPoses
from cryospin.model import Model
from cryospin.particles import ParticleSet
from cryospin.selection import Selection
from cryospin.settings import PROPOSALS

_CHUNK = 20_000
"""Particles that are in memory at once."""

_SAME_SIZE = 0.005
_UNLIKE = 3.0
"""Standard errors by which a contrast falls short that hardly any image of the same particle has."""


@dataclass(frozen=True)
class Assignment:
    """What was found for new particles, in the order of their table.

    rotation: float32 `(N, 3, 3)`; shift: float64 `(N, 2)`, displacement of the particle (x, y), Å
    confidence: posterior probability of the pose among those that were left, `(N,)`
    log_likelihood: of the pose, nats relative to an image without a particle, float64 `(N,)`
    shortfall: by how many standard errors each image's contrast falls short of the run's, `(N,)`
    seconds: that finding the poses took, without reading
    """

    rotation: Tensor
    shift: Tensor
    confidence: Tensor
    log_likelihood: Tensor
    shortfall: Tensor
    seconds: float

    def __len__(self) -> int:
        return len(self.rotation)

    @property
    def unlike(self) -> int:
        """How many images hardly resemble the map."""
        return int((self.shortfall > _UNLIKE).sum())


def assign(
    run: str | Path,
    particles: str | Path,
    out: str | Path,
    *,
    proposals: str = "both",
    invert: bool | None = None,
    threads: int | None = None,
    datadir: str | Path | None = None,
    ctf: str | Path | None = None,
    selection: Selection | None = None,
    reading: Callable[[int], Callable[[int], None]] = lambda total: lambda n: None,
) -> Assignment:
    """Find poses in a finished run's map and write the particle table with them to a folder.

    proposals: `heads`, `grid`, or `both`: the heads first, and the grid where they leave doubt
    invert: whether protein is dark in the images; None for as in the run
    reading: called with the number of images; what it returns is called with the number done since the last call
    raises: `InputError` where the run has no heads, or the particles are not imaged alike
    """
    out = Path(out)
    if (out / "particles.star").exists():
        raise InputError("is there already", where=out / "particles.star", remedy="Give another --out, or remove it first")
    if threads is not None:
        torch.set_num_threads(threads)
    model = Model.of_run(Path(run))
    _check_proposals(model, proposals)
    new = ParticleSet.load(particles, datadir, ctf, selection)
    box = _common_box(model, new)
    assigner = Assigner(model, proposals, box)
    progress, found = reading(len(new)), []
    for part in _parts(new):
        found.append(_assigned(assigner, part, box, model.invert if invert is None else invert))
        progress(len(part))
    result = _joined(found)
    out.mkdir(parents=True, exist_ok=True)
    _write(new, result, out, model.seed)
    return result


def _check_proposals(model: Model, proposals: str) -> None:
    if proposals not in PROPOSALS:
        raise InputError(f"--proposals {proposals} is not known", remedy=f"Choose from {', '.join(PROPOSALS)}")
    if proposals != "grid" and model.heads is None:
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


def _parts(new: ParticleSet) -> Iterator[ParticleSet]:
    for start in range(0, len(new), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(new)))
        yield ParticleSet(new.table.take(rows), new.images.take(rows))


def _assigned(assigner: Assigner, part: ParticleSet, box: int, invert: bool) -> Assignment:
    """Poses of some of the particles."""
    packed = part.pack(box, invert=invert)
    started = time.monotonic()
    modes, shortfall = assigner.assign(packed.observations)
    ranked, rank = modes.ranked()
    best = ranked.take(rank == 0)
    return Assignment(
        rotation=best.poses.rotation,
        shift=best.poses.shift.double() * packed.pixel_size,
        confidence=ranked.responsibilities()[rank == 0],
        log_likelihood=-best.misfit,
        shortfall=shortfall,
        seconds=time.monotonic() - started,
    )


def _joined(parts: list[Assignment]) -> Assignment:
    first, *_ = parts
    names = ("rotation", "shift", "confidence", "log_likelihood", "shortfall")
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return replace(first, **joined, seconds=sum(part.seconds for part in parts))


def _write(new: ParticleSet, found: Assignment, out: Path, seed: int) -> None:
    """The particle table with poses, as a run writes it."""
    half = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed + 3)) % 2
    poses = AssignedPoses(
        rotation=found.rotation,
        shift=found.shift,
        half=half.numpy() + 1,
        confidence=found.confidence.double().numpy(),
        log_likelihood=found.log_likelihood.numpy(),
    )
    new.table.source.write(out, new.table, poses)
