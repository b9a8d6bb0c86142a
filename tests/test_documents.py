"""The documents hold: the site builds without a warning, what they tell a user to type works, what they quote is said."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import typer

import cryospin
from cryospin.cli import app
from cryospin.engine.learning import Learning
from cryospin.formats.star import read_star

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md"]

FULL = "--n 3000 --box 64 --pixel-size 5 --snr 0.1"
SMALL = "--n 110 --box 24 --pixel-size 12 --snr 1"
LEAST_RUN = (
    "--preset paper --set heads=2 --set encoding_epochs=1 --set decoding_epochs=1 "
    "--set channels=8,8,8,8,8 --set features=16,16 --threads 1"
)
"""A run that writes everything and finds nothing."""

OTHERS = {"--firstiter_cc", "--gpu", "--ini_high", "--particle_diameter", "--angpix"}
"""Options of RELION that pages name outside of its commands."""

needs_relion = pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="RELION is not installed")
needs_mkdocs = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("mkdocs", "material", "latex2mathml")),
    reason="MkDocs, its theme or latex2mathml is not installed: pip install -e '.[docs]'",
)
of_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, *languages: str) -> list[str]:
    """What stands in a page's fenced blocks of some languages, in order; of all, where none is named."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages or not languages]


def script(page: Path, *, small: bool = True) -> str:
    """All that a page has run, as one script.

    small: with few small images and the least run
    """
    text = "\n".join(blocks(page, "bash"))
    if small:
        text = re.sub(r"^(cryospin reconstruct .*)$", rf"\1 {LEAST_RUN}", text.replace(FULL, SMALL), flags=re.MULTILINE)
    return text


