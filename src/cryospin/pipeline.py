"""A run from images to maps: explore, compete, refine, write.

Stage 1 finds the structure. Exploration takes it from nothing to a low-resolution map, then rounds of competition
let several poses of each image argue it out. Once most images have one pose that clearly leads, stage 2 optimises
each image's pose directly, in two half-sets, while the volume sharpens.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from cryospin.engine.candidates import GridProposer, HeadProposer, Proposer, search
from cryospin.engine.compete import Competition, Standing
from cryospin.engine.explore_grid import GridExploration
from cryospin.engine.explore_heads import HeadExploration
from cryospin.engine.half_sets import HalfSets
from cryospin.engine.problem import Problem
from cryospin.engine.recentre import recentre
from cryospin.engine.record import Listener, Silence
from cryospin.engine.refine import Refinement
from cryospin.engine.switch import switch_reason
from cryospin.journal import Journal
from cryospin.noise import weighted
from cryospin.packing import Packed, bytes_packed
from cryospin.particles import ParticleSet
from cryospin.poses.modes import Modes, Thinning
from cryospin.preparation import prepare, true_poses
from cryospin.proposals.grid import GridSearch
from cryospin.proposals.heads import HeadProposals
from cryospin.report.live import watchers
from cryospin.results import Result, RunFolder
from cryospin.settings import Settings

_STARTS = 3
_CONVINCING = 1.12
"""A start is carried on at once if the images' contrasts spread by less than this times their error (see `Competition`)."""

_FAINT_IMAGES = 15.0
"""Information of an image, in nats, that it takes to tell one of 100,000 poses from the others with some margin."""

_CLEAR_IMAGES = 30.0
"""Information of an image, in nats, below which contrasts say too little and a start costs too much to try again."""

_RANDOM_VIEWS = 40
"""Where there is no grid, so many random views compete with the heads'."""

_FIRST_SHELL, _LAST_SHELL = 9, 12
"""Frequency limits of the competition, cycles per box."""

_LAST_ROUNDS = 3
_COMPETITORS = 5000
"""At most so many images take part in the competition; the others get their poses at its end."""


def reconstruct(settings: Settings, listener: Listener | None = None) -> Result:
    """Reconstruct a map from particle images of unknown pose and write everything to `settings.out`.

    listener: told how the run is getting on
    raises: `InputError` for anything wrong with the input
    """
    listener = listener or Silence()
    started = time.monotonic()
    torch.set_num_threads(settings.cores)
    RunFolder.refuse_if_used(settings.out)
    particles, packed, problem = prepare(settings, listener.reading)
    truth = true_poses(settings, particles, packed)
    folder = RunFolder.create(settings)
    journal = Journal(folder, listener, started, truth, watchers(folder.path, problem.angstrom(1), started))
    _describe(journal, settings, particles, packed, problem)
    standing, proposers = _find_structure(problem, settings, journal)
    refinement = _refine(problem, settings, standing, proposers, journal)
    result = Result.of(settings, particles, packed, refinement)
    folder.write(result)
    journal.note(f"done: {result.maps.resolution:.2f} Å by half maps (FSC 0.143), in {settings.out}")
    return result


def _describe(journal: Journal, settings: Settings, particles: ParticleSet, packed: Packed, problem: Problem) -> None:
    """What was read and what will be done with it."""
    journal.note(f"{particles.table.format}: {settings.particles}")
    for finding in particles.table.findings:
        journal.note(f"{finding.severity}: {finding}")
    journal.note(
        f"{len(particles)} particles of {particles.box} x {particles.box} pixels, {particles.pixel_size:g} Å each; "
        f"working at {problem.box} pixels of {problem.pixel_size:.4g} Å"
    )
    count, box = len(particles), problem.box
    where = "in memory" if isinstance(problem.observations.images, Tensor) else "on disk, since memory does not hold them"
    journal.note(f"packed images ({bytes_packed(count, box) / 2**30:.1f} GiB) are kept {where}")
    contrast = "dark, inverted" if packed.inverted else "white"
    journal.note(f"protein is {contrast}" + ("" if settings.invert is not None else " (detected)"))
    journal.note(
        f"an image carries {float(problem.information[min(8, problem.last_shell)]):.0f} nats up to "
        f"{problem.angstrom(8):.0f} Å; proposals: {settings.explores_with}; {settings.cores} threads; seed {settings.seed}"
    )
    nats = float(problem.information[min(_FIRST_SHELL, problem.last_shell)])
    if nats < _FAINT_IMAGES:
        journal.note(
            f"warning: images are so noisy ({nats:.0f} nats each) that the search may find nothing; do not trust the map "
            "unless another --seed gives the same one"
        )


