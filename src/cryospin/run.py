"""A run's results as Python objects, read from its folder when they are asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import torch

from cryospin.errors import InputError
from cryospin.formats.fsc_table import FscTable, read_fsc
from cryospin.formats.star import StarSource, read_star
from cryospin.formats.volume import read_map
from cryospin.geometry.rotations import to_relion_angles
from cryospin.geometry.symmetry import point_group
from cryospin.maps.fsc import GOLD_STANDARD, resolution
from cryospin.results import RunFolder
from cryospin.settings import imposed_group

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class DensityMap:
    """A map.

    density: float32 `(d, d, d)` as `[z, y, x]`; pixel_size: Å per voxel
    """

    density: np.ndarray
    pixel_size: float


@dataclass(frozen=True)
class ParticlePoses:
    """Where each particle of the table stands, row by row.

    rotation: float64 `(N, 3, 3)`, from the particle's frame to the microscope's
    shift_A: float64 `(N, 2)`, displacement of the particle (x, y) from the image's centre, Å
    confidence: posterior probability of the pose, `(N,)`
    half: 1 or 2, the half-set, `(N,)`
    """

    rotation: np.ndarray
    shift_A: np.ndarray
    confidence: np.ndarray
    half: np.ndarray

    @classmethod
    def of_table(cls, path: Path) -> Self:
        """The poses in a `particles.star` that a run or `assign` wrote."""
        table = read_star(path)
        assert table.poses is not None, "a run writes poses"
        assert isinstance(table.source, StarSource), "it is a STAR file"
        found = table.source.star.columns(table.source.block, ("rlnMaxValueProbDistribution", "rlnRandomSubset"))
        return cls(
            table.poses.rotation.numpy(),
            table.poses.shift.numpy(),
            np.array(found["rlnMaxValueProbDistribution"], dtype=np.float64),
            np.array(found["rlnRandomSubset"], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.rotation)

    @property
    def angles_deg(self) -> np.ndarray:
        """RELION's rot, tilt and psi, `(N, 3)`."""
        return to_relion_angles(torch.from_numpy(self.rotation)).numpy()


@dataclass(frozen=True)
class Run:
    """A finished run.

    path: its folder
    """

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every setting as it was used."""
        return RunFolder(self.path).config()

    @cached_property
    def map(self) -> DensityMap:
        """The map, masked and filtered."""
        return self._map("map.mrc")

    @cached_property
    def other_hand(self) -> DensityMap:
        """Its mirror image, which projections cannot tell from it."""
        return self._map("map_other_hand.mrc")

    @cached_property
    def half_maps(self) -> tuple[DensityMap, DensityMap]:
        """The half maps, neither masked nor filtered."""
        return self._map("half1.mrc"), self._map("half2.mrc")

    @cached_property
    def mask(self) -> DensityMap:
        """The soft mask, 0 to 1."""
        return self._map("mask.mrc")

    @cached_property
    def poses(self) -> ParticlePoses:
        """The pose of every particle, in the order of the input."""
        return ParticlePoses.of_table(self.path / "particles.star")

    @cached_property
    def fsc(self) -> pd.DataFrame:
        """FSC of the half maps; columns `resolution_A`, `fsc_unmasked`, `fsc_masked`, `fsc_randomised`, `fsc_corrected`."""
        return pd.read_csv(self.path / "fsc.csv")

    @property
    def resolution(self) -> float:
        """Å at which the corrected FSC falls below 0.143; that of the last shell where it never does."""
        return resolution(self._fsc.from_zero(), GOLD_STANDARD, self._fsc.side_A)

    @property
    def found_structure(self) -> bool | None:
        """Whether images fit the map better than images of nothing do; None for a run of an earlier version."""
        found: bool | None = RunFolder(self.path).summary().get("found_structure")
        return found

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row an epoch: stage, seconds, frequency limit, loss, change of the poses and so on."""
        return pd.DataFrame(self._records)

    def plot_fsc(self, path: str | Path | None = None) -> Figure:
        """FSC curves over frequency; written to a PNG too where a path is given."""
        from cryospin.report.figures import plot_fsc

        return plot_fsc(self._fsc.shells_A, self._fsc.curves, path, resolution_A=self.resolution)

    def plot_orientations(self, path: str | Path | None = None) -> Figure:
        """How densely the views are spread over the sphere."""
        from cryospin.report.figures import plot_orientations

        group = point_group(imposed_group(self.config["symmetry"]))
        return plot_orientations(torch.from_numpy(self.poses.rotation), path, group=group)

    def plot_slices(self, path: str | Path | None = None) -> Figure:
        """Central slices and projections of the map."""
        from cryospin.report.figures import plot_slices

        return plot_slices(torch.from_numpy(self.map.density), self.map.pixel_size, path)

    def plot_local_resolution(self, path: str | Path | None = None) -> Figure:
        """Central slices of the map, coloured by the local resolution, and how much of the particle has which."""
        from cryospin.report.local import plot_local_resolution

        maps = (self.map, self._map("local_resolution.mrc"), self.mask)
        density, local, mask = (torch.from_numpy(m.density) for m in maps)
        return plot_local_resolution(density, local, mask, self.map.pixel_size, path)

    def plot_progress(self, path: str | Path | None = None) -> Figure:
        """Pose change, frequency limit and resolution over time."""
        from cryospin.report.progress import plot_progress

        return plot_progress(self._records, path)

    @cached_property
    def _fsc(self) -> FscTable:
        return read_fsc(self.path / "fsc.csv")

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]

    def _map(self, name: str) -> DensityMap:
        density, pixel_size = read_map(self.path / name)
        return DensityMap(density.numpy(), pixel_size)


def load_run(path: str | Path) -> Run:
    """The results in a run's folder; raises `InputError` where there are none, or not all yet."""
    folder = RunFolder.open(Path(path))
    if not folder.finished:
        raise InputError("is not finished", where=folder.path, remedy=f"Continue it first: cryospin resume {folder.path}")
    return Run(folder.path)
