"""What a run leaves behind: one folder, every file whole or absent."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from torch import Tensor

from cryospin.engine.candidates import HeadProposer
from cryospin.engine.final import FinalMaps, final_maps
from cryospin.engine.half_sets import HalfSets
from cryospin.engine.held_out import BesideNothing, beside_nothing, shares_in
from cryospin.engine.likeness import CONTRAST_SHELL
from cryospin.engine.problem import Problem
from cryospin.engine.record import EpochRecord
from cryospin.engine.refine import Refinement
from cryospin.errors import InputError
from cryospin.evenly import evenly_spaced
from cryospin.formats.fsc_table import write_fsc
from cryospin.formats.table import AssignedPoses
from cryospin.formats.tensors import write_tensors
from cryospin.formats.volume import write_map
from cryospin.formats.whole import refuse_to_replace, whole
from cryospin.fourier import CPU
from cryospin.geometry.symmetry import in_asymmetric_unit
from cryospin.maps.alignment import mirror
from cryospin.maps.point_groups import Candidates
from cryospin.noise import in_the_mean
from cryospin.packing import Packed
from cryospin.particles import ParticleSet
from cryospin.posed_tables import TABLES, write_tables
from cryospin.poses.gauss_newton import fits_of
from cryospin.poses.modes import Modes
from cryospin.report.evidence import gather_evidence, write_evidence
from cryospin.settings import Settings

_CONTRAST_IMAGES = 2000


@dataclass(frozen=True)
class Result:
    """A finished reconstruction.

    particles: the input
    config: everything that was decided, as plain values
    maps: of all images and of each half, with their FSC
    poses: the best mode of each image, by image; shifts in pixels of the maps
    competing: all modes that were left
    confidence: posterior probability of the best mode among them by the map of the other half, `(N,)`
    half: 0 or 1 for each image
    centre: displacements that were undone on load, `(N, 2)`, Å
    encoder: the trained heads' weights; empty where a run had none
    evidence: what the report shows of the images
    measured: what new images of the same particle are compared with the map by: `noise` of each shell, usual `contrast`
        relative to the map and its `spread`, and the last shell `limit` that poses were compared at; empty where a preset
        does not say
    beside: what images gain in the other half's map, and what images of nothing gain there
    """

    particles: ParticleSet
    config: dict[str, object]
    maps: FinalMaps
    poses: Modes
    competing: Modes
    confidence: Tensor
    half: Tensor
    centre: Tensor
    encoder: dict[str, Tensor]
    evidence: dict[str, Tensor]
    measured: dict[str, Tensor]
    beside: BesideNothing

    @classmethod
    def of(cls, settings: Settings, particles: ParticleSet, packed: Packed, refinement: Refinement) -> Result:
        """Reconstruct the final maps from a refinement's poses."""
        problem, sets, limit = refinement.problem, refinement.sets, refinement.limit
        competing, rank = refinement.modes.ranked()
        share = shares_in(sets, competing, limit)
        ranked, rank = competing.to(CPU), rank.to(CPU)
        unit = in_asymmetric_unit(ranked.poses.rotation, problem.group.to(CPU))
        ranked = ranked.with_poses(ranked.poses._replace(rotation=unit), ranked.misfit)
        heads = next((p.heads for p in refinement.proposers if isinstance(p, HeadProposer)), None)
        maps, best = final_maps(sets, sets.spread(competing, limit)), ranked.best()
        contrast, spread = _usual_contrast(maps, best.to(maps.map.device), refinement)
        maps = maps.cpu()
        return cls(
            particles=particles,
            config=settings.table() | resolved(problem, packed),
            maps=maps,
            poses=best,
            competing=ranked,
            confidence=share.cpu()[rank == 0],
            half=sets.half.cpu(),
            centre=packed.centre,
            encoder={name: weight.cpu() for name, weight in heads.weights().items()} if heads else {},
            evidence=gather_evidence(
                maps.map,
                sets.observations(problem.last_shell),
                best.poses,
                shortfall=sets.shortfall,
                shell=maps.size_angstrom / maps.resolution,
                group=problem.group,
                heads=heads,
            ),
            measured={
                "noise": in_the_mean(sets.noise, problem.observations).cpu(),
                "contrast": contrast.cpu(),
                "spread": spread.cpu(),
                "limit": torch.tensor(limit),
            },
            beside=held_beside_nothing(sets),
        )