def _find_structure(problem: Problem, settings: Settings, journal: Journal) -> tuple[Standing, list[Proposer]]:
    """Stage 1: starts from nothing until one convinces, then competition until the posterior has one mode."""
    competition = _best_start(problem, settings, journal)
    if competition.spread >= _CONVINCING:
        _round(competition, _FIRST_SHELL, journal)
    for _ in range(_LAST_ROUNDS):
        _round(competition, _LAST_SHELL, journal)
        if reason := switch_reason(competition):
            break
    journal.note(f"switch to direct optimisation: {reason or 'the bound on rounds was reached'}")
    return competition.standing, competition.proposers


def _best_start(problem: Problem, settings: Settings, journal: Journal) -> Competition:
    """The first start that convinces, or else the one whose poses fit the images best."""
    first = min(_FIRST_SHELL, problem.last_shell)
    again = settings.explores_with != "heads" and float(problem.information[first]) > _CLEAR_IMAGES
    starts: list[tuple[float, Competition]] = []
    for number in range(_STARTS if again else 1):
        loss, competition = _one_start(problem, settings, settings.seed + 1000 * number, journal)
        journal.note(
            f"start {number + 1}: misfit {loss:.1f} nats, contrasts spread {competition.spread:.2f} times their error"
        )
        if competition.spread < _CONVINCING:
            return competition
        starts.append((loss, competition))
    loss, competition = min(starts, key=lambda start: start[0])
    if len(starts) > 1:
        journal.note(f"no start convinced; going on with the one of misfit {loss:.1f} nats")
    return competition


def _one_start(problem: Problem, settings: Settings, seed: int, journal: Journal) -> tuple[float, Competition]:
    """Explore from nothing and hold the first round of the competition; also its mean misfit, nats."""
    generator = torch.Generator().manual_seed(seed + 1)
    search = GridSearch(problem.shift_sd, problem.shift_limit, generator)
    heads = HeadProposals(seed + 2)
    exploration: GridExploration | HeadExploration
    if settings.explores_with == "heads":
        guesser = HeadProposer(heads, search, random_views=_RANDOM_VIEWS)
        proposers: list[Proposer] = [guesser]
        exploration = HeadExploration(problem, guesser, seed)
    else:
        proposers = [GridProposer(search)]
        proposers += [HeadProposer(heads, search)] if settings.explores_with == "both" else []
        exploration = GridExploration(problem, seed)
    journal.expect(exploration.stage, exploration.epochs)
    for _ in range(exploration.epochs):
        journal.epoch(exploration.epoch(), density=exploration.map)
    competitors = problem.order(generator)[:_COMPETITORS].sort().values
    standing = Standing(competitors, exploration.map(), exploration.noise)
    competition = Competition(problem, standing, proposers)
    journal.expect(competition.stage, 2 + _LAST_ROUNDS)
    return _round(competition, _FIRST_SHELL, journal), competition


def _round(competition: Competition, radius: int, journal: Journal) -> float:
    """One round, with its line in the records; returns its mean misfit."""
    record = competition.round(radius)
    standing = competition.standing
    assert standing.modes is not None, "a round leaves modes"
    poses = standing.modes.best().poses
    poses = poses._replace(image=standing.images[poses.image])
    journal.epoch(record, poses, competition.problem.group, lambda: standing.density)
    return record.loss


def _assign_everyone(problem: Problem, standing: Standing, proposers: list[Proposer]) -> Modes:
    """Modes of all images: those that competed keep theirs, the others are searched for in the map as it stands."""
    assert standing.modes is not None, "a competition leaves modes"
    kept = standing.modes
    kept = kept.with_poses(kept.poses._replace(image=standing.images[kept.poses.image]), kept.misfit)
    absent = torch.ones(len(problem), dtype=torch.bool)
    absent[standing.images] = False
    if not absent.any():
        return kept
    radius = min(_LAST_SHELL, problem.last_shell)
    some = weighted(problem.observations.up_to(radius), standing.noise)
    volume, grid = problem.masked_volume(standing.density, radius)
    rows = absent.nonzero()[:, 0]
    found = search(proposers, volume, grid, some, rows, shift_sd=problem.shift_sd, thinning=Thinning.at(radius))
    return Modes.join(kept, found).ranked()[0]


def _refine(
    problem: Problem, settings: Settings, standing: Standing, proposers: list[Proposer], journal: Journal
) -> Refinement:
    """Stage 2: half-sets, each against its own volume, until nothing moves."""
    modes = _assign_everyone(problem, standing, proposers)
    density, poses = recentre(standing.density, modes.poses, problem)
    half = torch.randperm(len(problem), generator=torch.Generator().manual_seed(settings.seed + 3)) % 2
    sets = HalfSets(problem, half, standing.noise, density)
    modes = modes.with_poses(poses, modes.misfit)
    refinement = Refinement(sets, modes, min(_LAST_SHELL, problem.last_shell), proposers)
    journal.note(f"half-sets start from one map low-passed to {problem.angstrom(refinement.limit):.1f} Å")
    journal.expect(refinement.stage, refinement.epochs)
    while not refinement.finished:
        record = refinement.epoch()
        journal.epoch(record, refinement.modes.best().poses, problem.group, sets.combined)
    journal.note(f"refinement ends: {refinement.finished}")
    return refinement
