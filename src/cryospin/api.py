"""What Python programs call: the commands as functions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryospin import pipeline
from cryospin.engine.record import Listener
from cryospin.evaluation.evaluate import evaluate as compare
from cryospin.particles import ParticleSet
from cryospin.run import Run, load_run
from cryospin.settings import STARTS, Settings
from cryospin.simulation import ImagingConditions, density_from_source
from cryospin.simulation import simulate as make_images

PathLike = str | Path


def reconstruct(
    particles: PathLike,
    out: PathLike,
    *,
    preset: str = "cryospin",
    proposals: str | None = None,
    box: int | None = None,
    mask_diameter: float | None = None,
    max_resolution: float | None = None,
    symmetry: str = "C1",
    impose: str = "refinement",
    invert: bool | None = None,
    device: str = "auto",
    threads: int | None = None,
    memory: float | None = None,
    seed: int = 0,
    starts: int = STARTS,
    datadir: PathLike | None = None,
    ctf: PathLike | None = None,
    first: int | None = None,
    sample: int | None = None,
    particles_index: PathLike | None = None,
    recentre: bool = False,
    truth_poses: PathLike | None = None,
    shifts: bool = True,
    options: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
) -> Run:
    """Reconstruct a map from particle images whose poses nobody knows.

    The options are those of `cryospin reconstruct` and described in `Settings`; lengths are in Å, `box` in pixels.

    particles: a RELION `.star`, a cryoSPARC `.cs`, or an image stack together with `ctf`
    out: folder for the results, which must not hold a run yet
    options: numbers of `paper` and `cryoai`, as `--set` changes them
    listener: told how the run is getting on
    raises: `InputError` for anything wrong with the input; on Ctrl-C the run is saved and `resume` continues it
    """
    settings = Settings(
        particles=Path(particles),
        out=Path(out),
        preset=preset,
        proposals=proposals,
        box=box,
        mask_diameter=mask_diameter,
        max_resolution=max_resolution,
        symmetry=symmetry,
        impose=impose,
        invert=invert,
        device=device,
        threads=threads,
        memory=memory,
        seed=seed,
        starts=starts,
        datadir=_path(datadir),
        ctf=_path(ctf),
        first=first,
        sample=sample,
        particles_index=_path(particles_index),
        recentre=recentre,
        truth_poses=_path(truth_poses),
        shifts=shifts,
        options=dict(options or {}),
    )
    pipeline.reconstruct(settings, listener)
    return load_run(settings.out)


def resume(
    run: PathLike,
    *,
    threads: int | None = None,
    device: str | None = None,
    memory: float | None = None,
    listener: Listener | None = None,
) -> Run:
    """Continue a run that was stopped, to the same end as if it had not been; a finished one is only loaded.

    raises: `InputError` where there is no run, or its settings or input files have changed
    """
    pipeline.resume(Path(run), listener, threads=threads, device=device, memory=memory)
    return load_run(run)


def simulate(
    out: PathLike,
    source: str = "phantom",
    *,
    n: int = 3000,
    box: int = 64,
    pixel_size: float = 5.0,
    conditions: ImagingConditions | None = None,
    seed: int = 0,
) -> ParticleSet:
    """Simulate particle images of known pose: `particles.star`, `particles.mrcs`, `truth.star` and `truth.mrc` in a folder.

    source: `phantom`, or an atomic model (.pdb, .cif) or map (.mrc)
    n: images; box: pixels; pixel_size: Å
    conditions: how they are imaged; see `ImagingConditions`
    """
    density = density_from_source(source, box, pixel_size, seed)
    make_images(density, pixel_size, n, Path(out), conditions or ImagingConditions(), seed)
    return ParticleSet.load(Path(out) / "particles.star")


def evaluate(
    result: Run | PathLike,
    *,
    truth_map: PathLike | None = None,
    truth_poses: PathLike | None = None,
    symmetry: str = "C1",
    ceiling: bool = True,
    datadir: PathLike | None = None,
) -> dict[str, Any]:
    """Compare a run, or a map alone, with the truth.

    ceiling: also reconstruct from the true poses: the best that any poses could give
    returns: what `cryospin evaluate --json` writes
    raises: `InputError` for files that are missing or do not fit each other
    """
    return compare(
        result.path if isinstance(result, Run) else Path(result),
        truth_map=_path(truth_map),
        truth_poses=_path(truth_poses),
        symmetry=symmetry,
        ceiling=ceiling,
        datadir=_path(datadir),
    )


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)