def resolved(problem: Problem, packed: Packed) -> dict[str, object]:
    """What a run settled of the things its user left open."""
    return {
        "box": problem.box,
        "pixel_size_A": problem.pixel_size,
        "mask_diameter_A": problem.mask_diameter * problem.box * problem.pixel_size,
        "max_resolution_A": problem.angstrom(problem.last_shell),
        "invert": packed.inverted,
        "signed": packed.signed,
    }


def held_beside_nothing(sets: HalfSets) -> BesideNothing:
    """Images of either half and images of nothing in the other half's map, at low frequencies."""
    radius = min(CONTRAST_SHELL, sets.problem.last_shell)
    return beside_nothing(sets.problem, sets.observations(radius), sets.half, lambda half: sets.volume(half, radius))


def _usual_contrast(maps: FinalMaps, best: Modes, refinement: Refinement) -> tuple[Tensor, Tensor]:
    """Median contrast of some images relative to the final map, at low frequencies, and how much it varies.

    The variation is a robust standard deviation in units of each image's standard error, 1 at least.
    """
    problem = refinement.problem
    radius = min(CONTRAST_SHELL, problem.last_shell)
    rows = evenly_spaced(len(best), _CONTRAST_IMAGES)
    some = best.poses.take(rows.to(best.misfit.device))
    volume, grid = problem.masked_volume(maps.map, radius)
    fit = fits_of(volume, grid, refinement.sets.observations(radius), some)
    return fit.contrast.median(), fit.contrast_spread().clamp_min(1)


RECORDS = ("log.txt", "metrics.jsonl")
"""What grows line by line while a run goes."""

_MAPS = ("map", "map_other_hand", "half1", "half2", "mask", "map_sharpened", "local_resolution")
_TABLES = (*TABLES, "fsc.csv", "symmetry.json")
_PICTURES = ("fsc.png", "orientations.png", "slices.png", "progress.png", "heads.png")
_PAGE = ("report.html", "report", "tensorboard")

