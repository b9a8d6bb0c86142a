"""A set of particles: from images on disk to the packed working set of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cryospin.errors import InputError
from cryospin.findings import Finding, Severity
from cryospin.formats.plausibility import SMALLEST_BOX, check_table
from cryospin.formats.read import read_table
from cryospin.formats.stack import ImageLocation
from cryospin.formats.star import ANGLES, OLD_ORIGINS, ORIGINS
from cryospin.formats.table import ParticleTable
from cryospin.fourier import CPU
from cryospin.packing import Packed, darkness, pack_particles
from cryospin.selection import Selection

DEFAULT_BOX = 128
"""Larger boxes are Fourier-cropped to this many pixels unless the user asks otherwise."""

_LARGEST_BOX = 640
"""Of larger ones lattice points are too many to be counted with 32 bits."""

_SAME_LATTICE = 1e-6


def find_particles(
    path: Path, datadir: Path | None, ctf: Path | None, selection: Selection
) -> tuple[ParticleTable, ImageLocation | None]:
    """Read a particle table, choose from it, find its stacks and check it; what is wrong is in the table's findings.

    returns: None in place of the images where a stack is missing or cannot be read
    raises: `InputError` for what cannot be parsed at all
    """
    table = read_table(path, ctf, datadir)
    rows = selection.rows(len(table), table.path)
    if rows is not None:
        table = table.take(rows)
    table = table.without_sign_of_all()
    images = table.locate(datadir, table.findings)
    check_table(table, images)
    table.findings[:] = [_tolerated(finding) for finding in table.findings]
    return table, images


def _tolerated(finding: Finding) -> Finding:
    """A warning in place of an error about poses, which a run does not need."""
    if finding.severity is not Severity.error or not _about_poses(finding):
        return finding
    return replace(finding, severity=Severity.warning, remedy=f"Poses of the table are not used. {finding.remedy}")


def _about_poses(finding: Finding) -> bool:
    return finding.column in (*ANGLES, *ORIGINS, *OLD_ORIGINS) or (finding.column or "").startswith("alignments")


@dataclass(frozen=True)
class ParticleSet:
    """N particles whose images stay on disk until they are packed.

    table: metadata
    images: where the images lie
    whole: of the set that these particles were taken from, its `size_angstrom`; None where they are the whole set
    """

    table: ParticleTable
    images: ImageLocation
    whole: float | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        datadir: str | Path | None = None,
        ctf: str | Path | None = None,
        selection: Selection | None = None,
    ) -> ParticleSet:
        """Read a particle table and find its images.

        path: a RELION `.star`, a cryoSPARC `.cs`, or an image stack together with `ctf`
        raises: `InputError` that says what is wrong, how much more is, and what to do
        """
        table, images = find_particles(
            Path(path), Path(datadir) if datadir else None, Path(ctf) if ctf else None, selection or Selection()
        )
        table.findings.refuse_errors()
        assert images is not None, "a stack that is missing is an error"
        return cls(table, images)

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: np.ndarray) -> ParticleSet:
        """Some of the particles, packed as they are in the whole set."""
        return ParticleSet(self.table.take(rows), self.images.take(rows), self.size_angstrom)

    @property
    def size_angstrom(self) -> float:
        """Physical side of the box, Å; what frequencies in cycles per box refer to. The largest, where sets are mixed."""
        if self.whole is not None:
            return self.whole
        return float((self.images.boxes * self.table.optics.of_group("pixel_size").numpy()).max())

    @property
    def box(self) -> int:
        """Pixels along a side of the images; of the coarsest pixels, where sets are mixed."""
        return int(self.size_angstrom / self.table.pixel_size + _SAME_LATTICE)

    @property
    def pixel_size(self) -> float:
        """Å per pixel at that box."""
        return self.size_angstrom / self.box

    def working_box(self, box: int | None = None) -> int:
        """The box a run uses: what the user asked for, or the images' own up to `DEFAULT_BOX`; always even."""
        if box is None:
            return min(self.box, DEFAULT_BOX) // 2 * 2
        most = min(self.box // 2 * 2, _LARGEST_BOX)
        if not SMALLEST_BOX <= box <= most or box % 2:
            reason = f"does not fit images of {self.box} pixels" if box <= _LARGEST_BOX else "is larger than any run can use"
            raise InputError(
                f"--box {box} {reason}",
                remedy=f"Give an even number from {SMALLEST_BOX} to {most}",
            )
        return box

    def darkness(self, box: int) -> float:
        """By how many standard errors protein is dark in the images, those that the table says differ turned over before."""
        return darkness(self, box)

    def looks_dark(self, box: int) -> bool:
        """Whether protein is dark in the images."""
        return self.darkness(box) > 0

    def pack(
        self,
        box: int,
        *,
        invert: bool | None = None,
        recentre: bool = False,
        folder: Path | None = None,
        progress: Callable[[int], None] = lambda n: None,
        device: torch.device = CPU,
        resident: bool = True,
    ) -> Packed:
        """Normalise all images on their background, Fourier-crop them to `box` pixels and pack them.

        Beam tilt and other odd aberrations are undone, and so is anisotropic magnification.

        invert: multiply by -1 (protein is dark in the images); None decides by looking
        recentre: move the particles by the displacements that the table knows of
        folder: keep the packed images in a file there instead of in memory
        progress: called with the number of images done since the last call
        device: where the run computes
        resident: whether the packed images stay on the device too, or wait in memory or on disk until they are needed
        raises: `InputError` for NaN pixels, for images without any variation, and for broken shifts to recentre by
        """
        if recentre and (broken := [f for f in self.table.findings if f.severity is Severity.warning and _about_poses(f)]):
            raise InputError(f"{broken[0].problem}, and --recentre needs it", where=broken[0].where, remedy=broken[0].remedy)
        return pack_particles(
            self, box, invert=invert, recentre=recentre, folder=folder, progress=progress, device=device, resident=resident
        )
