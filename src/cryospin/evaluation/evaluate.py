"""All the figures of a result whose truth is known."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryospin.engine.final import FinalMaps
from cryospin.errors import InputError
from cryospin.evaluation.ceiling import maps_from_poses
from cryospin.evaluation.pose_error import PoseErrors, pose_errors
from cryospin.formats.fsc_table import read_fsc
from cryospin.formats.read import read_poses
from cryospin.formats.table import GivenPoses
from cryospin.formats.volume import read_map
from cryospin.fourier import resample_map
from cryospin.geometry.symmetry import point_group
from cryospin.maps.alignment import align_maps, apply_alignment
from cryospin.maps.fsc import GOLD_STANDARD, fourier_shell_correlation, never_falls, resolution
from cryospin.maps.point_groups import find_symmetry
from cryospin.selection import Selection
from cryospin.volume.mask import spherical_mask

_HALF = 0.5
_WITHIN = 0.95
"""Diameter of the sphere, fraction of the box, in which the true map's symmetry is looked for."""

_TRUE = 0.9
"""Correlation with its turned self from which on a true map has a symmetry; one that it has in part would flatter."""

_MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))


def evaluate(
    result: Path,
    *,
    truth_map: Path | None = None,
    truth_poses: Path | None = None,
    symmetry: str = "C1",
    ceiling: bool = True,
    datadir: Path | None = None,
) -> dict[str, Any]:
    """Compare a run, or a map alone, with the truth.

    truth_poses: a RELION `.star` or a cryoSPARC `.cs` with `alignments3D`
    symmetry: the particle's point group; its axes may stand anywhere in the truth: they are looked for in the true map, or
        taken from a run that imposed the group
    ceiling: also reconstruct from the true poses, if there are any
    returns: `rotation_error_deg`, `shift_error_A`, `hand`, `resolution_A`, `map_correlation`, and `true_poses_A`, the
        resolutions of a map made from the run's images at their true poses; None or empty where something is not given.
        `at_most` names the resolutions of these two that were not reached: the curve stays above its threshold to the last
        shell, and the number is the finest that the box could tell, not a measurement
    raises: `InputError` for files that are missing or do not fit each other
    """
    run = result if result.is_dir() else None
    if run is not None and not (run / "map.mrc").is_file():
        raise InputError("holds no map.mrc", where=run, remedy="Give the --out folder of a finished run")
    if run is None and truth_poses is not None:
        raise InputError("a map alone has no poses", where=result, remedy="Give the run's folder, or drop --truth-poses")
    if run is None and truth_map is None:
        raise InputError("there is nothing to compare the map with", where=result, remedy="Give --truth-map")
    density, pixel_size = read_map(run / "map.mrc" if run else result)
    figures: dict[str, Any] = {
        "rotation_error_deg": None,
        "shift_error_A": None,
        "hand": None,
        "resolution_A": {"fsc_0_5": None, "fsc_0_143": None, "half_map_0_143": None},
        "map_correlation": None,
        "true_poses_A": None,
        "at_most": {"resolution_A": [], "true_poses_A": []},
    }
    if run is not None and (run / "fsc.csv").is_file():
        table = read_fsc(run / "fsc.csv")
        _note(figures, "resolution_A", "half_map_0_143", table.from_zero(), table.side_A)
    truth = _true_map(truth_map, density, pixel_size) if truth_map else None
    if truth is not None:
        _compare_maps(figures, density, truth, pixel_size)
    if truth_poses is not None:
        assert run is not None, "a map alone was refused"
        own = read_poses(run / "particles.star")
        true = _of_run(run, read_poses(truth_poses), own)
        frame = _compare_poses(figures, own, true, _Axes.of(run, symmetry, truth), truth_poses)
        if ceiling:
            _note_ceiling(figures, _best_maps(run, true, datadir, frame), truth)
    return figures


def _true_map(path: Path, density: Tensor, pixel_size: float) -> Tensor:
    """The true map at the result's box."""
    truth, voxel = read_map(path)
    side, own = voxel * truth.shape[0], pixel_size * density.shape[0]
    if voxel > 0 and abs(side - own) > 0.01 * own:
        raise InputError(
            f"the map is {side:.0f} Å wide, the result {own:.0f} Å", where=path, remedy="Give a map of the same box in Å"
        )
    return resample_map(truth, density.shape[0])


def _compare_maps(figures: dict[str, Any], density: Tensor, truth: Tensor, pixel_size: float) -> None:
    """Align, then correlate."""
    alignment = align_maps(density, truth)
    aligned = apply_alignment(density, alignment)
    fsc = fourier_shell_correlation(aligned, truth)
    side = pixel_size * density.shape[0]
    _note_truth(figures, "resolution_A", fsc, side)
    figures["map_correlation"] = float(torch.corrcoef(torch.stack([aligned.flatten(), truth.flatten()]))[0, 1])
    figures["hand"] = "flipped" if alignment.flipped else "same"


