"""The page of a run: whole, of one file, and safe whatever the run's files hold."""

from __future__ import annotations

import base64
import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from scipy import ndimage

from cryospin.errors import InputError
from cryospin.evaluation.sampling import Sampling
from cryospin.formats.volume import read_map
from cryospin.report.contents import Contents, Maps, read_progress, read_run
from cryospin.report.drawing import undecided
from cryospin.report.map3d import LARGEST_BOX, surfaces
from cryospin.report.numbers import Numbers, remarks
from cryospin.report.page import as_html, rewrite_page, write_report

FIGURES = {"fsc", "local_resolution", "orientations", "slices", "progress", "heads", "head_maps", "modes"} | {
    "confidence",
    "defocus",
    "shifts",
    "shortfall",
}
HOSTILE = "</script><img src=x onerror=alert(1)>&\"'"


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of a page outside scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text, self._inside = [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag if tag in ("script", "style") else self._inside

    def handle_endtag(self, tag):
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data):
        if not self._inside:
            self.text += data

    def ids(self):
        return {a["id"] for _, a in self.elements if "id" in a}


def page_of(folder):
    return Parsed((folder / "report.html").read_text())


def figures_of(folder):
    return {i.removeprefix("figure-") for i in page_of(folder).ids() if i.startswith("figure-")}


def test_a_finished_run_has_every_figure(written):
    assert figures_of(written.folder) == FIGURES
    page = page_of(written.folder)
    assert {"map", "views", "junk", "run", "volumes"} <= page.ids()
    assert "finished" in page.text
    assert [a for t, a in page.elements if t == "meta" and a.get("http-equiv") == "refresh"] == []
    for name in ("fsc", "orientations", "slices", "progress", "heads"):
        assert (written.folder / f"{name}.png").is_file()


def test_settings_versions_and_warnings_are_told_as_text(written):
    page = page_of(written.folder)
    assert "<b>made up</b> & short" in page.text
    assert torch.__version__ in page.text
    assert str(written.folder) in page.text


def test_everything_is_in_the_one_file(written):
    page = page_of(written.folder)
    addresses = [a[k] for _, a in page.elements for k in ("src", "href", "srcset", "action", "data", "poster") if a.get(k)]
    assert addresses
    assert [x[:60] for x in addresses if not x.startswith(("data:", "#"))] == []
    text = (written.folder / "report.html").read_text()
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    # Beside the viewer, which names the data bases it could load from and is not asked to, no script knows an address.
    scripts = text.split("<script")[1:]
    assert [s[:80] for s in scripts if "http" in s and "3Dmol" not in s[:5000]] == []
    assert len(text) < 10e6


def test_names_out_of_files_cannot_run(written, tmp_path):
    run = written.copy(tmp_path / "<i>run&")
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config + f"note = {json.dumps(HOSTILE)}\n'{HOSTILE.replace(chr(39), '')}' = 1\n")
    star = (run / "particles.star").read_text()
    # A name with spaces would be quoted; this one needs no quotes.
    name = "</script><script>alert(1)</script>.mrcs"
    (run / "particles.star").write_text(star.replace("@particles.mrcs", f"@{name}"))
    with (run / "log.txt").open("a") as handle:
        handle.write(f"1.0 s  warning: {HOSTILE}\n")
    about = json.loads((run / "report" / "about.json").read_text())
    about["devices"]["cpu"] = HOSTILE
    (run / "report" / "about.json").write_text(json.dumps(about))
    write_report(run)
    page, plain = page_of(run), page_of(written.folder)
    for tag in ("script", "img", "i"):
        assert sum(t == tag for t, _ in page.elements) == sum(t == tag for t, _ in plain.elements)
    assert not any(a.get("onerror") or a.get("src") == "x" for _, a in page.elements)
    assert page.text.count(HOSTILE) >= 3
    assert name in page.text
    assert f"000004@{name}" in [a.get("title") for _, a in page.elements]


