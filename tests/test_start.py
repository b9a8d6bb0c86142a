"""Which start is carried on, and how many are made."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from cryospin import start
from cryospin.engine.failures import Examination
from cryospin.engine.held_out import Gains
from cryospin.errors import InputError
from cryospin.settings import Settings
from cryospin.stage import Work
from notes import Notes


class Explored:
    """A start that is explored already, so that the next step judges it."""

    stage, epochs_left, noise = "explore", 0, torch.ones(13)

    def map(self):
        return torch.zeros(8, 8, 8)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Plays starts with given held-out gains, contrast spreads and failures; returns the number of the one that goes on."""

    def play(gains, spreads, failures=None, starts=3, nats=100.0, explores_with="grid", alike=0.0):
        number = iter(range(len(gains)))

        def held(competition, radius, journal):
            competition.number = next(number)
            competition.spread = spreads[competition.number]
            return -50.0

        def examined(problem, standing, radius, heads):
            number = standing.number
            return Examination(Gains(60.0, gains[number]), (failures or {}).get(number, []))

        monkeypatch.setattr(start, "Panel", lambda *_: SimpleNamespace(generator=None, proposers=[], guesser=None, seed=0))
        monkeypatch.setattr(start, "_exploration", lambda *_: Explored())
        monkeypatch.setattr(start, "Competition", FakeCompetition)
        monkeypatch.setattr(start, "hold_round", held)
        monkeypatch.setattr(start, "map_likeness", lambda *_: alike)
        monkeypatch.setattr(start, "examine", examined)
        problem = SimpleNamespace(order=lambda g: torch.arange(4), information=torch.full((13,), nats), last_shell=12)
        settings = Settings(tmp_path / "x.star", tmp_path / "run", proposals=explores_with, starts=starts)
        notes, stage = Notes(), None
        stage = start.Start(Work(problem, settings, notes))
        while isinstance(stage, start.Start):
            stage = stage.step()
        return stage.competition.number, notes.lines

    return play


class FakeCompetition:
    """Stands for a competition; its standing knows its number."""

    stage = "compete"

    def __init__(self, problem, standing, proposers):
        self.number, self.spread = -1, 0.0

    @property
    def standing(self):
        return SimpleNamespace(number=self.number, density=torch.zeros(8, 8, 8))


def test_a_start_that_convinces_goes_on_at_once(run):
    number, lines = run([40.0], [1.0])
    assert number == 0
    assert lines == [
        "start 1: misfit -50.0 nats, -40.0 to the other half's map; contrasts scatter by 1.00 times their error",
    ]


def test_of_starts_that_do_not_convince_the_best_by_held_out_images_goes_on(run):
    number, lines = run([10.0, 40.0, 30.0], [1.5, 1.5, 1.5])
    assert number == 1
    assert lines[-1] == (
        "warning: no start convinced; going on with the one of held-out misfit -40.0 nats "
        "(contrasts scatter by 1.50 times their error, not below 1.12). Compare with a run from another --seed"
    )
    assert sum(": misfit" in line for line in lines) == 3
    assert [line for line in lines if "another is made" in line] == [
        f"start {n} does not convince, and another is made: contrasts scatter by 1.50 times their error, not below 1.12"
        for n in (1, 2)
    ]


def test_of_two_starts_that_found_the_same_map_the_better_goes_on_without_a_third_and_without_a_warning(run):
    number, lines = run([39.8, 40.0], [1.5, 1.5], alike=0.97)
    assert number == 1
    assert lines[-1] == (
        "two starts found the same map, independently: held-out misfits -40.0 and -39.8 nats, maps alike by 0.97 to "
        "9 cycles per box"
    )
    assert not any("warning" in line for line in lines)


def test_the_third_start_may_agree_with_the_first(run):
    number, lines = run([40.0, 10.0, 39.9], [1.5, 1.5, 1.5], alike=0.97)
    assert number == 0
    assert "found the same map" in lines[-1]


@pytest.mark.parametrize(
    ("gains", "alike", "failures"),
    [([40.0, 30.0], 0.97, {}), ([40.0, 39.9], 0.5, {}), ([40.0, 39.9], 0.97, {1: ["hollow shell: 95 %"]})],
    ids=["one fits worse", "the maps differ", "one has failed a test"],
)
def test_starts_that_do_not_agree_leave_a_warning(run, gains, alike, failures):
    _, lines = run(gains, [1.5, 1.5], failures, starts=2, alike=alike)
    assert "warning: no start convinced" in lines[-1]


def test_a_failure_leads_to_another_start_with_a_line_in_the_log(run):
    number, lines = run([40.0, 30.0], [1.0, 1.0], {0: ["hollow shell: 95 %"]})
    assert number == 1
    assert lines[0] == "start 1 looks wrong: hollow shell: 95 %"


def test_a_failure_that_every_start_shows_condemns_none(run):
    piled = ["one-axis pile-up: views crowd about an axis"]
    number, lines = run([50.0, 40.0, 30.0], [1.0, 1.0, 1.0], {0: piled, 1: piled, 2: piled})
    assert number == 0
    assert "no start convinced" in lines[-1]


@pytest.mark.parametrize("starts", [1, 2, 4])
def test_no_more_starts_are_made_than_asked_for(run, starts):
    _, lines = run([10.0] * starts, [1.5] * starts, starts=starts)
    assert sum(": misfit" in line for line in lines) == starts


@pytest.mark.parametrize("dear", [{"nats": 10.0}, {"explores_with": "heads"}])
def test_a_start_that_costs_too_much_is_not_repeated(run, dear):
    number, lines = run([10.0], [1.5], {0: ["collapse: 0.1"]}, **dear)
    assert number == 0
    assert lines[0] == "start 1 looks wrong: collapse: 0.1"
    assert "warning: no start convinced" in lines[-1]
    assert "collapse: 0.1; contrasts scatter by 1.50" in lines[-1]


def test_a_number_of_starts_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="--starts 0 is not a number of starts"):
        Settings(tmp_path / "x.star", tmp_path / "run", starts=0)
    with pytest.raises(InputError, match="--preset paper starts once"):
        Settings(tmp_path / "x.star", tmp_path / "run", preset="paper", starts=2)


def test_the_number_of_starts_is_kept_for_a_run_that_is_resumed(tmp_path):
    settings = Settings(tmp_path / "x.star", tmp_path / "run", starts=1)
    assert Settings.from_table(settings.table()).starts == 1
    assert "starts" not in Settings(tmp_path / "x.star", tmp_path / "run", preset="paper").table()
