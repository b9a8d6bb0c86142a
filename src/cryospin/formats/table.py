"""What every particle table comes down to, whichever program wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cryospin.errors import InputError
from cryospin.findings import Finding, Findings, Severity
from cryospin.formats.paths import StackFinder
from cryospin.formats.stack import ImageLocation, Stack, read_header
from cryospin.optics import Optics


@dataclass(frozen=True)
class GivenPoses:
    """Poses that came with a table.

    rotation: float64 `(N, 3, 3)`; shift: float64 `(N, 2)`, displacement of the particle (x, y) in Å
    pixel_size: Å, of the images the poses are of
    images: what these are called, where the table says it
    """

    rotation: Tensor
    shift: Tensor
    pixel_size: float
    images: ImageNames | None = None

    def take(self, rows: np.ndarray) -> GivenPoses:
        """Some of the poses."""
        at, images = torch.from_numpy(rows), self.images and self.images.take(rows)
        return replace(self, rotation=self.rotation[at], shift=self.shift[at], images=images)

    def of(self, images: ImageNames | None) -> GivenPoses | None:
        """The poses of some images, found by name and in their order; None where names do not tell.

        Names count with the folders of their stacks, or else without.
        """
        if not images or not self.images or not images.files or not self.images.files:
            return None
        for whole in (True, False):
            known = pd.Index(self.images.keys(whole))
            rows = known.get_indexer(images.keys(whole)) if known.is_unique else np.array([-1])
            if (rows >= 0).all():
                return self.take(rows)
        return None


@dataclass(frozen=True)
class ImageNames:
    """Images as a table names them.

    files: names of the stacks
    stack: int64 `(N,)`, index into `files`
    slice: int64 `(N,)`, position in the stack, counted from 0
    """

    files: tuple[str, ...]
    stack: np.ndarray
    slice: np.ndarray

    def take(self, rows: np.ndarray) -> ImageNames:
        """Some of the images."""
        return ImageNames(self.files, self.stack[rows], self.slice[rows])

    def keys(self, whole: bool) -> list[str]:
        """A name for each image, with its stack's folder or without."""
        files = self.files if whole else tuple(Path(file).name for file in self.files)
        return [f"{place}@{files[stack]}" for place, stack in zip(self.slice.tolist(), self.stack.tolist(), strict=True)]


@dataclass(frozen=True)
class AssignedPoses:
    """What a run found out about each particle, ready to be written back.

    rotation: `(N, 3, 3)`; shift: `(N, 2)`, displacement of the particle (x, y), its magnification undone, Å
    half: 1 or 2; confidence: 0 to 1; log_likelihood: nats, relative to an image without a particle
    """

    rotation: Tensor
    shift: Tensor
    half: np.ndarray
    confidence: np.ndarray
    log_likelihood: np.ndarray

    def take(self, rows: np.ndarray) -> AssignedPoses:
        """What was found out about some of the particles."""
        at = torch.from_numpy(rows)
        return AssignedPoses(
            self.rotation[at], self.shift[at], self.half[rows], self.confidence[rows], self.log_likelihood[rows]
        )


class Source(Protocol):
    """A table as it was read, able to write itself back.

    columns: what its format calls the columns that bear these names in RELION's
    """

    columns: ClassVar[Mapping[str, str]]

    def write(self, folder: Path, table: ParticleTable, found: AssignedPoses, stem: str = "particles") -> None:
        """Write the particle table with what was found added, into a folder.

        stem: name of the files, but for their suffixes
        """


