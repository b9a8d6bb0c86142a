"""The page that a run ends with tells of everything that the run's log does."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

from cryospin import pipeline
from cryospin.engine.record import EpochRecord
from cryospin.results import Result
from cryospin.settings import Settings


def test_the_page_of_a_run_holds_the_last_lines_of_its_log(images, written, tmp_path, monkeypatch):
    settings = Settings(particles=images / "particles.star", out=tmp_path / "run", threads=1, symmetry="auto")

    # What the stages would have found is there.
    def passed_over(stage, work, folder, step):
        work.journal.epoch(EpochRecord("explore", 60.0, -10.0))
        return SimpleNamespace(result=lambda particles, packed: Result.of(settings, particles, packed, written.refinement))

    monkeypatch.setattr(pipeline, "_to_the_end", passed_over)
    pipeline.reconstruct(settings)
    page = (settings.out / "report.html").read_text()
    log = (settings.out / "log.txt").read_text().splitlines()
    shown = page[page.index("<pre>") + len("<pre>") : page.index("</pre>")].splitlines()
    assert "done: " in log[-1]
    assert [line for line in shown if line] == log
    name = json.loads((settings.out / "symmetry.json").read_text())["symmetry"]
    verdict = "The map has no symmetry (C1)." if name == "C1" else f"The map has {name}"
    assert verdict in page
    assert "<th>symmetry.json</th>" in page
    assert re.search(r"Log \((\d+) lines\)", page)[1] == str(len(log))
    assert 'id="figure-fsc"' in page