def test_bytes_that_are_no_utf8_do_not_stop_a_page(written, tmp_path):
    run = written.copy(tmp_path / "run")
    with (run / "log.txt").open("ab") as handle:
        handle.write(b"2.0 s  warning: prot\xe9ine\n")
    write_report(run)
    assert "prot\ufffdine" in page_of(run).text


def test_a_run_without_heads_and_evidence(written, tmp_path):
    run = written.copy(tmp_path / "run")
    shutil.rmtree(run / "report")
    shutil.rmtree(run / "checkpoints")
    (run / "heads.png").unlink()
    records = [json.loads(line) | {"winners": None} for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    paths = write_report(run)
    assert run / "heads.png" not in paths
    assert figures_of(run) == FIGURES - {"heads", "head_maps", "modes", "shortfall"}


def test_a_run_of_one_epoch(written, tmp_path):
    run = written.copy(tmp_path / "run")
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().splitlines()[0] + "\n")
    write_report(run)
    assert "progress" in figures_of(run)


def test_a_run_that_was_stopped_shows_how_far_it_came(written, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(written.folder / "config.toml", run)
    write_report(run)
    assert "not finished" in page_of(run).text
    for name in ("metrics.jsonl", "log.txt"):
        shutil.copy(written.folder / name, run)
    write_report(run)
    assert figures_of(run) == {"progress", "heads"}
    assert "refine, epoch 3" in " ".join(page_of(run).text.split())


def test_evidence_of_other_particles_is_not_shown(written, tmp_path):
    run = written.copy(tmp_path / "run")
    lines = (run / "particles.star").read_text().splitlines()
    last = max(i for i, line in enumerate(lines) if "@particles.mrcs" in line)
    (run / "particles.star").write_text("\n".join(lines[:last] + lines[last + 1 :]) + "\n")
    (run / "checkpoints" / "modes.safetensors").unlink()
    write_report(run)
    assert "junk" not in page_of(run).ids()


def test_a_run_of_before_there_was_a_local_resolution_has_a_page(written, tmp_path):
    run = written.copy(tmp_path / "run")
    (run / "local_resolution.mrc").unlink()
    write_report(run)
    assert figures_of(run) == FIGURES - {"local_resolution"}


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("metrics.jsonl", "{}\nnonsense\n", "line 2 is not JSON"),
        ("config.toml", "= =", "is not TOML"),
        ("fsc.csv", "a,b\n1,2\n", "lacks the columns"),
        ("fsc.csv", "resolution_A,fsc_unmasked\n", "holds no shell"),
        ("report/about.json", "[1", "is not JSON"),
        ("symmetry.json", '{"symmetry": "C4", "candidates": [{"name": "C4"}]}', "cannot be read"),
    ],
)
def test_damaged_files_are_named(written, tmp_path, name, content, complaint):
    run = written.copy(tmp_path / "run")
    (run / name).write_text(content)
    with pytest.raises(InputError, match=complaint) as error:
        write_report(run)
    assert str(error.value.where).endswith(name)


def test_volumes_keep_the_map_in_eight_bits(written):
    found = surfaces(read_run(written.folder).maps)
    density = read_map(written.folder / "map.mrc")[0].clamp_min(0)
    values = np.frombuffer(base64.b64decode(found["map"]), np.uint8).reshape(found["size"])
    assert values.max() == 255
    # What was cropped away is next to nothing, and z runs fastest.
    whole = (255 * density / density.max()).numpy().transpose(2, 1, 0)
    assert values.sum() == pytest.approx(whole.sum(), rel=0.1)
    start = np.array(ndimage.center_of_mass(whole)) - ndimage.center_of_mass(values)
    assert np.abs(start - start.round()).max() < 0.35
    assert {"half1", "half2"} <= set(found)
    assert 0.05 < found["level"] < 0.8