@dataclass(frozen=True)
class _Axes:
    """A point group, and how its axes stand.

    frame: `(3, 3)`, columns are the group's x, y and z axes in the truth's frame
    own: the run imposed the group, so that its axes stand in the standard way in the run's frame
    """

    name: str
    frame: Tensor
    own: bool

    @classmethod
    def of(cls, run: Path, symmetry: str, truth: Tensor | None) -> _Axes:
        """As the run imposed them, as they are in the true map, or else in the standard way.

        raises: `InputError` where the true map does not have the group
        """
        frame, name = torch.eye(3, dtype=torch.float64), symmetry.strip().upper()
        if len(point_group(symmetry)) == 1:
            return cls(name, frame, own=False)
        if truth is not None:
            found = find_symmetry(truth * spherical_mask(truth.shape[0], _WITHIN), name)
            if not found.holds() or found.score < _TRUE:
                raise InputError(
                    f"--symmetry {symmetry}: the true map does not have it (it scores {found.score:.2f} of 1)",
                    remedy="Give the point group of the true map",
                )
            frame = found.frame
        return cls(name, frame, own=_imposed(run) == name)


def _imposed(run: Path) -> str:
    """The point group that a run imposed; nothing where it does not say."""
    try:
        return str(tomllib.loads((run / "config.toml").read_text()).get("symmetry", "")).strip().upper()
    except (OSError, tomllib.TOMLDecodeError):
        return ""


def _compare_poses(figures: dict[str, Any], own: GivenPoses, true: GivenPoses, axes: _Axes, path: Path) -> Tensor:
    """Pose errors modulo the point group; returns how its axes stand in the truth's frame."""
    if len(own.rotation) != len(true.rotation):
        raise InputError(
            f"has {len(true.rotation)} particles, the run {len(own.rotation)}", where=path, remedy="Give the same particles"
        )
    errors, frame = _errors(own, true, axes)
    figures["rotation_error_deg"] = errors.summary()
    figures["shift_error_A"] = {
        "median": float(errors.shift.median()),
        "median_px": float(errors.shift.median()) / own.pixel_size,
    }
    figures["hand"] = "flipped" if errors.flipped else "same"
    return frame


def _errors(own: GivenPoses, true: GivenPoses, axes: _Axes) -> tuple[PoseErrors, Tensor]:
    """Pose errors modulo the point group, and how its axes stand in the truth's frame."""
    group, frame = point_group(axes.name).double(), axes.frame
    if axes.own:
        # With `R = R_true Q`, a turn g of the run's frame is `Q g Q^T` in the truth's, mirrored where the hand is the other.
        back = pose_errors(true.rotation, true.shift, own.rotation, own.shift, group)
        frame = _MIRROR @ back.turn if back.flipped else back.turn
    return pose_errors(own.rotation, own.shift, true.rotation, true.shift, frame @ group @ frame.T), frame


def errors_of_each(run: Path, truth_poses: Path, truth_map: Path | None = None, symmetry: str = "C1") -> PoseErrors:
    """The error of each particle of a run, modulo the point group; arguments as for `evaluate`, shifts in Å."""
    density, pixel_size = read_map(run / "map.mrc")
    truth = _true_map(truth_map, density, pixel_size) if truth_map else None
    own = read_poses(run / "particles.star")
    true = _of_run(run, read_poses(truth_poses), own)
    return _errors(own, true, _Axes.of(run, symmetry, truth))[0]


def _of_run(run: Path, true: GivenPoses, own: GivenPoses) -> GivenPoses:
    """The true poses of the particles that a run used, found by the names of their images, or else row by row."""
    if (paired := true.of(own.images)) is not None:
        return paired
    if len(true.rotation) == len(own.rotation):
        return true
    try:
        config = tomllib.loads((run / "config.toml").read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"config.toml cannot be used ({error})", where=run, remedy="Give a finished run's folder"
        ) from error
    index = config.get("particles_index")
    selection = Selection(config.get("first"), Path(index) if index else None, config.get("sample"))
    rows = selection.rows(len(true.rotation), run / "particles.star")
    return true if rows is None else true.take(rows)


def _best_maps(run: Path, true: GivenPoses, datadir: Path | None, frame: Tensor) -> FinalMaps:
    """Maps from the true poses; raises `InputError` that says how to do without where the run's images are gone."""
    try:
        return maps_from_poses(run, true, datadir, frame)
    except InputError as error:
        without = "or do without a map from the true poses: --no-ceiling"
        raise InputError(
            error.problem, where=error.where, remedy=f"{error.remedy}, {without}" if error.remedy else without.capitalize()
        ) from error


def _note_ceiling(figures: dict[str, Any], best: FinalMaps, truth: Tensor | None) -> None:
    """The same figures for maps from the true poses, made as the run made its own."""
    figures["true_poses_A"] = {"fsc_0_5": None, "fsc_0_143": None, "half_map_0_143": None}
    _note(figures, "true_poses_A", "half_map_0_143", best.fsc.corrected, best.size_angstrom)
    if truth is not None:
        _note_truth(figures, "true_poses_A", fourier_shell_correlation(best.map, truth), best.size_angstrom)


def _note_truth(figures: dict[str, Any], whose: str, fsc: Tensor, side: float) -> None:
    """Resolutions by agreement with the truth."""
    _note(figures, whose, "fsc_0_5", fsc, side, _HALF)
    _note(figures, whose, "fsc_0_143", fsc, side)


def _note(
    figures: dict[str, Any], whose: str, name: str, fsc: Tensor, side: float, threshold: float = GOLD_STANDARD
) -> None:
    """Add a resolution to the figures, and its name to the bounds where the curve stays above the threshold."""
    figures[whose][name] = resolution(fsc, threshold, side)
    if never_falls(fsc, threshold):
        figures["at_most"][whose].append(name)