@cache
def options() -> dict[str, set[str]]:
    """Options of each command."""
    commands = typer.main.get_command(app).commands
    return {n: {o for p in c.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")} for n, c in commands.items()}


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Runs a script where `cryospin` is what is tested here."""
    programs = tmp_path_factory.mktemp("programs")
    command = programs / "cryospin"
    call = f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -W error -c 'from cryospin.cli import main; main()' \"$@\"\n"
    command.write_text(call)
    command.chmod(0o755)
    source = str(Path(cryospin.__file__).parent.parent)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}

    def run(text: str, where: Path) -> str:
        full = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(full, cwd=where, env=environment, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def first(shell, tmp_path_factory) -> Path:
    """The folder that a user has who has followed the first reconstruction, in small."""
    folder = tmp_path_factory.mktemp("somewhere")
    said = shell(script(DOCS / "first-reconstruction.md"), folder)
    assert "Fit to reconstruct from" in said
    assert "rotation error" in said
    return folder / "first"


def lay_out_relion_project(first: Path, project: Path) -> None:
    """The images and tables of the first reconstruction, in the places where RELION has them."""
    extract, run = project / "Extract" / "job007", project / "cryospin" / "run1"
    extract.mkdir(parents=True)
    shutil.copy(first / "data" / "particles.mrcs", extract)
    shutil.copytree(first / "run1", run)
    for table, to in ((first / "data" / "particles.star", extract), (first / "run1" / "particles.star", run)):
        (to / table.name).write_text(table.read_text().replace("@", "@Extract/job007/"))


def lay_out_cryosparc_project(first: Path, project: Path) -> None:
    """The same particles as a cryoSPARC job, with the CTF in a passthrough file."""
    (project / "J42" / "extract").mkdir(parents=True)
    shutil.copy(first / "data" / "particles.mrcs", project / "J42" / "extract" / "particles.mrc")
    table = read_star(first / "data" / "particles.star")
    optics, count = table.optics, len(table)
    uid = np.arange(count, dtype=np.uint64) + 1000
    path = np.full(count, b">J42/extract/particles.mrc")
    own = {"uid": uid, "blob/path": path, "blob/idx": np.arange(count, dtype=np.uint32)}
    own["blob/psize_A"] = np.full(count, table.pixel_size, np.float32)
    (group,) = optics.groups
    own["blob/shape"] = np.full((count, 2), group.box, np.uint32)
    more = {
        "ctf/accel_kv": np.full(count, group.voltage),
        "ctf/cs_mm": np.full(count, group.spherical_aberration),
        "ctf/amp_contrast": np.full(count, group.amplitude_contrast),
        "ctf/df1_A": optics.defocus_u.numpy(),
        "ctf/df2_A": optics.defocus_v.numpy(),
        "ctf/df_angle_rad": np.deg2rad(optics.defocus_angle.numpy()),
    }
    more = {"uid": uid} | {name: values.astype(np.float32) for name, values in more.items()}
    for columns, name in ((own, "J42_particles.cs"), (more, "J42_passthrough_particles.cs")):
        with (project / "J42" / name).open("wb") as handle:
            kinds = [(column, values.dtype, values.shape[1:]) for column, values in columns.items()]
            rows = np.zeros(count, kinds)
            for column, values in columns.items():
                rows[column] = values
            np.save(handle, rows)


def build_site(where: Path, to: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a copy of the sources. Not with --quiet, which keeps --strict from counting warnings."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(to)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(build, cwd=where, env=environment, capture_output=True, text=True, timeout=120, check=False)


@needs_mkdocs
def test_the_site_builds_without_a_warning(tmp_path):
    done = build_site(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    pages = {path.name: path.read_text() for path in (tmp_path / "site").glob("*.html")}
    missing = {o for some in options().values() for o in some} - set(re.findall(r"--[\w-]+", pages["options.html"]))
    assert missing == set()
    assert "<math" in pages["method.html"]
    assert "kernels/" in pages["contributing.html"]
    fetched = re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?https?://""", "".join(pages.values()))
    assert fetched == []


@needs_mkdocs
@pytest.mark.parametrize("broken", ["[lost](nowhere.md)", "[lost](install.md#nowhere)", "![lost](images/nowhere.png)"])
def test_a_link_that_leads_nowhere_is_refused(tmp_path, broken):
    for name in ("docs", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / "index.md").open("a") as page:
        page.write(f"\n{broken}\n")
    done = build_site(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stderr


@of_every_page
def test_every_option_a_page_names_exists(page):
    known = options()
    text = page.read_text().replace("\\\n", " ")
    used = re.findall(r"\bcryospin (\w+)\b(?: *([^\n`|;#]*))", text)
    named = [(command, o) for command, rest in used if command in known for o in re.findall(r"--[\w-]+", rest)]
    assert [(command, o) for command, o in named if o not in known[command] | {"--help"}] == []
    everywhere = {o for some in known.values() for o in some} | {"--help", "--version"} | OTHERS
    alone = set(re.findall(r"`(--[\w-]+)[^`\n]*`", text))
    assert alone - everywhere == set()
    numbers = set(re.findall(r"--set (\w+)=", text))
    assert numbers - set(Learning.__dataclass_fields__) - {"NAME"} == set()


@of_every_page
def test_every_command_a_page_shows_exists(page):
    shown = re.findall(r"^\s*cryospin (\w+)", "\n".join(blocks(page)), re.MULTILINE)
    assert set(shown) <= set(options())


def test_the_messages_in_trouble_are_the_programs():
    said = []
    for path in Path(cryospin.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                said.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
    everything = "\n".join(re.sub(r"\{\w+\}", "…", text) for text in said)
    first_columns = re.findall(r"^\| (.*?) \|", (DOCS / "trouble.md").read_text(), re.MULTILINE)
    quoted = [q for cell in first_columns for q in re.findall(r"`([^`]+)`", cell) if " " in q]
    assert len(quoted) > 30
    lost = [q for q in quoted if not all(part in everything for part in re.split(r"\s*…\W*\s*", q) if len(part) > 3)]
    assert lost == []


@pytest.mark.slow
def test_the_first_reconstruction_leaves_what_its_page_says(first):
    page = (DOCS / "first-reconstruction.md").read_text()
    names = re.findall(r"`(\w+\.\w+)`", "\n".join(re.findall(r"^\| `.*", page, re.MULTILINE)))
    assert len(names) > 10
    for name in names:
        assert (first / "run1" / name).is_file(), name
    assert (first / "run1" / "report.html").is_file()


@needs_relion
def test_relion_goes_on_from_a_run_as_its_page_says(first, shell, tmp_path):
    lay_out_relion_project(first, tmp_path)
    shell("\n".join(b for b in blocks(DOCS / "relion.md", "bash") if b.startswith("relion_")), tmp_path)
    for name in ("relion.mrc", "relion_half1.mrc", "relion_other_hand.mrc", "good.star"):
        assert (tmp_path / "cryospin" / "run1" / name).is_file()


@pytest.mark.slow
def test_a_relion_project_as_its_page_has_it(first, shell, tmp_path):
    lay_out_relion_project(first, tmp_path)
    shutil.rmtree(tmp_path / "cryospin")
    text = script(DOCS / "relion.md")
    if shutil.which("relion_reconstruct") is None:
        text = re.sub(r"^relion_.*$", "", text, flags=re.MULTILINE)
    shell(text, tmp_path)
    assert read_star(tmp_path / "cryospin" / "run1" / "particles.star").poses is not None


@pytest.mark.slow
def test_a_cryosparc_project_as_its_page_has_it(first, shell, tmp_path):
    lay_out_cryosparc_project(first, tmp_path)
    text = script(DOCS / "cryosparc.md")
    if shutil.which("relion_reconstruct") is None:
        text = re.sub(r"^relion_.*$", "", text, flags=re.MULTILINE)
    shell(text, tmp_path)
    for code in blocks(DOCS / "cryosparc.md", "python"):
        shell(f"{shlex.quote(sys.executable)} -W error -c {shlex.quote(code)}", tmp_path)
    rows = np.load(tmp_path / "run1" / "particles.cs")
    assert rows["uid"].tolist() == list(range(1000, 1000 + len(rows)))


@pytest.mark.slow
def test_the_first_reconstruction_as_it_stands(shell, tmp_path):
    text = script(DOCS / "first-reconstruction.md", small=False)
    shell(text.replace("data/truth.star\n", "data/truth.star --json f.json\n"), tmp_path)
    figures = json.loads((tmp_path / "first" / "f.json").read_text())
    assert figures["rotation_error_deg"]["median"] < 2
    assert figures["resolution_A"]["fsc_0_5"] < 16