def test_large_maps_are_made_coarser():
    k = torch.arange(128) - 64
    ball = torch.exp(-(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) / (2 * 40.0**2))
    found = surfaces(Maps(ball, 1.5))
    assert max(found["size"]) <= LARGEST_BOX
    assert found["voxel"] == pytest.approx(2.0)


def test_numbers_of_the_run(written):
    contents = read_run(written.folder)
    numbers = Numbers.of(contents)
    assert numbers.sampling is not None
    assert numbers.sampling.compensation > 0.8
    assert numbers.doubtful == 3
    # All but the image with two poses.
    assert numbers.sure == pytest.approx(239 / 240)
    assert remarks(contents, numbers)[0] == "<b>made up</b> & short"


def test_uneven_views_and_unsure_poses_are_remarked_upon(written):
    contents = read_run(written.folder)
    top = contents.rotation[0].expand(240, 3, 3).clone()
    contents.rotation = top
    contents.particles.confidence[:200] = 0.5
    told = " ".join(remarks(contents, Numbers.of(contents)))
    assert "very uneven" in told
    assert "of the directions have no data" in told
    assert "Only 17 %" in told


@pytest.mark.parametrize(
    ("compensation", "missing", "told"),
    [
        (0.39, 0.04, ["0.39 (1 is even), and 4 % of the directions have no data. The map may be smeared along them."]),
        (0.39, 0.004, ["0.39 (1 is even)."]),
        (0.41, 0.0, []),
    ],
)
def test_views_are_remarked_upon_where_the_documents_say_so(tmp_path, compensation, missing, told):
    numbers = Numbers(sampling=Sampling(compensation=compensation, missing=missing, shell=10))
    before = "Views are very uneven: the sampling compensation factor is "
    assert remarks(Contents(tmp_path, running=False), numbers) == [before + end for end in told]


def test_a_page_of_nothing_yet(tmp_path):
    (tmp_path / "config.toml").write_text('particles = "x.star"\n')
    page = Parsed(as_html(read_progress(tmp_path, running=True), Numbers(), {}))
    assert ("meta", {"http-equiv": "refresh", "content": "15"}) in page.elements
    assert "starting" in page.text


def test_a_symmetry_that_is_looked_for_is_not_imposed(tmp_path):
    assert len(Contents(tmp_path, running=False, config={"symmetry": "auto"}).group) == 1
    assert len(Contents(tmp_path, running=False, config={"symmetry": "d2"}).group) == 4
    assert len(Contents(tmp_path, running=False).group) == 1


def test_a_group_counts_once_the_map_stands_on_its_axes(tmp_path):
    def order(stage, **config):
        return len(Contents(tmp_path, running=True, config={"symmetry": "C4"} | config, records=[{"stage": stage}]).group)

    assert [order("explore"), order("compete"), order("refine")] == [1, 1, 4]
    assert order("compete", impose="start") == 4


def test_the_page_is_written_again_with_the_end_of_the_log_and_the_figures_it_had(written, tmp_path, monkeypatch):
    run = written.copy(tmp_path / "run")
    monkeypatch.setattr("cryospin.report.page.draw", lambda *_: pytest.fail("nothing is drawn anew"))
    with (run / "log.txt").open("a") as handle:
        handle.write("    83.0 s  done: 9.87 Å by half maps (FSC 0.143)\n")
    (run / "symmetry.json").write_text(json.dumps(SYMMETRY))
    rewrite_page(run)
    page, before = page_of(run), page_of(written.folder)
    assert "done: 9.87 Å" in page.text
    assert "after 1 min 23 s" in " ".join(page.text.split())
    assert [a["src"] for t, a in page.elements if t == "img" and "src" in a] == [
        a["src"] for t, a in before.elements if t == "img" and "src" in a
    ]


def test_without_a_page_there_is_none_to_write_again(tmp_path):
    rewrite_page(tmp_path)
    assert list(tmp_path.iterdir()) == []


