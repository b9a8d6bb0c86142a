"""The report while a run goes on: in time, within its share of it, and never in the run's way."""

from __future__ import annotations

import itertools
import json
import time
import urllib.error
import urllib.request
from threading import Thread

import pytest
import torch

from cryospin.engine.record import EpochRecord, Silence
from cryospin.geometry.rotations import random_rotations
from cryospin.journal import Journal
from cryospin.kernels.types import Poses
from cryospin.report.live import PERIOD, SHARE, Allowance, Glimpse, LivePage, watchers
from cryospin.report.serve import PageServer
from cryospin.results import RunFolder
from cryospin.settings import Settings


class Clock:
    """A clock that is told the time."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(Settings(particles=tmp_path / "<x>.star", out=tmp_path / "run", threads=1))


def record(epoch=1, seconds=60.0):
    return EpochRecord("compete", 30.0, -5.0, 0.5, [3, 4], ["grid", "head 1"], epoch=epoch, seconds=seconds)


@pytest.mark.parametrize(("cost", "epoch"), [(0.02, 0.5), (1.0, 0.5), (5.0, 3.0), (0.5, 40.0)])
def test_pages_come_in_time_and_cost_no_more_than_their_share(cost, epoch):
    clock = Clock()
    allowance = Allowance(clock(), clock)
    begun, ends, pages = clock.now, 900.0, []
    while clock.now - begun < ends:
        clock.pass_by(epoch)
        if kind := allowance.choose():
            pages.append((clock.now - begun, kind))
            allowance.do(kind, lambda kind=kind: clock.pass_by(cost if kind == "figures" else 0.05 * cost))
    times = [t for t, _ in pages]
    assert min(b - a for a, b in itertools.pairwise(times)) >= PERIOD
    # What a page costs is known only after the first of its kind.
    assert allowance.spent <= SHARE * ends + cost
    assert sum(kind == "figures" for _, kind in pages) >= min(ends / (2 * max(PERIOD, epoch)), 0.5 * SHARE * ends / cost) - 1


def test_the_page_shows_the_run_as_it_stands_and_loads_itself_again(folder, generator):
    page = LivePage(folder.path, 240.0, Allowance(time.monotonic() - 1000))
    folder.epoch(record())
    rotation = random_rotations(300, generator)
    page.epoch(record(), Glimpse(lambda: torch.rand(16, 16, 16, generator=generator), rotation))
    text = (folder.path / "report.html").read_text()
    assert '<meta http-equiv="refresh" content="15">' in text
    for name in ("progress", "heads", "orientations", "slices"):
        assert f'id="figure-{name}"' in text
    assert 'id="volumes"' in text
    assert "&lt;x&gt;.star" in text
    # Too early for another one.
    before = (folder.path / "report.html").stat().st_mtime_ns
    page.epoch(record(2), Glimpse())
    assert (folder.path / "report.html").stat().st_mtime_ns == before


def test_a_page_that_may_cost_little_keeps_the_figures_it_had(folder, generator):
    clock = Clock()
    allowance = Allowance(clock() - 1000, clock)
    page = LivePage(folder.path, 240.0, allowance)
    folder.epoch(record())
    page.epoch(record(), Glimpse(lambda: torch.rand(16, 16, 16, generator=generator)))
    allowance.cost["figures"] = 1e9
    clock.pass_by(20)
    folder.log(20.0, "a line that is new")
    page.epoch(record(2), Glimpse(lambda: pytest.fail("the map is not asked for")))
    text = (folder.path / "report.html").read_text()
    assert "a line that is new" in text
    assert 'id="figure-slices"' in text
    assert 'id="volumes"' in text


def test_a_watcher_that_fails_is_dropped_and_the_run_goes_on(folder):
    class Broken:
        def epoch(self, record, glimpse):
            raise RuntimeError("no ink")

    class Counting:
        seen = 0

        def epoch(self, record, glimpse):
            self.seen += 1
            assert len(glimpse.rotation) == 2

    counting = Counting()
    journal = Journal(folder, Silence(), time.monotonic(), watchers=[Broken(), counting])
    poses = Poses(torch.arange(2), torch.eye(3).expand(2, 3, 3), torch.zeros(2, 2))
    for epoch in (1, 2):
        journal.epoch(record(epoch), poses)
    assert counting.seen == 2
    assert (folder.path / "log.txt").read_text().count("warning: no more of Broken, which failed: RuntimeError: no ink") == 1
    assert len((folder.path / "metrics.jsonl").read_text().splitlines()) == 2


def test_versions_and_devices_are_noted_at_the_start(folder):
    watchers(folder.path, 240.0, time.monotonic(), "cpu (as asked)")
    about = json.loads((folder.path / "report" / "about.json").read_text())
    assert about["versions"]["torch"] == torch.__version__
    assert about["devices"]["computed on"] == "cpu (as asked)"


@pytest.fixture
def server(folder):
    with PageServer(folder.path) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(address, **headers):
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
        return answer.read().decode()


def test_the_page_is_served_as_it_is_now(server, folder):
    assert server.server_address[0] == "127.0.0.1"
    assert "No report yet" in get(server.address)
    (folder.path / "report.html").write_text("first")
    assert get(server.address) == "first"
    (folder.path / "report.html").write_text("second")
    assert get(server.address) == "second"
    assert server.tunnel.startswith(f"ssh -N -L {server.server_port}:127.0.0.1:{server.server_port} ")


@pytest.mark.parametrize("path", ["/", "/config.toml", "/../config.toml", "/guess/"])
def test_nothing_else_is_served(server, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        get(f"http://127.0.0.1:{server.server_port}{path}")
    assert error.value.code == 404
    error.value.close()


def test_a_site_that_pretends_to_be_this_computer_gets_nothing(server):
    with pytest.raises(urllib.error.HTTPError) as error:
        get(server.address, Host="evil.example")
    assert error.value.code == 404
    error.value.close()
