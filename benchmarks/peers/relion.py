"""RELION 3.1: an initial model by stochastic gradient descent, then auto-refinement (Debian package `relion`)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from benchmarks.measuring import Cost, measured
from benchmarks.peers.result import write_result
from cryospin.formats.star import read_star
from cryospin.formats.star_text import parse_star

NAME = "RELION 3.1"
SEARCH = "--offset_range 4 --offset_step 2 --oversampling 1 --maxsig 100 --pool 3"
"""Shifts up to 4 pixels. Of the poses on the coarse grid the best 100 are looked at more closely: without that limit the
first iterations, whose reference is a blur, take several times as long."""

INITIAL = (
    "relion_refine --i normed.star --o initial/run --denovo_3dref --sgd --sgd_ini_iter 20 --sgd_inbetween_iter 30 "
    "--sgd_fin_iter 15 --sgd_ini_resol 35 --sgd_fin_resol 15 --sgd_ini_subset 100 --sgd_fin_subset 200 --sgd_write_iter 5 "
    "--ctf --K 1 --sym C1 --flatten_solvent --zero_mask --particle_diameter {diameter} --pad 1 --skip_gridding "
    f"--healpix_order 1 --dont_combine_weights_via_disc --random_seed 1 --j {{threads}} {SEARCH}"
)
"""As the InitialModel job has it, with fewer iterations than its 50, 200 and 50: it is made for larger sets."""

REFINEMENT = (
    "mpirun --oversubscribe -n {ranks} relion_refine_mpi --o refined/run --auto_refine --split_random_halves --i {poses} "
    "--ref {map} --ini_high 30 --ctf --sym C1 --flatten_solvent --zero_mask --particle_diameter {diameter} --pad 2 "
    "--healpix_order 2 --auto_local_healpix_order 4 --low_resol_join_halves 40 --norm --scale --random_seed 1 "
    f"--j 1 {SEARCH}"
)
"""As the 3D auto-refine job has it; one process leads and the others work."""

AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
"""Open MPI refuses to run as root, which is what one is in a container."""

_CONVERGED = 10**6


def install(environment: Path) -> None:
    """From the distribution's packages, unless it is there; they have no environment of their own."""
    if shutil.which("relion_refine_mpi") is None:
        subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", "relion"], check=True)


def run(data: Path, work: Path, environment: Path, limit: float, threads: int) -> Cost:
    """From particles.star and particles.mrcs to a map, stopped after `limit` seconds."""
    group = read_star(data / "particles.star").optics.groups[0]
    assert group.box is not None, "a simulated table tells its box"
    for folder in ("initial", "refined"):
        (work / folder).mkdir(parents=True)
    diameter = round(0.84 * group.box * group.pixel_size)
    cost = _normalised(data, work, round(0.44 * group.box))
    initial = INITIAL.format(diameter=diameter, threads=threads).split()
    cost = cost.then(measured(initial, limit=limit - cost.seconds, where=work))
    if not cost.finished:
        return cost
    last = _last_written(work)
    assert last is not None, "RELION writes its last iteration"
    poses, maps, _ = last
    refinement = REFINEMENT.format(diameter=diameter, ranks=threads + 1, poses=poses, map=maps[0]).split()
    return cost.then(measured(refinement, limit=limit - cost.seconds, where=work, environment=AS_ROOT))


def collect(data: Path, work: Path, environment: Path, out: Path) -> str | None:
    """Write map and poses of the last iteration; returns which it is, or None where there is none yet."""
    if (last := _last_written(work)) is None:
        return None
    poses, maps, stage = last
    write_result(poses, maps, data / "particles.star", out)
    return stage


def _normalised(data: Path, work: Path, radius: int) -> Cost:
    """Write normed.star and its images, with noise of mean 0 and deviation 1 outside the particle."""
    files = ["--operate_on", data.resolve() / "particles.mrcs", "--operate_out", "normed"]
    cost = measured(["relion_preprocess", *files, "--norm", "--bg_radius", radius], where=work)
    star = parse_star(data / "particles.star")
    block = star.block("particles")
    assert block is not None, "a simulated table has a particles block"
    names = [f"{name.partition('@')[0]}@normed.mrcs" for name in star.columns(block, ["rlnImageName"])["rlnImageName"]]
    star.replaced(block, {"rlnImageName": names}).write(work / "normed.star")
    return cost


def _last_written(work: Path) -> tuple[Path, list[Path], str] | None:
    """Table and maps (one, or two halves) of the last iteration that was written whole, and what it is called."""
    for folder, stage in (("refined", "refinement"), ("initial", "initial model")):
        tables = {_iteration(path): path.resolve() for path in (work / folder).glob("run*_data.star")}
        for iteration in sorted(tables, reverse=True):
            start = tables[iteration].with_name(tables[iteration].name.removesuffix("data.star"))
            whole = [start.with_name(start.name + "class001.mrc")]
            halves = [start.with_name(f"{start.name}half{i}_class001.mrc") for i in (1, 2)]
            for maps in (whole, halves):
                if iteration > 0 and all(path.exists() for path in maps):
                    return tables[iteration], maps, stage + (f", iteration {iteration}" if iteration < _CONVERGED else "")
    return None


def _iteration(table: Path) -> int:
    """Number of the iteration that `run_itNNN_data.star` is of; `run_data.star` is written at the end."""
    number = re.search(r"_it(\d+)_", table.name)
    return int(number[1]) if number else _CONVERGED
