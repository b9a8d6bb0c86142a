"""`cryospin check`: a page for people, JSON for programs, an exit status for scripts."""

from __future__ import annotations

import json
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest
from typer.testing import CliRunner

from cryospin.cli import app
from cryospin.simulation import ImagingConditions, simulate

COUNT = 220


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def check(*arguments, status=0):
    """The page that a check prints, blanks run together."""
    result = call("check", *arguments)
    assert result.exit_code == status, result.output
    assert result.stderr == ""
    return " ".join(result.stdout.split())


@pytest.fixture(scope="module")
def imaged(tmp_path_factory, blobs):
    folder = tmp_path_factory.mktemp("imaged")
    simulate(blobs.density(20), 7.0, COUNT, folder, ImagingConditions(snr=0.3, phase_shift=60.0, beam_tilt=(0.3, -0.2)))
    return folder


@pytest.fixture
def sound(imaged, tmp_path):
    """A set with nothing wrong in it, to be spoiled."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("particles.star", "particles.mrcs", "truth.star"):
        (folder / name).write_bytes((imaged / name).read_bytes())
    star, stack = folder / "particles.star", folder / "particles.mrcs"

    def set_pixels(image, value):
        with mrcfile.mmap(stack, mode="r+") as handle:
            handle.data[image] = value

    def edit(old, new, count=-1):
        text = star.read_text()
        assert old in text
        star.write_text(text.replace(old, new, count))

    return SimpleNamespace(star=star, stack=stack, folder=folder, set_pixels=set_pixels, edit=edit)


def test_a_sound_set_is_fit_and_described(sound):
    page = check(sound.star)
    assert page.startswith(f"{sound.star} format RELION 3.1 STAR particles 220 in 1 stack box 20 px pixel size 7 Å")
    for told in (
        "pixel type float32",
        "poses none",
        "phase shift 60 to 60°",
        "optics groups 1 opticsGroup1: 220 particles, 300 kV, Cs 2.7 mm, amplitude contrast 0.1, 7 Å, beam tilt 0.30, -0.20",
        "images read 200",
        "(normalised)",
        "protein white",
    ):
        assert told in page
    assert "Wrong" not in page
    assert "Suspicious" not in page
    assert " Fit to reconstruct from: about " in page
    assert page.endswith(" free.") or page.endswith(" of memory.")


def test_errors_and_doubts_are_listed_and_counted(sound):
    sound.edit("opticsGroup1   300.000000", "opticsGroup1     3.000000")
    sound.edit("particles.mrcs", "gone.mrcs", 1)
    sound.edit("000003@", "000999@")
    page = check(sound.star, status=2)
    assert page.index(" Wrong - ") < page.index(" Suspicious - ")
    assert "- stack gone.mrcs not found (looked in " in page
    assert "- optics group opticsGroup1: a voltage of 3 kV is unusual. rlnVoltage counts kV" in page
    assert page.endswith("Not fit to reconstruct from: 1 thing to correct first.")
    sound.edit("gone.mrcs", "particles.mrcs", 1)
    sound.edit("_rlnDefocusAngle", "_rlnAngle")
    page = check(sound.star, status=2)
    assert "- row 3 asks for image 999 of particles.mrcs, which holds 220" in page
    assert "rlnDefocusAngle" in page
    assert page.endswith("Not fit to reconstruct from: 2 things to correct first.")


def test_dark_images_that_are_not_normalised_are_no_reason_to_worry(sound):
    with mrcfile.mmap(sound.stack, mode="r+") as handle:
        handle.data[:] = 100 - 5 * handle.data
    page = check(sound.star)
    assert "(not normalised; cryospin does that on load) protein dark; inverted on load" in page


def test_a_broken_table_has_a_page_too(sound):
    sound.star.write_text("hello\n")
    page = check(sound.star, status=2)
    assert page == (
        f"{sound.star} Wrong - not a STAR file: it has no data_ block. Give a RELION particle table, such as "
        "run_data.star Not fit to reconstruct from: 1 thing to correct first."
    )


def test_long_lists_are_cut_on_the_page_and_whole_as_json(sound):
    optics = [f"{i} group{i} 300.0 2.7 0.9 7.0 2 20 0 0\n" for i in range(2, 32)]
    text = sound.star.read_text()
    head, rows = text.split("data_particles")
    last = head.rstrip().splitlines()[-1]
    lines = rows.splitlines()
    for i, line in enumerate(line for line in lines if "@" in line):
        words = line.split()
        words[2] = str(i % 31 + 1)
        rows = rows.replace(line, " ".join(words))
    sound.star.write_text(f"{head.rstrip().removesuffix(last)}{last}\n{''.join(optics)}\n\ndata_particles{rows}")
    page = check(sound.star)
    assert page.count("an amplitude contrast of 0.9 is unusual") == 12
    assert "- and 18 more (--json lists all)" in page
    assert "optics groups 31" in page
    assert "group12: " in page
    assert "group13: 7" not in page
    found = json.loads(call("check", sound.star, "--json").stdout)
    assert len(found["findings"]) == 30
    assert len(found["facts"]["optics_groups"]) == 31


@pytest.mark.parametrize("options", [(), ("--deep",), ("--first", 150), ("--box", 16), ("--threads", 1)])
def test_json_is_all_that_is_printed(sound, options):
    result = call("check", sound.star, "--json", *options)
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["fit"] is True
    assert found["facts"]["particles"] == (150 if "--first" in options else COUNT)
    assert found["images"]["looked_at"] == (COUNT if "--deep" in options else 150 if "--first" in options else 200)
    assert found["cost"]["seconds"] > 0


def test_json_tells_what_is_wrong(sound):
    sound.stack.unlink()
    result = call("check", sound.star, "--json")
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert (found["fit"], found["images"], found["cost"]) == (False, None, None)
    assert [(f["severity"], f["names"]) for f in found["findings"]] == [("error", ["particles.mrcs"])]


def test_a_deep_check_finds_what_a_sample_misses(sound):
    sampled = np.unique(np.linspace(0, COUNT - 1, 200).astype(int))
    missed = int(np.setdiff1d(np.arange(COUNT), sampled)[3])
    sound.set_pixels(missed, np.nan)
    check(sound.star)
    page = check(sound.star, "--deep", status=2)
    assert "Reading images: 220 done" in page
    assert f"- row {missed + 1}: the image has NaN or infinite pixels. Remove the particle" in page


def test_only_chosen_particles_are_checked(sound):
    sound.set_pixels(0, 0.0)
    index = sound.folder / "rows.txt"
    index.write_text("\n".join(str(i) for i in range(50, 200)))
    assert "particles 150 in 1 stack" in check(sound.star, "--particles-index", index)
    assert "row 1: the image is constant" in check(sound.star, "--first", 120, status=2)
    page = check(sound.star, "--first", 20, "--particles-index", index, status=2)
    assert page.endswith("Nothing wrong, but a reconstruction needs at least 100 particles.")


def test_stacks_elsewhere_and_stacks_without_a_table_are_found(sound):
    (sound.folder / "disk").mkdir()
    elsewhere = sound.stack.rename(sound.folder / "disk" / "particles.mrcs")
    check(sound.star, status=2)
    check(sound.star, "--datadir", elsewhere.parent)
    assert "format MRC stack with CTF from particles.star" in check(elsewhere, "--ctf", sound.star)
    assert "--ctf FILE" in check(elsewhere, status=2)


def test_names_that_are_no_utf8_are_shown_all_the_same(sound):
    sound.star.write_bytes(sound.star.read_bytes().replace(b"@particles.mrcs", b"@prot\xe9ine.mrcs"))
    assert r"stack prot\udce9ine.mrcs not found" in check(sound.star, status=2)
    assert json.loads(call("check", sound.star, "--json").stdout)["findings"][0]["names"] == ["prot\udce9ine.mrcs"]


@pytest.mark.parametrize(("option", "value"), [("--first", "0"), ("--first", "-3"), ("--threads", "0"), ("--threads", "-1")])
def test_options_that_make_no_sense_are_refused_by_name(sound, option, value):
    result = call("check", sound.star, option, value)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"cryospin: error: {option} {value} is not a number of")


@pytest.mark.parametrize("options", [(), ("--deep",), ("--json",)])
def test_nothing_is_written(sound, options, monkeypatch):
    monkeypatch.chdir(sound.folder)

    def listing():
        return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in sound.folder.rglob("*")}

    before = listing()
    check("particles.star", *options)
    sound.stack.write_bytes(before["particles.mrcs"][1])
    sound.set_pixels(0, np.nan)
    before = listing()
    check("particles.star", *options, status=2)
    assert listing() == before


def refusal(sound, *options):
    """The one line that a reconstruction is refused with."""
    out = sound.folder / "run"
    result = call("reconstruct", sound.star, "--out", out, *options)
    assert result.exit_code == 2
    assert not out.exists()
    (line,) = result.stderr.splitlines()
    return line


def test_what_a_check_calls_wrong_is_refused_with_the_number_of_further_problems(sound):
    sound.edit("000003@", "000999@")
    line = refusal(sound)
    assert line.startswith(f"cryospin: error: {sound.star}: row 3 asks for image 999 of particles.mrcs, which holds 220. ")
    assert "cryospin check lists" not in line
    sound.edit("_rlnDefocusAngle", "_rlnAngle")
    assert refusal(sound).endswith(". cryospin check lists 1 more")
    sound.edit("_rlnSphericalAberration", "_rlnOther")
    assert refusal(sound).endswith(". cryospin check lists 2 more")
    assert "3 things to correct first" in check(sound.star, status=2)


def test_images_that_a_check_calls_wrong_are_refused(sound):
    sound.set_pixels(7, 0.0)
    check(sound.star, status=2)
    line = refusal(sound)
    assert "image 8 (row 8 of particles.star) has no contrast" in line
    assert "cryospin check --deep" in line


def test_a_list_of_rows_that_is_wrong_is_refused_by_both(sound):
    index = sound.folder / "rows.txt"
    index.write_text("1\n2\n220\n")
    assert "220 is no row of particles.star, which has 220 particles" in refusal(sound, "--particles-index", index)
    assert "220 is no row of particles.star" in check(sound.star, "--particles-index", index, status=2)
