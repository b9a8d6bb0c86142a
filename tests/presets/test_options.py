from __future__ import annotations

from dataclasses import fields

import pytest

from cryospin.engine.learning import Learning
from cryospin.errors import InputError
from cryospin.presets.options import learning
from cryospin.settings import Settings


def test_paper_has_the_published_numbers():
    numbers = learning("paper", {}, shifts=False)
    assert (numbers.heads, numbers.batch, numbers.encoding_epochs, numbers.decoding_epochs) == (7, 32, 7, 13)
    assert (numbers.encoder_rate, numbers.volume_rate, numbers.decoding_volume_rate) == (1e-4, 5e-3, 2e-3)
    assert (numbers.rotation_rate, numbers.pose_betas) == (0.05, (0.9, 0.9))
    assert (numbers.pose_steps, numbers.volume_steps) == (5, 1)
    assert (numbers.loss, numbers.volume, numbers.shifts) == ("l1", "hartley", "none")


def test_options_are_read_from_text_by_what_they_stand_for():
    given = {"heads": "15", "volume_rate": "1", "channels": "8,8,8,8,8", "symmetrised": "true", "volume": "implicit"}
    numbers = learning("paper", given)
    assert numbers.heads == 15
    assert isinstance(numbers.volume_rate, float)
    assert numbers.channels == (8,) * 5
    assert numbers.symmetrised is True
    assert numbers.volume == "implicit"


def test_what_is_written_is_read_again():
    numbers = learning("cryoai", {"heads": 2})
    assert learning("paper", numbers.table()) == numbers
    assert set(numbers.table()) == {field.name for field in fields(Learning)}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"head": "7"}, "--set head"),
        ({"heads": "seven"}, "heads=seven"),
        ({"heads": "0"}, "heads 0 is too small"),
        ({"heads": "1.5"}, "heads=1.5"),
        ({"heads": "True"}, "heads=True"),
        ({"encoder_rate": "-1"}, "encoder_rate"),
        ({"channels": "8,8"}, "channels"),
        ({"channels": "8"}, "channels=8"),
        ({"loss": "l3"}, "loss l3"),
        ({"pyramid_size": "10"}, "pyramid_size 10 is even"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path, given, says):
    with pytest.raises(InputError, match=says):
        Settings(particles=tmp_path / "p.star", out=tmp_path / "run", preset="paper", options=given)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"preset": "paper", "symmetry": "C3"}, "imposes no symmetry"),
        ({"preset": "cryoai", "proposals": "grid"}, "--proposals is not for"),
        ({"shifts": False}, "--shifts none is for --preset paper"),
        ({"options": {"heads": "3"}}, "--set is for --preset paper"),
        ({"preset": "relion"}, "not known"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, settings, says):
    with pytest.raises(InputError, match=says):
        Settings(particles=tmp_path / "p.star", out=tmp_path / "run", **settings)


def test_the_configuration_holds_every_number(tmp_path):
    settings = Settings(particles=tmp_path / "p.star", out=tmp_path / "run", preset="paper", options={"heads": "3"})
    table = settings.table()
    assert table["options"] == settings.learning.table()
    assert table["options"]["heads"] == 3
    assert Settings(**table).learning == settings.learning
    assert "options" not in Settings(particles=tmp_path / "p.star", out=tmp_path / "run").table()
