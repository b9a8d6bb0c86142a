"""A run from images to maps: explore, compete, refine, write.

Stage 1 finds the structure. Exploration takes it from nothing to a low-resolution map, then rounds of competition
let several poses of each image argue it out. Once most images have one pose that clearly leads, stage 2 optimises
each image's pose directly, in two half-sets, while the volume sharpens. After every step the run is where it could be
continued from, should it be stopped.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cryospin.checkpoints import Checkpoint, Checkpoints
from cryospin.engine.failures import no_structure
from cryospin.engine.problem import Problem
from cryospin.engine.record import Listener, Silence
from cryospin.errors import InputError
from cryospin.journal import Journal
from cryospin.maps.point_groups import recognise
from cryospin.origin import Origin
from cryospin.packing import CLEAR, Packed, bytes_packed
from cryospin.particles import ParticleSet
from cryospin.preparation import off_centre, prepare, true_poses
from cryospin.presets.learned import Learn
from cryospin.report.live import watchers
from cryospin.results import Result, RunFolder
from cryospin.second_opinion import SecondOpinion
from cryospin.settings import Settings
from cryospin.stage import Stage, Work
from cryospin.stages import FIRST_SHELL, STAGES, Refine
from cryospin.start import Start
from cryospin.state import placed
from cryospin.words import counted

_FAINT_IMAGES = 15.0
"""Information of an image, in nats, that it takes to tell one of 100,000 poses from the others with some margin."""


def reconstruct(settings: Settings, listener: Listener | None = None) -> Result:
    """Reconstruct a map from particle images of unknown pose and write everything to `settings.out`.

    listener: told how the run is getting on
    raises: `InputError` for anything wrong with the input
    """
    folder = RunFolder.create(settings)
    try:
        with folder.claimed():
            return _run(settings, folder, listener or Silence())
    except InputError:
        if not folder.origin.exists():
            folder.discard()
        raise


def resume(
    run: Path,
    listener: Listener | None = None,
    *,
    threads: int | None = None,
    device: str | None = None,
    memory: float | None = None,
) -> bool:
    """Continue a run where it stopped, to the same end as if it had not.

    threads, device, memory: as recorded, unless given; other threads or devices may change the last bits of the result
    returns: False where the run was finished already
    raises: `InputError` where there is no run, or its settings or input files have changed
    """
    folder, listener = RunFolder.open(run), listener or Silence()
    if folder.finished:
        return False
    with folder.claimed():
        config, origin = folder.config(), Origin.read(folder.origin)
        if origin is not None:
            origin.refuse_changes(config, folder.path / "config.toml")
        settings = Settings.from_table((origin.settings if origin else config) | {"out": run})
        given: dict[str, Any] = {"threads": threads, "device": device, "memory": memory}
        settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
        checkpoint = Checkpoints(folder.checkpoints).newest()
        if checkpoint and device is None:
            _refuse_another_device(checkpoint.device, settings)
        folder.cut_back(checkpoint.written if checkpoint else {})
        _run(settings, folder, listener, checkpoint)
    return True


def _refuse_another_device(before: str, settings: Settings) -> None:
    """Raise `InputError` where a run would go on on another kind of device than it began on."""
    now = str(settings.computes_on.device)
    if now != before:
        raise InputError(
            f"the run was computed on {before}, and --device {settings.device} means {now} here",
            where=settings.out,
            remedy=f"Go on where it began, or give --device {now}; the last digits of the result may then differ",
        )


def _run(settings: Settings, folder: RunFolder, listener: Listener, since: Checkpoint | None = None) -> Result:
    """Read, find the structure, refine it, write."""
    started = time.monotonic() - (since.seconds if since else 0.0)
    torch.set_num_threads(settings.cores)
    particles, packed, problem = prepare(settings, listener.reading)
    truth = true_poses(settings, particles, packed)
    if not folder.origin.exists():
        settings = _findable_from_anywhere(settings, particles)
        folder.configure(settings)
        Origin.of(settings, particles).write(folder.origin)
    device = f"{problem.device} ({settings.computes_on.reason})"
    journal = Journal(folder, listener, started, truth, watchers(folder.path, problem.angstrom(1), started, device))
    work = Work(problem, settings, journal)
    if since is None:
        _describe(journal, settings, particles, packed, problem)
        stage: Stage = Learn.begun(work) if settings.learns else Start(work)
    else:
        journal.epochs = since.epoch
        listener.note(f"continues after epoch {since.epoch}, {since.seconds:.0f} s into the run")
        stages = STAGES | {stage.name: stage for stage in (Start, Learn, SecondOpinion)}
        stage = stages[since.stage].restored(work, placed(since.state, problem.device))
    last = _to_the_end(stage, work, folder, since.step if since else 0)
    result = last.result(particles, packed)
    nothing = no_structure(result.beside)
    if nothing:
        journal.note(f"warning: {nothing}; the half maps may still agree, as far as they share their start")
    folder.write(result)
    if settings.looks_for_symmetry:
        _look_for_symmetry(result, folder, journal)
    journal.note(_sharpness(result))
    journal.note(
        f"done: {result.maps.resolution:.2f} Å by half maps (FSC 0.143)"
        + (", the finest that the box or --max-resolution allows" if result.maps.at_limit else "")
        + (", but no structure was found" if nothing else "")
    )
    summary = {"epochs": journal.epochs, "resolution_A": result.maps.resolution, "found_structure": not nothing}
    folder.finish(summary)
    Checkpoints(folder.checkpoints).clear()
    _show_the_end(folder)
    return result


def _how_sure(darkness: float) -> str:
    """How the contrast was found."""
    return "detected" if abs(darkness) >= CLEAR else "detected, but not clear: compare with --invert and --no-invert"


def _findable_from_anywhere(settings: Settings, particles: ParticleSet) -> Settings:
    """Settings by which the stacks are found again, where they were found because of the folder the command was given in."""
    by_chance = settings.datadir is None and not any(stack.path.is_absolute() for stack in particles.images.stacks)
    return replace(settings, datadir=Path.cwd()) if by_chance else settings


def _to_the_end(stage: Stage, work: Work, folder: RunFolder, step: int) -> Refine | Learn | SecondOpinion:
    """Step by step through all stages, with a checkpoint after each; Ctrl-C leaves one of the last that was finished.

    step: how many were taken before
    """
    checkpoints, journal, device = Checkpoints(folder.checkpoints), work.journal, str(work.problem.device)
    stage.announce()
    try:
        while (following := _next(stage)) is not None:
            stage, step = following, step + 1
            records = folder.written()
            here = Checkpoint(step, journal.epochs, journal.seconds, device, stage.name, records, stage.state())
            checkpoints.offer(here)
    except KeyboardInterrupt:
        checkpoints.flush()
        raise
    assert isinstance(stage, Refine | Learn | SecondOpinion), "no other stage is ever finished"
    return stage


def _next(stage: Stage) -> Stage | None:
    """What one step leads to; None at the end."""
    if not stage.finished:
        return stage.step()
    return SecondOpinion.on(stage) if isinstance(stage, Refine) else None


def _show_the_end(folder: RunFolder) -> None:
    """Write the page again: it was written with the results, before the last lines of the log."""
    from cryospin.report.page import rewrite_page

    rewrite_page(folder.path)


def _sharpness(result: Result) -> str:
    """How map_sharpened.mrc was made."""
    _, fit = result.maps.sharpened
    if fit is None:
        return "map_sharpened.mrc is weighted by FSC only: too little lies beyond 10 Å for a B-factor"
    applied = "undone in map_sharpened.mrc" if fit.b_factor > 0 else "nothing to undo"
    return f"B-factor {fit.b_factor:.0f} Å² from {fit.from_A:.1f} to {fit.to_A:.1f} Å, {applied}"


def _look_for_symmetry(result: Result, folder: RunFolder, journal: Journal) -> None:
    """Say which point groups the map may have."""
    candidates = recognise(result.maps.map, fsc=result.maps.fsc.masked)
    folder.symmetry(candidates)
    for line in candidates.lines(result.maps.size_angstrom):
        journal.note(line)


def _describe(journal: Journal, settings: Settings, particles: ParticleSet, packed: Packed, problem: Problem) -> None:
    """What was read and what will be done with it."""
    journal.note(f"{particles.table.format}: {settings.particles.absolute()}")
    for finding in particles.table.findings:
        journal.note(f"{finding.severity}: {finding}")
    if not settings.recentre and (found := off_centre(particles)):
        journal.note(f"warning: {found}. Give --recentre, which centres them first")
    journal.note(
        f"{len(particles)} particles of {particles.box} x {particles.box} pixels, {particles.pixel_size:g} Å each; "
        f"working at {problem.box} pixels of {problem.pixel_size:.4g} Å"
    )
    journal.note(f"computing on {problem.device} ({settings.computes_on.reason})")
    if problem.device.type == "cuda":
        journal.note("warning: GPU support has not been tried on a GPU yet; compare with --device cpu before you rely on it")
    journal.note(f"packed images ({bytes_packed(len(particles), problem.box) / 2**30:.1f} GiB) are kept {packed.where}")
    contrast = "dark, inverted" if packed.inverted else "white"
    journal.note(f"protein is {contrast}" + (f" ({_how_sure(packed.darkness)})" if packed.darkness is not None else ""))
    how = f"preset: {settings.preset}" if settings.learns else f"proposals: {settings.explores_with}"
    journal.note(
        f"an image carries {float(problem.information[min(8, problem.last_shell)]):.0f} nats up to "
        f"{problem.angstrom(8):.0f} Å; {how}; {counted(settings.cores, 'thread')}; seed {settings.seed}"
    )
    nats = float(problem.information[min(FIRST_SHELL, problem.last_shell)])
    if nats < _FAINT_IMAGES:
        journal.note(
            f"warning: images are so noisy ({nats:.0f} nats each) that the search may find nothing; do not trust the map "
            "unless another --seed gives the same one"
        )
