"""Poses by way of a symmetry: a bent map is straightened, mates look alike, and nothing happens without cause."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cryospin.engine.half_sets import HalfSets
from cryospin.engine.panel import Panel
from cryospin.engine.refine import Refinement
from cryospin.evaluation.alignment import move_map
from cryospin.evaluation.pose_error import pose_errors
from cryospin.evaluation.symmetry import suspect
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import exponential, from_relion_angles, random_rotations
from cryospin.geometry.symmetry import point_group
from cryospin.kernels import cpu
from cryospin.kernels.types import Poses
from cryospin.poses.modes import Modes
from cryospin.preparation import prepare, true_poses
from cryospin.second_opinion import SecondOpinion, mate_of
from cryospin.settings import Settings
from cryospin.simulation import ImagingConditions, simulate
from cryospin.stages import Refine, Work

BOX, PIXEL = 36, 6.0


def symmetric(blobs, name):
    """Small blobs, well apart, of a point group whose axes stand in the standard way."""
    group = point_group(name)
    position = torch.cat([(1.1 * blobs.position + 0.08) @ g.double().T for g in group])
    width, weight = (x.repeat(len(group)) for x in (0.6 * blobs.width, blobs.weight))
    return replace(blobs, position=position, width=width, weight=weight)


def test_a_symmetric_map_looks_the_same_at_a_mate(blobs, generator):
    turn, shift = from_relion_angles(torch.tensor([70.0, 50.0, 20.0])).float(), torch.tensor([1.0, -0.7, 0.5])
    volume = move_map(symmetric(blobs, "C3").density(BOX), turn, shift)
    grid, disc = FourierGrid(8), HalfDisc.build(8)
    poses = Poses(torch.arange(20), random_rotations(20, generator), torch.randn(20, 2, generator=generator))
    mate = mate_of(poses, turn @ point_group("C3")[1] @ turn.T, shift)

    def images(at):
        return cpu.slices(map_to_grid(volume, grid), grid, at.rotation, disc) * disc.shift_phase(at.shift, BOX)

    here, there = images(poses), images(mate)
    cross = (here.conj() * there).real.sum(1) / (here.abs().square().sum(1) * there.abs().square().sum(1)).sqrt()
    assert float(cross.min()) > 0.99


def test_only_what_looks_symmetric_is_suspected(blobs):
    assert suspect(blobs.density(BOX)) is None
    found = suspect(symmetric(blobs, "D2").density(BOX))
    assert found is not None
    assert found.name == "D2"


class Silent:
    """A journal that keeps its notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def expect(self, stage, epochs):
        pass

    def epoch(self, *record):
        pass


def refined(tmp_path, density, bend):
    """A finished refinement without symmetry that began at true poses, bent by so many degrees."""
    simulate(density, PIXEL, 500, tmp_path, ImagingConditions(snr=0.3, shift_sd=1.0), seed=3)
    settings = Settings(
        particles=tmp_path / "particles.star", out=tmp_path / "run", truth_poses=tmp_path / "truth.star", proposals="grid"
    )
    particles, packed, problem = prepare(settings)
    rotation, shift = true_poses(settings, particles, packed)
    view = rotation[:, 2]
    field = torch.stack([view[:, 0] * view[:, 1], view[:, 1] * view[:, 2], view[:, 0] ** 2 - view[:, 2] ** 2], 1)
    bent = rotation.float() @ exponential(math.radians(bend) * field).float()
    modes = Modes(
        Poses(torch.arange(len(problem)), bent, shift.float()),
        torch.zeros(len(problem), dtype=torch.float64),
        torch.zeros(len(problem), dtype=torch.long),
    )
    panel = Panel(problem, "grid", 0)
    half = problem.order(torch.Generator().manual_seed(3)) % 2
    refinement = Refinement(HalfSets.settled(problem, half, modes), modes, 8, panel.rescuers)
    first = Refine(Work(problem, settings, Silent()), panel, refinement)
    while not first.finished:
        first.step()
    return first, SimpleNamespace(rotation=rotation, shift=shift)


def error(refine, truth, group):
    best = refine.refinement.modes.best().poses
    return float(pose_errors(best.rotation, best.shift, truth.rotation, truth.shift, group).rotation_deg.median())


@pytest.mark.slow
def test_a_bent_map_is_straightened(blobs, tmp_path):
    first, truth = refined(tmp_path, symmetric(blobs, "D2").density(BOX), 20.0)
    before = error(first, truth, point_group("D2"))
    stage = SecondOpinion.on(first)
    while not stage.finished:
        stage = stage.step()
    after = error(stage.inner, truth, point_group("D2"))
    assert before > 2.0, "the bend must outlast a refinement"
    assert after < 0.6 * before
    assert len(stage.inner.refinement.problem.group) == 1, "nothing is imposed on what is kept"
    assert any("second poses are kept" in note for note in first.work.journal.notes)


@pytest.mark.slow
def test_a_map_without_symmetry_keeps_its_poses(blobs, tmp_path):
    first, _ = refined(tmp_path, blobs.density(BOX), 0.0)
    assert SecondOpinion.on(first) is None
