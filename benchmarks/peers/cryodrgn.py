"""cryoDRGN 4.3: `cryodrgn abinit`, from pip, in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.measuring import Cost, measured
from benchmarks.peers.result import write_result
from cryospin.formats.star import read_star

NAME = "cryoDRGN 4.3"
PACKAGES = ("torch==2.13.0", "cryodrgn==4.3.1")
"""Installed in this order, so that a build of PyTorch chosen by the index (such as the one without CUDA) is kept."""

# What a CPU needs: no half precision, no worker processes. White protein is what cryoDRGN, with its CTF, takes for raw
# contrast and inverts by default. The shift grid spans 5 pixels instead of 20 and the pose search takes 2 epochs instead
# of 3: both save time.
ABINIT = (
    "abinit {particles} -o run --ctf ctf.pkl --zdim 0 --explicit-volume --no-amp --num-workers 0 --no-analysis "
    "--t-extent 5 --t-ngrid 5 --epochs-pose-search 2 --checkpoint 1 --log-interval 500 --seed 1"
)

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**33), "MALLOC_TOP_PAD_": str(2**28)}
"""Has the C library keep what was freed; asking the system for it again took two thirds of the time."""


def install(environment: Path) -> None:
    """Into `environment`, unless it is there."""
    if not (environment / "bin" / "cryodrgn").exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        for package in PACKAGES:
            subprocess.run([environment / "bin" / "pip", "install", "--quiet", package], check=True)


def run(data: Path, work: Path, environment: Path, limit: float, threads: int) -> Cost:
    """From particles.star and particles.mrcs to a map, stopped after `limit` seconds."""
    work.mkdir(parents=True)
    program, data = environment / "bin" / "cryodrgn", data.resolve()
    group = read_star(data / "particles.star").optics.groups[0]
    # Without its column the phase shift becomes NaN, and so does everything else.
    given = ["-D", group.box, "--Apix", group.pixel_size, "--ps", 0]
    cost = measured([program, "parse_ctf_star", data / "particles.star", "-o", "ctf.pkl", *given], where=work)
    abinit = [program, *ABINIT.format(particles=data / "particles.mrcs").split()]
    threading = {"OMP_NUM_THREADS": str(threads), **KEEP_MEMORY}
    return cost.then(measured(abinit, limit=limit - cost.seconds, where=work, environment=threading))


def collect(data: Path, work: Path, environment: Path, out: Path) -> str | None:
    """Write map and poses of the last epoch; returns which it is, or None where none with a pose search is done."""
    epochs = [int(p.suffixes[0][1:]) for p in (work / "run").glob("weights.*.pkl")]
    if not any(epochs):
        return None
    last = max(epochs)
    # -P: this folder, which holds a module of the same name as the package, is not where to import from.
    export = [environment.resolve() / "bin" / "python", "-P", Path(__file__).with_name("export_cryodrgn.py").resolve()]
    measured([*export, data.resolve() / "particles.mrcs", f"run/pose.{last}.pkl", "ctf.pkl", "poses.star"], where=work)
    write_result(work / "poses.star", [work / "run" / f"reconstruct.{last}.mrc"], data / "particles.star", out)
    return f"epoch {last}"
