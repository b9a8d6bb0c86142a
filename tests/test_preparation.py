"""What is said about a run before it starts."""

from __future__ import annotations

import torch

from cryospin import pipeline
from cryospin.engine.record import Silence
from cryospin.preparation import prepare
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
