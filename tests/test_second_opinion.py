"""Poses by way of a symmetry, suspected or to be imposed: a bent map is straightened, and nothing happens without cause."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cryospin.engine.compete import Competition, Standing
from cryospin.engine.half_sets import HalfSets
from cryospin.engine.mates import asymmetry, mate_of, take_sides
from cryospin.engine.panel import Panel
from cryospin.engine.refine import Refinement
from cryospin.evaluation.pose_error import pose_errors
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import exponential, from_relion_angles, random_rotations
from cryospin.geometry.symmetry import point_group
from cryospin.kernels import cpu
from cryospin.kernels.types import Poses
from cryospin.maps.alignment import move_map
from cryospin.maps.point_groups import suspects
from cryospin.poses.modes import Modes
from cryospin.preparation import prepare, true_poses
from cryospin.second_opinion import MATES, RELEASED, SecondOpinion, Sides, _with_mates, of_sides
from cryospin.settings import Settings
from cryospin.simulation import ImagingConditions, simulate
from cryospin.stage import Work
from cryospin.stages import LAST_SHELL, Compete, Refine
from notes import Notes

BOX, PIXEL, SNR = 36, 6.0, 0.3


def symmetric(blobs, name):
    """Small blobs, well apart, of a point group whose axes stand in the standard way."""
    return replace(blobs, position=1.1 * blobs.position + 0.08, width=0.6 * blobs.width).with_mates(point_group(name))


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
    assert not suspects(blobs.density(BOX))
    assert [s.name for s in suspects(symmetric(blobs, "D2").density(BOX))] == ["D2"]


def refinement_at(tmp_path, density, bend):
    """A refinement without symmetry, still at true poses bent by so many degrees, and the true poses."""
    folder = tmp_path / f"{bend:g}"
    simulate(density, PIXEL, 500, folder, ImagingConditions(snr=SNR, shift_sd=1.0), seed=3)
    settings = Settings(
        particles=folder / "particles.star", out=folder / "run", truth_poses=folder / "truth.star", proposals="grid"
    )
    particles, packed, problem = prepare(settings)
    rotation, shift = true_poses(settings, particles, packed)
    view = rotation[:, 2]
    field = torch.stack([view[:, 0] * view[:, 1], view[:, 1] * view[:, 2], view[:, 0] ** 2 - view[:, 2] ** 2], 1)
    bent = rotation.float() @ exponential(math.radians(bend) * field).float()
    count = len(problem)
    modes = Modes(
        Poses(torch.arange(count), bent, shift.float()),
        torch.zeros(count, dtype=torch.float64),
        torch.zeros(count, dtype=torch.long),
    )
    panel = Panel(problem, "grid", 0)
    half = problem.order(torch.Generator().manual_seed(3)) % 2
    refinement = Refinement(HalfSets.settled(problem, half, modes), modes, 12, panel.rescuers)
    return Refine(Work(problem, settings, Notes()), panel, refinement), SimpleNamespace(rotation=rotation, shift=shift)


def test_what_fits_the_other_half_better_is_kept(blobs, tmp_path):
    density = symmetric(blobs, "D2").density(BOX)
    bent, straight = (refinement_at(tmp_path, density, bend)[0] for bend in (15.0, 0.0))
    mates = point_group("D2"), torch.zeros(3)
    assert SecondOpinion(bent, mates, straight, RELEASED, ("D2",))._convinces(straight)
    assert not SecondOpinion(straight, mates, bent, RELEASED, ("D2",))._convinces(bent)
    assert not SecondOpinion(straight, mates, straight, RELEASED, ("D2",))._convinces(straight), "a tie is not won"


def test_a_second_opinion_finds_the_poses_and_imposes_nothing(blobs, tmp_path):
    first, truth = refinement_at(tmp_path, symmetric(blobs, "D2").density(BOX), 15.0)
    first.refinement.finished = "for once"
    stage = SecondOpinion.on(first)
    while not stage.finished:
        stage = stage.step()
    assert torch.equal(stage.mates[0], point_group("D2")), "the second poses stand on the group's own axes"
    assert len(stage.inner.refinement.problem.group) == 1
    best = stage.inner.refinement.modes.best().poses
    errors = pose_errors(best.rotation, best.shift, truth.rotation, truth.shift, point_group("D2"))
    assert float(errors.rotation_deg.median()) < 4.0
    assert any("misfit to the other half's map" in note for note in first.work.journal.lines)


def test_a_second_opinion_begins_at_the_first_map_s_strength_with_proposers_of_its_own(blobs, tmp_path):
    first, _ = refinement_at(tmp_path, symmetric(blobs, "D2").density(BOX), 15.0)
    stage = SecondOpinion.on(first)
    before, after = first.refinement.sets.combined(), stage.inner.competition.standing.density
    assert after.shape[-1] < before.shape[-1]
    grid = FourierGrid(8)
    strength = [float(map_to_grid(density, grid).abs().square().sum().sqrt()) for density in (before, after)]
    assert strength[1] == pytest.approx(strength[0], rel=0.2)
    assert stage.inner.panel is not first.panel
    assert torch.equal(stage.inner.panel.generator.get_state(), first.panel.generator.get_state()) is False


def test_halves_have_nothing_beyond_the_shells_they_were_made_of(blobs, tmp_path):
    first, _ = refinement_at(tmp_path, blobs.density(BOX), 0.0)
    sets = first.refinement.sets
    sets.update(first.refinement.modes, 9)
    assert 9 <= sets.resolved_shell < 10
    assert not sets.fsc[10:].any()


def test_mates_of_a_symmetric_particle_count_as_one_pose(blobs, tmp_path):
    first, _ = refinement_at(tmp_path, symmetric(blobs, "D2").density(BOX), 0.0)
    first.refinement.finished = "for once"
    stage = SecondOpinion.on(first)
    assert stage.phase == MATES, "a straight map needs no second opinion"
    while not stage.finished:
        stage = stage.step()
    one, modes = stage.inner.refinement.modes.best(), first.refinement.modes.best()
    assert torch.equal(one.poses.rotation, modes.poses.rotation)
    assert "mates count as one pose" in first.work.journal.lines[-1]


def test_mates_of_a_particle_that_only_looks_symmetric_are_told_apart(blobs, tmp_path):
    whole = symmetric(blobs, "C2")
    lopsided = replace(whole, weight=whole.weight * torch.linspace(1.25, 0.75, len(whole.weight)))
    first, _ = refinement_at(tmp_path, lopsided.density(BOX), 0.0)
    mates = point_group("C2"), torch.zeros(3)
    stage = SecondOpinion(first, mates, _with_mates(first, mates), MATES, ("C2",))
    while not stage.finished:
        stage = stage.step()
    assert len(stage.inner.refinement.modes) > len(first.refinement.modes)
    assert "they are told apart" in first.work.journal.lines[-1]


@pytest.mark.parametrize("lopsided", [True, False])
def test_images_that_took_sides_at_random_take_the_right_ones_where_there_are_any(blobs, tmp_path, generator, lopsided):
    particle = symmetric(blobs, "C2")
    particle = replace(particle, width=0.25 * particle.width)
    if lopsided:
        particle = replace(particle, weight=particle.weight * torch.linspace(1.25, 0.75, len(particle.weight)))
    first, _ = refinement_at(tmp_path, particle.density(BOX), 0.0)
    right, turns, about = first.refinement.modes, point_group("C2"), torch.zeros(3)
    problem, half, count = first.refinement.problem, first.refinement.sets.half, len(first.refinement.modes)
    wrong = torch.rand(count, generator=generator) < 0.5
    mate = mate_of(right.poses, turns[1], about)
    mixed = right.poses._replace(rotation=torch.where(wrong[:, None, None], mate.rotation, right.poses.rotation))
    mixed = right.with_poses(mixed, right.misfit)
    sets = HalfSets.settled(problem, half, mixed)
    sides = take_sides(sets, mixed, turns, about)
    assert len(sides) == 2 * count
    turned = sides.misfit[count:] < sides.misfit[:count]
    agreed = float((turned == wrong).double().mean())
    if lopsided:
        assert max(agreed, 1 - agreed) > 0.9
        assert asymmetry(sets, sides) > 0.3 > asymmetry(sets, mixed)
    else:
        assert asymmetry(sets, sides) < 0.08


@pytest.mark.parametrize(
    ("before", "beyond", "verdict"),
    [
        (0.13, 0.07, Sides.one),  # beta-galactosidase, whose poses are a little bent
        (0.02, -0.01, Sides.one),
        (0.20, 0.23, Sides.all),  # HSP90
        (0.02, 0.23, Sides.all),
        (0.30, 0.02, Sides.first),
        (0.30, 0.20, Sides.first),
        (0.13, 0.09, Sides.first),
    ],
)
def test_what_halves_share_that_is_not_symmetric_decides_on_mates(before, beyond, verdict):
    assert of_sides(before, beyond) is verdict


def test_a_map_without_symmetry_keeps_its_poses(blobs, tmp_path):
    first, _ = refinement_at(tmp_path, blobs.density(BOX), 0.0)
    assert SecondOpinion.on(first) is None


def test_a_symmetry_that_the_images_contradict_is_warned_of(blobs, tmp_path):
    first, _ = refinement_at(tmp_path, blobs.density(BOX), 0.0)
    settings = replace(first.work.settings, symmetry="C3")
    work = Work(replace(first.work.problem, group=point_group("C3")), settings, first.work.journal)
    images, sets = torch.arange(len(work.problem)), first.refinement.sets
    standing = Standing(images, sets.combined(), sets.noise, first.refinement.modes)
    stage = Compete(work, first.panel, Competition(work.problem, standing, first.panel.proposers), [LAST_SHELL]).step()
    assert stage.without < 0
    assert Compete.restored(work, stage.state()).without == stage.without
    while isinstance(stage, Compete):
        stage = stage.step()
    (line,) = (line for line in work.journal.lines if "does not seem to have C3" in line)
    assert line.startswith("warning: with C3 images fit ")


def test_poses_compete_again_with_a_symmetry_that_hardly_shows(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr("cryospin.stages._STRAIGHT", 0.95)
    first, truth = refinement_at(tmp_path, symmetric(blobs, "D2").density(BOX), 20.0)
    problem, group = first.work.problem, point_group("D2")
    settings = replace(first.work.settings, symmetry="D2")
    work = Work(replace(problem, group=group), settings, first.work.journal)
    images, noise = torch.arange(len(problem)), first.refinement.sets.noise
    standing = Standing(images, first.refinement.sets.combined(), noise, first.refinement.modes)
    stage = Compete(work, first.panel, Competition(work.problem, standing, first.panel.proposers), [LAST_SHELL])
    stage = stage.step()
    assert "D2 hardly shows" in work.journal.lines[-1]
    assert not stage.work.problem.imposes_later
    again = Compete.restored(work, stage.state())
    assert torch.equal(again.work.problem.early_group, group), "a resumed competition imposes it too"
    while not isinstance(stage, Refine):
        stage = stage.step()
    assert not any("does not seem to have" in line for line in work.journal.lines)
    best = stage.refinement.modes.best().poses
    errors = pose_errors(best.rotation, best.shift, truth.rotation, truth.shift, group)
    assert float(errors.rotation_deg.median()) < 4.0
