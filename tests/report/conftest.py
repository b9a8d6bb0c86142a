"""Runs of a few images that are already where they belong: written as a run writes them, in a second or two."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryospin.engine.candidates import HeadProposer
from cryospin.engine.half_sets import HalfSets
from cryospin.engine.problem import Problem
from cryospin.engine.record import EpochRecord
from cryospin.engine.refine import Refinement
from cryospin.geometry.rotations import turn
from cryospin.kernels.types import Poses
from cryospin.poses.modes import Modes
from cryospin.preparation import prepare, true_poses
from cryospin.proposals.grid import GridSearch
from cryospin.proposals.heads import HeadProposals
from cryospin.report.live import write_about
from cryospin.results import Result, RunFolder
from cryospin.settings import Settings
from cryospin.simulation import ImagingConditions, simulate

COUNT, BOX, PIXEL = 240, 24, 8.0
JUNK = (3, 77, 150)
"""Rows whose images hold noise alone."""

NAMES = ["grid", *(f"head {i + 1}" for i in range(7)), "kept"]


@dataclass(frozen=True)
class Written:
    """A run's folder, with what was known when it was written."""

    folder: Path
    problem: Problem
    refinement: Refinement
    density: torch.Tensor

    def copy(self, to: Path) -> Path:
        """Its files elsewhere, to be spoiled."""
        shutil.copytree(self.folder, to)
        return to


def records() -> list[EpochRecord]:
    """Of a short run with every stage."""
    wins = [40, 20, 20, 10, 10, 0, 0, 0, 140]
    return [
        EpochRecord("explore", 60.0, -10.0, epoch=1, seconds=4.0),
        EpochRecord("compete", 40.0, -20.0, winners=wins, winner_names=NAMES, epoch=2, seconds=9.0),
        EpochRecord("refine", 20.0, -30.0, 1.5, wins, NAMES, resolution_A=21.0, epoch=3, seconds=11.0),
    ]


def write_run(data: Path, out: Path, *, heads: bool = True, epochs: int = 3) -> Written:
    """A run that knew the poses from the start."""
    settings = Settings(particles=data / "particles.star", out=out, threads=1, truth_poses=data / "truth.star")
    particles, packed, problem = prepare(settings)
    truth = true_poses(settings, particles, packed)
    assert truth is not None
    poses = Poses(torch.arange(COUNT), truth[0].float(), truth[1].float())
    proposers = []
    if heads:
        guesser = HeadProposer(HeadProposals(1), GridSearch(1.0, 2.0, torch.Generator().manual_seed(2)))
        guesser.learn(problem.observations, poses)
        proposers.append(guesser)
    g = torch.Generator().manual_seed(4)
    sets = HalfSets(problem, torch.randperm(COUNT, generator=g) % 2, problem.noise, torch.zeros(BOX, BOX, BOX))
    # The first image cannot decide between its pose and one that is hardly different.
    other = Poses(torch.tensor([0]), turn(truth[0][:1].float(), torch.tensor([[0.0, 0.0, 0.01]])), truth[1][:1].float())
    modes = Modes.join(
        Modes(poses, torch.full((COUNT,), -30.0, dtype=torch.float64), torch.zeros(COUNT, dtype=torch.long)),
        Modes(other, torch.tensor([-29.5], dtype=torch.float64), torch.zeros(1, dtype=torch.long)),
    )
    sets.update(modes, problem.last_shell)
    sets.measure(modes.best(), problem.last_shell)
    refinement = Refinement(sets, modes, problem.last_shell, proposers)
    folder = RunFolder.create(settings)
    write_about(folder.path, "cpu (as asked)")
    folder.log(0.2, "warning: <b>made up</b> & short")
    for record in records()[:epochs]:
        folder.epoch(record)
    folder.write(Result.of(settings, particles, packed, refinement))
    return Written(out, problem, refinement, sets.combined())


@pytest.fixture(scope="session")
def images(tmp_path_factory, blobs) -> Path:
    """A folder with particles of known pose; three of the images are noise."""
    folder = tmp_path_factory.mktemp("images")
    simulate(blobs.density(BOX), PIXEL, COUNT, folder, ImagingConditions(snr=0.5, shift_sd=1.0), seed=1)
    with mrcfile.open(folder / "particles.mrcs", mode="r+") as handle:
        noise = np.random.default_rng(1).normal(size=(len(JUNK), BOX, BOX))
        handle.data[list(JUNK)] = (noise * handle.data.std()).astype(np.float32)
    return folder


@pytest.fixture(scope="session")
def written(images, tmp_path_factory) -> Written:
    """A finished run."""
    return write_run(images, tmp_path_factory.mktemp("reports") / "run")