WRITTEN = (*(f"{name}.mrc" for name in (*_MAPS, "map_from_poses")), *_TABLES, *_PICTURES, *_PAGE, *RECORDS, "checkpoints")
"""What a run leaves in its folder, but for its settings."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run."""

    path: Path

    @classmethod
    def create(cls, settings: Settings) -> RunFolder:
        """Make the folder; raises `InputError` where it already holds a run."""
        path = settings.out
        cls.refuse_if_used(path)
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        folder.configure(settings)
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of a run that was begun; raises `InputError` where there is none."""
        if not (path / "config.toml").is_file():
            raise InputError("holds no run", where=path, remedy="Give the folder that cryospin reconstruct --out wrote")
        return cls(path)

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints are."""
        return self.path / "checkpoints"

    @property
    def origin(self) -> Path:
        """The file that says what it was begun with."""
        return self.checkpoints / "origin.json"

    @property
    def finished(self) -> bool:
        """Whether every result is there."""
        return (self.checkpoints / "finished.json").is_file()

    def configure(self, settings: Settings) -> None:
        """Write what the run is asked to do."""
        self._write_text("config.toml", tomli_w.dumps(settings.table()))

    def config(self) -> dict[str, Any]:
        """What `config.toml` says; raises `InputError` where it cannot be read."""
        path = self.path / "config.toml"
        try:
            return tomllib.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be read ({error})", where=path, remedy="Give another run's folder") from error

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other processes from working on the same run meanwhile; raises `InputError` where one does already."""
        import fcntl

        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise InputError(
                "another process is working on this run", where=self.path, remedy="Wait for it, or stop it first"
            ) from error
        except OSError:
            # Some network file systems know no locks; the run is none the worse for it.
            pass
        try:
            yield
        finally:
            os.close(handle)

    def discard(self) -> None:
        """Remove a run that has read nothing yet, and its folder if nothing else is in it."""
        for name in ("config.toml", *RECORDS):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.checkpoints, self.path):
            with suppress(OSError):
                folder.rmdir()

    def written(self) -> dict[str, int]:
        """Bytes that each record holds."""
        return {name: path.stat().st_size for name in RECORDS if (path := self.path / name).exists()}

    def cut_back(self, written: dict[str, int]) -> None:
        """Make the records what they were when they held so many bytes, and remove what was never written to its end."""
        for name in RECORDS:
            path = self.path / name
            if path.exists() and path.stat().st_size > written.get(name, 0):
                os.truncate(path, written.get(name, 0))
        for folder in (self.path, self.checkpoints, self.path / "report"):
            for part in folder.glob(".*.part"):
                part.unlink()

    def finish(self, summary: dict[str, Any]) -> None:
        """Say that every result is there."""
        self._write_text("checkpoints/finished.json", json.dumps(summary, indent=1) + "\n")

    def summary(self) -> dict[str, Any]:
        """What `finish` wrote."""
        return dict(json.loads((self.checkpoints / "finished.json").read_text()))

    @staticmethod
    def refuse_if_used(path: Path) -> None:
        """Raise `InputError` for a folder that holds a run, or a file that a run would write over; and for a file."""
        if (path / "config.toml").exists():
            raise InputError("already holds a run", where=path, remedy="Give another --out, or remove it first")
        refuse_to_replace(path, WRITTEN)

    def log(self, seconds: float, text: str) -> None:
        """Add a line to `log.txt`."""
        self._append("log.txt", f"{seconds:8.1f} s  {text}")

    def symmetry(self, candidates: Candidates) -> None:
        """Write `symmetry.json`, the point groups that the map may have."""
        self._write_text("symmetry.json", json.dumps(candidates.table(), indent=2) + "\n")

    def epoch(self, record: EpochRecord) -> None:
        """Add a line to `metrics.jsonl`."""
        self._append("metrics.jsonl", json.dumps(asdict(record)))

    def write(self, result: Result) -> None:
        """All results and their figures."""
        from cryospin.report.page import write_report

        maps = result.maps
        sharpened, local = maps.sharpened[0], maps.local_resolution()
        densities = (maps.map, mirror(maps.map), *maps.halves, maps.mask, sharpened, local)
        for name, density in zip(_MAPS, densities, strict=True):
            write_map(self.path / f"{name}.mrc", density, maps.pixel_size)
        write_fsc(self.path / "fsc.csv", maps.size_angstrom, vars(maps.fsc))
        write_tables(self.path, result.particles.table, assigned(result), result.evidence["shortfall"].numpy())
        self._write_modes(result)
        if result.measured:
            write_tensors(self.checkpoints / "model.safetensors", result.measured)
        if result.encoder:
            write_tensors(self.checkpoints / "heads.safetensors", result.encoder)
        self._write_text("config.toml", tomli_w.dumps(result.config))
        write_evidence(self.path, result.evidence)
        write_report(self.path)

    def _write_modes(self, result: Result) -> None:
        """Every pose that was still in the running, with its misfit."""
        modes = result.competing
        found = {**modes.poses._asdict(), "misfit": modes.misfit, "half": result.half}
        write_tensors(self.checkpoints / "modes.safetensors", found)

    def _append(self, name: str, line: str) -> None:
        with (self.path / name).open("a", encoding="utf-8", errors="surrogateescape") as handle:
            handle.write(line + "\n")

    def _write_text(self, name: str, text: str) -> None:
        with whole(self.path / name) as temporary:
            temporary.write_text(text)


def assigned(result: Result) -> AssignedPoses:
    """What a table says of each particle, in the coordinates of its images."""
    best = result.poses
    return AssignedPoses(
        rotation=best.poses.rotation,
        shift=best.poses.shift.double() * result.maps.pixel_size + result.centre,
        half=result.half.numpy() + 1,
        confidence=result.confidence.double().numpy(),
        log_likelihood=-best.misfit.numpy().astype(np.float64),
    )