SYMMETRY = {
    "symmetry": "C4",
    "last_shell": 12,
    "expected_score": 0.96,
    "candidates": [
        {
            "name": name,
            "score": score,
            "score_between": 0.05,
            "score_random_mean": 0.01,
            "score_random_sd": 0.04,
            "main_axis": [0.0, 0.6, 0.8],
        }
        for name, score in (("C2", 0.957), ("C4", 0.953), ("D4", 0.52))
    ],
}


def test_the_symmetry_that_was_looked_for_is_told_with_its_rivals(written, tmp_path):
    run = written.copy(tmp_path / "run")
    (run / "symmetry.json").write_text(json.dumps(SYMMETRY))
    rewrite_page(run)
    page = page_of(run)
    said = " ".join(page.text.split())
    # 24 pixels of 8 Å are 192 Å wide.
    assert "The map has C4, as far as 16.0 Å. --symmetry C4 imposes it" in said
    assert "C4 0.95 0.05 0.01 ± 0.04 0.000, 0.600, 0.800" in said.replace("  ", " ")
    assert said.index("The map has C4") < said.index("half-way turns")
    assert "symmetry.json" in said
    assert "symmetry" in page.ids()
    assert "symmetry" not in page_of(written.folder).ids()
    (run / "symmetry.json").write_text(json.dumps(SYMMETRY | {"symmetry": "C1", "candidates": []}))
    rewrite_page(run)
    assert "The map has no symmetry (C1)." in page_of(run).text


def test_a_run_that_found_nothing_says_so_first_and_boasts_of_no_resolution(written, tmp_path):
    run = written.copy(tmp_path / "run")
    with (run / "log.txt").open("a") as handle:
        handle.write("     5.0 s  warning: no structure was found: images gain 5.2 nats\n")
    rewrite_page(run)
    page, before = page_of(run), page_of(written.folder)
    assert "chip warn" in [a.get("class") for _, a in page.elements]
    assert "chip done" not in [a.get("class") for _, a in page.elements]
    assert "finished, no structure found" in page.text
    # The warning stands before the numbers, and once.
    sections = [a for t, a in page.elements if t == "section"]
    assert sections[0]["id"] == "no-structure"
    assert page.text.count("no structure was found: images gain 5.2 nats") == 2, "there and in the log"
    assert "half maps, corrected FSC 0.143" in before.text
    assert "half maps, corrected FSC 0.143" not in page.text
    assert "no-structure" not in before.ids()
    assert "chip done" in [a.get("class") for _, a in before.elements]


def test_shares_of_undecided_particles_agree_with_their_confidence(written):
    contents = read_run(written.folder)
    ((title, rotation, share),) = undecided(contents)
    confidence = contents.particles.confidence[0]
    assert share[0] == pytest.approx(confidence)
    assert share.sum() == pytest.approx(1)
    assert len(share) == len(rotation) == 2
    assert title.startswith(f"row 1: {100 * confidence:.0f} % and {100 * (1 - confidence):.0f} %")
    # Whichever map prefers which pose, the table's number is the one that is shown, and the rest is shared by misfit.
    contents.particles.confidence[0] = 0.2
    third = {name: values[-1:].clone() for name, values in contents.modes.items() if name != "half"}
    third["image"], third["misfit"] = (
        torch.tensor([0]),
        contents.modes["misfit"][contents.modes["image"] == 0].max()[None] + 1,
    )
    contents.modes = {name: torch.cat([contents.modes[name], values]) for name, values in third.items()}
    ((_, _, share),) = undecided(contents)
    assert share == pytest.approx([0.2, 0.8 * 0.7311, 0.8 * 0.2689], abs=1e-3)


def test_doubtful_particles_are_not_among_the_undecided(written):
    contents = read_run(written.folder)
    contents.evidence["shortfall"][0] = 4.0
    assert undecided(contents) == []
