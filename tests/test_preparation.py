"""What is said about a run before it starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryospin import pipeline
from cryospin.engine.record import Silence
from cryospin.errors import InputError
from cryospin.formats.star import read_poses
from cryospin.formats.table import AssignedPoses
from cryospin.preflight import preflight
from cryospin.preparation import prepare, true_poses
from cryospin.settings import Settings
from cryospin.simulation import ImagingConditions, density_from_source, simulate


class Notes(Silence):
    """A journal that only remembers its notes."""

    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


def described(folder, snr):
    simulate(density_from_source("phantom", 32, 8.0), 8.0, 300, folder, ImagingConditions(snr=snr), seed=1)
    settings = Settings(particles=folder / "particles.star", out=folder / "run")
    notes = Notes()
    pipeline._describe(notes, settings, *prepare(settings))
    return notes.lines


def test_hopeless_noise_is_called_so(tmp_path):
    assert any(line.startswith("warning: images are so noisy") for line in described(tmp_path / "faint", 0.003))
    assert not any("warning" in line for line in described(tmp_path / "clear", 0.3))


def test_particles_off_centre_are_told_of_unless_they_are_centred(tmp_path):
    conditions = ImagingConditions(snr=0.3, shift_sd=4.0)
    simulate(density_from_source("phantom", 32, 8.0), 8.0, 300, tmp_path, conditions, seed=1)
    told = {}
    for name, recentre in (("particles", False), ("truth", False), ("truth", True)):
        settings = Settings(particles=tmp_path / f"{name}.star", out=tmp_path / "run", recentre=recentre)
        notes = Notes()
        pipeline._describe(notes, settings, *prepare(settings))
        told[name, recentre] = [line for line in notes.lines if "farther from the middle" in line]
    assert not told["particles", False], "a table without shifts says nothing of them"
    assert not told["truth", True]
    (line,) = told["truth", False]
    assert "Give --recentre" in line
    # Of a normal distribution in the plane, exp(-limit^2 / 2 sd^2) lie farther out.
    share = int(line.split(" % ")[0].split()[-1])
    assert share == pytest.approx(100 * np.exp(-((0.08 * 32 / 4) ** 2) / 2), abs=8)
    found = preflight(tmp_path / "truth.star").findings
    assert any("farther from the middle" in str(finding) for finding in found)


def test_limits_in_angstrom_become_shells(tmp_path):
    simulate(density_from_source("phantom", 32, 8.0), 8.0, 120, tmp_path, ImagingConditions(), seed=1)
    table = tmp_path / "particles.star"
    _, packed, plain = prepare(Settings(particles=table, out=tmp_path / "run"))
    assert plain.last_shell == 15
    assert plain.mask_diameter == 0.84
    assert packed.pixel_size == 8.0
    _, cropped, limited = prepare(
        Settings(particles=table, out=tmp_path / "run", box=24, max_resolution=25.6, mask_diameter=128.0, symmetry="D2")
    )
    assert limited.last_shell == 10
    assert limited.mask_diameter == 0.5
    assert cropped.pixel_size == 8.0 * 32 / 24
    assert limited.group.shape == (4, 3, 3)
    assert torch.isfinite(limited.information).all()


def test_a_mask_that_holds_nothing_is_refused(tmp_path):
    simulate(density_from_source("phantom", 32, 8.0), 8.0, 120, tmp_path, ImagingConditions(), seed=1)
    with pytest.raises(InputError, match=r"--mask-diameter 20 leaves hardly anything of the box of 256 Å"):
        prepare(Settings(particles=tmp_path / "particles.star", out=tmp_path / "run", mask_diameter=20))


@pytest.fixture(scope="module")
def imaged(tmp_path_factory, blobs):
    """A small set with its truth."""
    folder = tmp_path_factory.mktemp("imaged")
    simulate(blobs.density(20), 7.0, 240, folder, ImagingConditions(snr=1.0), seed=1)
    return folder


@pytest.fixture
def ask(imaged, tmp_path):
    """Settings for that set."""

    def settings(**options):
        return Settings(**{"particles": imaged / "truth.star", "out": tmp_path / "run"} | options)

    return settings


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("\n".join(str(i) for i in range(1, 240, 2)))
    return path


def test_only_chosen_particles_are_prepared(ask, index):
    _, whole, _ = prepare(ask())
    every_other = torch.arange(1, 240, 2)
    for options, rows in (
        ({"first": 110}, torch.arange(110)),
        ({"particles_index": index}, every_other),
        ({"first": 105, "particles_index": index}, every_other[:105]),
    ):
        particles, packed, problem = prepare(ask(**options))
        assert len(particles) == len(problem) == len(rows)
        torch.testing.assert_close(packed.observations.images, whole.observations.images[rows])
        torch.testing.assert_close(packed.observations.ctf, whole.observations.ctf[rows])


def test_too_few_chosen_particles_are_refused(ask):
    with pytest.raises(InputError, match=r"99 particles are too few .*at least 100"):
        prepare(ask(first=99))


def test_true_poses_are_those_of_the_chosen_particles(ask, imaged, index):
    truth = read_poses(imaged / "truth.star")
    settings = ask(particles_index=index, truth_poses=imaged / "truth.star", box=16)
    particles, packed, _ = prepare(settings)
    rotation, shift = true_poses(settings, particles, packed)
    assert torch.equal(rotation, truth.rotation[1::2])
    torch.testing.assert_close(shift, truth.shift[1::2] / (7.0 * 20 / 16))
    assert true_poses(ask(), particles, packed) is None


def test_true_poses_of_the_chosen_particles_alone_will_do(ask, imaged, index, tmp_path):
    particles, packed, _ = prepare(ask(particles_index=index))
    table, few = particles.table, tmp_path / "few"
    few.mkdir()
    poses = AssignedPoses(table.poses.rotation, table.poses.shift, np.ones(120), np.ones(120), np.zeros(120))
    table.source.write(few, table, poses)
    rotation, shift = true_poses(ask(truth_poses=few / "particles.star"), particles, packed)
    torch.testing.assert_close(rotation, table.poses.rotation, rtol=0, atol=1e-6)
    torch.testing.assert_close(shift, table.poses.shift / 7.0, rtol=0, atol=1e-6)


def test_true_poses_of_other_particles_are_refused(ask, simulated):
    settings = ask(truth_poses=simulated / "truth.star")
    particles, packed, _ = prepare(settings)
    with pytest.raises(InputError, match=r"has 12 particles, .*truth\.star 240") as error:
        true_poses(settings, particles, packed)
    assert error.value.where == simulated / "truth.star"


def test_recentred_particles_are_truly_in_the_middle(ask, imaged):
    settings = ask(recentre=True, truth_poses=imaged / "truth.star")
    particles, packed, _ = prepare(settings)
    _, shift = true_poses(settings, particles, packed)
    torch.testing.assert_close(shift, torch.zeros_like(shift))
    assert float(packed.centre.std()) == pytest.approx(1.5 * 7.0, rel=0.1)
    _, as_picked, _ = prepare(ask())
    phase = packed.observations.disc.shift_phase((packed.centre / 7.0).float(), 20)
    torch.testing.assert_close(packed.observations.images * phase, as_picked.observations.images)


def test_recentring_needs_shifts(ask, imaged):
    with pytest.raises(InputError, match="has no shifts to centre the particles by"):
        prepare(ask(particles=imaged / "particles.star", recentre=True))


def test_stacks_are_prepared_with_the_ctf_of_another_table(ask, imaged):
    _, packed, _ = prepare(ask(particles=imaged / "particles.mrcs", ctf=imaged / "particles.star"))
    _, usual, _ = prepare(ask())
    assert torch.equal(packed.observations.images, usual.observations.images)
    assert torch.equal(packed.observations.ctf, usual.observations.ctf)


def test_doubts_about_the_input_are_in_the_notes(imaged, tmp_path):
    for name in ("particles.star", "particles.mrcs"):
        (tmp_path / name).write_bytes((imaged / name).read_bytes())
    star = tmp_path / "particles.star"
    star.write_text(star.read_text().replace(" 300.000000 ", " 3.000000 "))
    notes, settings = Notes(), Settings(particles=star, out=tmp_path / "run")
    pipeline._describe(notes, settings, *prepare(settings))
    assert notes.lines[0] == f"RELION 3.1 STAR: {star}"
    assert notes.lines[1].startswith(f"warning: {star}: optics group opticsGroup1: a voltage of 3 kV is unusual")