@dataclass(frozen=True)
class ParticleTable:
    """Metadata of N particles.

    path: the file it came from; format: what kind of file that is, in words
    images: where the images lie
    optics: imaging conditions
    poses: the table's own poses, or None
    shift: displacement of each particle in Å, its magnification undone, from 3D or 2D alignment: float64 `(N, 2)`, or None
    sign: +1 where protein is said to be white, -1 where dark, float32 `(N,)`; None where it is said to be the same in all
    rows: int64 `(N,)`, the particles' rows in the file, counted from 0
    source: the table as it was read, for writing it back
    findings: what reading it brought to light
    """

    path: Path
    format: str
    images: ImageNames
    optics: Optics
    poses: GivenPoses | None
    shift: Tensor | None
    sign: Tensor | None
    rows: np.ndarray
    source: Source
    findings: Findings

    def __len__(self) -> int:
        return len(self.optics)

    @property
    def pixel_size(self) -> float:
        """Å; the largest, where optics groups differ."""
        return max(self.optics.groups[g].pixel_size for g in self.optics.group.unique().tolist())

    def take(self, rows: np.ndarray) -> ParticleTable:
        """Some of the particles; `rows` count from 0."""
        at = torch.from_numpy(rows)

        def some(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[at]

        return replace(
            self,
            images=self.images.take(rows),
            optics=self.optics.take(at),
            poses=None if self.poses is None else self.poses.take(rows),
            shift=some(self.shift),
            sign=some(self.sign),
            rows=self.rows[rows],
            findings=self.findings.within(self.rows[rows]),
        )

    def without_sign_of_all(self) -> ParticleTable:
        """The same, without signs that say no more than one would of all particles: looking tells that more surely."""
        told = self.sign is not None and bool((self.sign != self.sign[0]).any())
        return self if told else replace(self, sign=None)

    def locate(self, datadir: Path | None, findings: Findings) -> ImageLocation | None:
        """Find the stacks and read their headers; what is wrong with them goes to `findings`.

        returns: None where a stack is missing or cannot be read
        """
        if not self.images.files:
            return None
        used, code = np.unique(self.images.stack, return_inverse=True)
        stacks = self._stacks([self.images.files[i] for i in used], datadir, findings)
        if len(stacks) < len(used):
            return None
        where = ImageLocation(stacks, code.reshape(-1), self.images.slice)
        self._check_slices(where, findings)
        return where

    def _stacks(self, names: list[str], datadir: Path | None, findings: Findings) -> list[Stack]:
        """Those stacks that are there and readable."""
        finder, stacks, lost = StackFinder(self.path, datadir), list[Stack](), list[tuple[str, InputError]]()
        for name in names:
            try:
                path = finder.find(name)
            except InputError as error:
                lost.append((name, error))
                continue
            try:
                stacks.append(read_header(path))
            except InputError as error:
                findings.error(error.problem, path, error.remedy)
        for found, rival in finder.rivals:
            findings.warn(
                f"stack {found} is read, not {rival} in the current folder, which has the same name",
                self.path,
                "Give the folder with --datadir if the other one is meant",
            )
        if finder.mixed_up:
            one, other, path = finder.mixed_up[0]
            findings.error(
                f"stacks {one} and {other} are both taken for {path}: one of them is missing",
                self.path,
                "Give the folder that both names start from with --datadir, or correct the names",
            )
        if lost:
            missing, first = tuple(name for name, _ in lost), lost[0][1]
            problem = first.problem + (
                f", and {len(lost) - 1} more of {len(names)} stacks are missing" if len(lost) > 1 else ""
            )
            findings.append(Finding(Severity.error, problem, self.path, first.remedy, count=len(lost), names=missing))
        return stacks

    def _check_slices(self, where: ImageLocation, findings: Findings) -> None:
        count = np.array([s.count for s in where.stacks])[where.stack]
        beyond = (where.slice >= count) | (where.slice < 0)

        def asked(i: int) -> str:
            stack = where.stacks[where.stack[i]]
            return f"image {where.slice[i] + 1} of {stack.path.name}, which holds {stack.count}"

        findings.rows(
            Severity.error,
            beyond,
            "row {row} asks for {value}",
            self.path,
            "Check rlnImageName: the stack may belong to another extraction",
            "rlnImageName",
            value=asked,
        )
