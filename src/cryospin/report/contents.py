"""What a report is made from: the files of a run, each of which may not be there yet."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cryospin.errors import InputError
from cryospin.formats.fsc_table import FscTable, read_fsc
from cryospin.formats.star import StarSource, read_star
from cryospin.formats.tensors import read_tensors
from cryospin.formats.volume import read_map
from cryospin.geometry.symmetry import point_group
from cryospin.report.evidence import read_evidence
from cryospin.report.point_groups import SymmetryFound, read_symmetry
from cryospin.settings import imposed_group

ABOUT = Path("report") / "about.json"
"""Versions and devices a run used, and when it began."""

_RESULTS = ("map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "fsc.csv", "particles.star", "metrics.jsonl")
_CONFIDENCE = "rlnMaxValueProbDistribution"
_STAMP = re.compile(r"\s*([0-9]+\.[0-9]) s  ")
_NO_STRUCTURE = "no structure was found"
_BEFORE_IMPOSING = ("explore", "compete")
_COMMON_START = re.compile(r"half-sets start from one map low-passed to ([0-9.]+ Å)")

Record = dict[str, Any]


@dataclass(frozen=True)
class Maps:
    """Maps of a run, `(d, d, d)` each; the halves, the mask and the local resolution are None while the run goes on.

    voxel: Å
    local_A: resolution at each voxel; None as well for runs of a version that did not write it
    """

    density: Tensor
    voxel: float
    halves: tuple[Tensor, Tensor] | None = None
    mask: Tensor | None = None
    local_A: Tensor | None = None

    @property
    def size_A(self) -> float:
        """Side of the box."""
        return self.density.shape[0] * self.voxel


@dataclass(frozen=True)
class Particles:
    """What the report shows of N particles.

    rotation: `(N, 3, 3)`; shift_A: `(N, 2)`
    defocus_A: mean of both, `(N,)`
    confidence: posterior probability of the best pose, `(N,)`, or None
    names: of the images, as the table has them
    """

    rotation: Tensor
    shift_A: np.ndarray
    defocus_A: np.ndarray
    confidence: np.ndarray | None
    names: list[str]

    def __len__(self) -> int:
        return len(self.rotation)


@dataclass
class Contents:
    """Everything a page can show; what is not known yet is empty or None.

    folder: the run's
    running: whether the run goes on, so that the page should load itself again
    symmetry: which point groups the map may have, where the run looked for them
    modes: image, rotation, shift, misfit of every pose still in the running
    rotation: of the best poses of those images that have one, `(n, 3, 3)`
    """

    folder: Path
    running: bool
    config: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    fsc: FscTable | None = None
    maps: Maps | None = None
    particles: Particles | None = None
    rotation: Tensor | None = None
    evidence: dict[str, Tensor] = field(default_factory=dict)
    modes: dict[str, Tensor] = field(default_factory=dict)
    symmetry: SymmetryFound | None = None

    @property
    def finished(self) -> bool:
        """Whether the results are there."""
        return self.particles is not None

    @property
    def group(self) -> Tensor:
        """The point group that poses are equivalent by, `(order, 3, 3)`."""
        return point_group(self.group_name)

    @property
    def group_name(self) -> str:
        """Its name; C1 as long as the map does not stand on the axes of the group that is to be imposed."""
        stage = self.records[-1].get("stage") if self.records else None
        later = stage in _BEFORE_IMPOSING and self.config.get("impose") != "start"
        return "C1" if later and not self.finished else imposed_group(str(self.config.get("symmetry", "C1")))

    @property
    def seconds(self) -> float:
        """How long the run took, or how long it has been going, as far as its epochs and its log tell."""
        epochs = [float(r["seconds"]) for r in self.records if r.get("seconds") is not None]
        lines = [float(m[1]) for line in self.log if (m := _STAMP.match(line))]
        return max([0.0, *epochs, *lines])

    @property
    def common_start(self) -> str:
        """Resolution of the map that both half maps started from, as the log has it; empty where it does not say."""
        return next((m[1] for line in self.log if (m := _COMMON_START.search(line))), "")

    @property
    def warnings(self) -> list[str]:
        """Lines of the log that warn."""
        return [line.split("warning: ", 1)[1] for line in self.log if "warning: " in line]

    @property
    def no_structure(self) -> str:
        """The warning that nothing was found; empty where the log has none."""
        return next((warning for warning in self.warnings if warning.startswith(_NO_STRUCTURE)), "")


def read_progress(folder: Path, *, running: bool) -> Contents:
    """What a run wrote so far of its course."""
    return Contents(
        folder,
        running,
        config=_read_config(folder / "config.toml"),
        about=_read_about(folder / ABOUT),
        records=read_records(folder / "metrics.jsonl"),
        log=_lines(folder / "log.txt"),
    )


def read_run(folder: Path) -> Contents:
    """A run's files; those of the results only where all are there.

    raises: `InputError` for a folder that is no run's, and for files that were damaged
    """
    if not (folder / "config.toml").is_file():
        problem = "not a run folder" if folder.is_dir() else "no such folder"
        raise InputError(problem, where=folder, remedy="Give the folder that cryospin reconstruct --out wrote")
    found = read_progress(folder, running=False)
    if all((folder / name).is_file() for name in _RESULTS):
        density, voxel = read_map(folder / "map.mrc")
        halves = read_map(folder / "half1.mrc")[0], read_map(folder / "half2.mrc")[0]
        local = folder / "local_resolution.mrc"
        local_A = read_map(local)[0] if local.is_file() else None
        found.maps = Maps(density, voxel, halves, read_map(folder / "mask.mrc")[0], local_A)
        found.fsc = read_fsc(folder / "fsc.csv")
        found.particles = _read_particles(folder / "particles.star")
        found.rotation = found.particles.rotation
        found.evidence = _of_all(read_evidence(folder), len(found.particles))
        found.modes = _read_modes(folder / "checkpoints" / "modes.safetensors")
        found.symmetry = read_symmetry(folder / "symmetry.json")
    return found


def read_records(path: Path) -> list[Record]:
    """The epochs of a run; raises `InputError` that names the line that cannot be read."""
    records = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            record = json.loads(line) if line.strip() else None
        except json.JSONDecodeError as error:
            raise InputError(f"line {number} is not JSON ({error.msg})", where=path) from error
        if isinstance(record, dict):
            records.append(record)
    return records


def _lines(path: Path) -> list[str]:
    """Lines of a text file whose names need not be UTF-8; none where there is no file."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8", errors="replace"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"is not TOML ({error})", where=path) from error


def _read_about(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"is not JSON ({error})", where=path, remedy="Remove it; the report then does without") from error


def _read_particles(path: Path) -> Particles:
    """A table with poses, without a look at its images."""
    table = read_star(path)
    if table.poses is None:
        table.findings.refuse_errors()
        raise InputError("has no poses", where=path, remedy="Let the run finish first")
    optics = table.optics
    confidence = None
    if isinstance(table.source, StarSource):
        column = table.source.star.columns(table.source.block, [_CONFIDENCE])
        confidence = np.array(column[_CONFIDENCE], dtype=float) if column else None
    return Particles(
        rotation=table.poses.rotation.float(),
        shift_A=table.poses.shift.numpy(),
        defocus_A=((optics.defocus_u + optics.defocus_v) / 2).numpy(),
        confidence=confidence,
        names=[f"{s + 1:06d}@{table.images.files[f]}" for s, f in zip(table.images.slice, table.images.stack, strict=True)],
    )


def _read_modes(path: Path) -> dict[str, Tensor]:
    return read_tensors(path, "Remove it; the report then does without") if path.is_file() else {}


def _of_all(evidence: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The evidence, if it is of as many particles as the table has."""
    return evidence if len(evidence.get("shortfall", ())) == count else {}
