from __future__ import annotations

from pathlib import Path

import pytest

from cryospin.errors import InputError
from cryospin.formats.paths import StackFinder


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A RELION project: the table in a job folder, names relative to the project."""
    project = tmp_path / "home" / "project"
    (project / "Refine3D" / "job007").mkdir(parents=True)
    touch(project / "Extract" / "job002" / "m1.mrcs")
    monkeypatch.chdir(tmp_path)
    return project


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def find(name: str, table: Path, datadir: Path | None = None) -> Path:
    return StackFinder(table, datadir).find(name)


def test_names_relative_to_the_project_are_found_from_a_job_folder(project):
    got = find("Extract/job002/m1.mrcs", project / "Refine3D" / "job007" / "run_data.star")
    assert got.resolve() == (project / "Extract/job002/m1.mrcs").resolve()


def test_names_relative_to_the_table_are_found(project):
    touch(project / "Refine3D" / "job007" / "sub" / "m2.mrcs")
    table = project / "Refine3D" / "job007" / "run_data.star"
    assert find("sub/m2.mrcs", table) == project / "Refine3D" / "job007" / "sub" / "m2.mrcs"
    assert find("./sub/m2.mrcs", table) == project / "Refine3D" / "job007" / "sub" / "m2.mrcs"


def test_names_relative_to_the_working_folder_are_found(project, monkeypatch):
    away = project.parent.parent / "elsewhere" / "moved.star"
    with pytest.raises(InputError, match="not found"):
        find("Extract/job002/m1.mrcs", away)
    monkeypatch.chdir(project)
    assert find("Extract/job002/m1.mrcs", away) == Path("Extract/job002/m1.mrcs")
    assert find("Extract/job002/m1.mrcs", Path("here.star")).is_file()
    monkeypatch.chdir(project / "Refine3D" / "job007")
    assert find("Extract/job002/m1.mrcs", Path("run_data.star")).is_file()


@pytest.mark.parametrize("own", ["elsewhere/stack.mrcs", "stack.mrcs"])
def test_what_belongs_to_the_table_comes_before_a_namesake_in_the_working_folder(project, own, monkeypatch):
    """Beside the table or in a folder above it; the namesake is told of, once."""
    mine, table = project.parent.parent / own, project.parent.parent / "elsewhere" / "particles.star"
    touch(mine, mine.with_name("second.mrcs"), project / "stack.mrcs", project / "second.mrcs")
    monkeypatch.chdir(project)
    finder = StackFinder(table)
    assert finder.find("stack.mrcs") == mine
    assert finder.find("second.mrcs") == mine.with_name("second.mrcs")
    assert finder.rivals == [(mine, project / "stack.mrcs")]


def test_the_same_file_by_two_ways_has_no_rival(project, monkeypatch):
    monkeypatch.chdir(project)
    finder = StackFinder(project / "Refine3D" / "job007" / "run_data.star")
    finder.find("Extract/job002/m1.mrcs")
    assert finder.rivals == []


def test_a_stack_given_in_place_of_a_table_is_itself(project, monkeypatch):
    monkeypatch.chdir(project)
    touch(project / "sub" / "s.mrcs", project / "sub" / "sub" / "s.mrcs")
    assert find("sub/s.mrcs", Path("sub/s.mrcs")) == Path("sub/s.mrcs")


def test_a_table_reached_through_a_link_is_looked_around_where_it_really_is(project):
    link = project.parent / "link.star"
    touch(project / "Refine3D" / "job007" / "run_data.star")
    link.symlink_to(project / "Refine3D" / "job007" / "run_data.star")
    assert find("Extract/job002/m1.mrcs", link).is_file()


def test_absolute_names_are_found(project):
    name = str(project / "Extract/job002/m1.mrcs")
    assert str(find(name, project / "t.star")) == name


@pytest.mark.parametrize(("there", "asked"), [("m.mrcs", "m.mrc"), ("m.mrc", "m.mrcs")])
def test_mrc_and_mrcs_are_exchanged(project, there, asked):
    touch(project / "Extract" / there)
    assert find(f"Extract/{asked}", project / "t.star") == project / "Extract" / there


def test_the_name_as_it_is_comes_before_its_twin(project):
    touch(project / "m.mrc", project / "m.mrcs")
    assert find("m.mrc", project / "t.star").name == "m.mrc"
    assert find("m.mrcs", project / "t.star").name == "m.mrcs"


def test_other_suffixes_have_no_twin(project):
    touch(project / "m.mrc")
    with pytest.raises(InputError, match=r"stack m\.mrcs\.gz not found"):
        find("m.mrcs.gz", project / "t.star")


def test_datadir_comes_first(project):
    other = project / "fast_disk"
    touch(other / "Extract" / "job002" / "m1.mrcs")
    got = find("Extract/job002/m1.mrcs", project / "t.star", other)
    assert got == other / "Extract" / "job002" / "m1.mrcs"


@pytest.mark.parametrize("place", ["job002/sub/m3.mrcs", "sub/m3.mrcs", "m3.mrcs", "m3.mrc"])
def test_datadir_takes_names_without_their_first_folders(project, place):
    other = project.parent / "fast_disk"
    touch(other / place)
    assert find("Extract/job002/sub/m3.mrcs", project / "t.star", other) == other / place


def test_as_many_folders_of_a_name_are_kept_as_can_be(project):
    other = project.parent / "fast_disk"
    touch(other / "m3.mrcs", other / "sub" / "m3.mrcs")
    assert find("Extract/sub/m3.mrcs", project / "t.star", other) == other / "sub" / "m3.mrcs"


def test_a_whole_name_anywhere_comes_before_a_bare_one_under_datadir(project):
    other = project.parent / "fast_disk"
    touch(other / "m1.mrcs")
    got = find("Extract/job002/m1.mrcs", project / "t.star", other)
    assert got == project / "Extract/job002/m1.mrcs"


def test_a_stack_beside_the_table_is_found_by_its_bare_name(project):
    touch(project / "m9.mrcs")
    assert find("/some/other/machine/m9.mrcs", project / "t.star") == project / "m9.mrcs"
    assert find("/some/other/machine/m9.mrc", project / "t.star") == project / "m9.mrcs"


def test_the_place_that_had_the_last_one_is_tried_first(project, monkeypatch):
    names = [f"Extract/job002/m{i}.mrcs" for i in range(1, 30)]
    touch(*(project / name for name in names))
    finder = StackFinder(project / "Refine3D" / "job007" / "run_data.star")
    looked = []
    monkeypatch.setattr("cryospin.formats.paths._is_file", lambda path: looked.append(path) or path.is_file())
    for name in names:
        assert finder.find(name) == project / name
    assert looked[-len(names) + 1 :] == [project / name for name in names[1:]]


def test_datadir_stays_first_wherever_the_last_one_was(project):
    other = project.parent / "fast_disk"
    touch(project / "Extract" / "job002" / "m2.mrcs", other / "Extract" / "job002" / "m2.mrcs")
    finder = StackFinder(project / "Refine3D" / "job007" / "run_data.star", other)
    assert finder.find("Extract/job002/m1.mrcs") == project / "Extract/job002/m1.mrcs"
    assert finder.find("Extract/job002/m2.mrcs") == other / "Extract/job002/m2.mrcs"


def test_stacks_may_lie_in_different_places(project):
    touch(project / "Refine3D" / "job007" / "a.mrcs", project / "b.mrcs")
    finder = StackFinder(project / "Refine3D" / "job007" / "run_data.star")
    for name, where in (("b.mrcs", "b.mrcs"), ("a.mrcs", "Refine3D/job007/a.mrcs"), ("b.mrcs", "b.mrcs")):
        assert finder.find(name) == project / where


def test_a_missing_stack_is_named_with_the_places_tried(project):
    (project / "fast_disk").mkdir()
    with pytest.raises(InputError) as error:
        find("Extract/job009/m1.mrcs", project / "t.star", project / "fast_disk")
    text = str(error.value)
    assert text.startswith(f"{project / 't.star'}: stack Extract/job009/m1.mrcs not found (looked in ")
    for place in (project / "fast_disk" / "Extract" / "job009", project / "Extract" / "job009", project):
        assert str(place) in text
    assert "--datadir" in text
    assert "\n" not in text


def test_a_folder_is_no_stack(project):
    (project / "m7.mrcs").mkdir()
    with pytest.raises(InputError, match="not found"):
        find("m7.mrcs", project / "t.star")


@pytest.mark.parametrize(
    "name", ["a\0b.mrcs", "m" * 5000 + ".mrcs", "d/" * 300 + "m.mrcs", "", ".", "/", "..", "\udcff.mrcs"]
)
def test_names_that_no_file_can_have_are_not_found(project, name):
    with pytest.raises(InputError, match="not found"):
        find(name, project / "t.star", project)


def test_a_datadir_that_is_no_folder_is_named(project):
    with pytest.raises(InputError, match=r"nowhere: is not a folder\. Check --datadir"):
        find("Extract/job002/m1.mrcs", project / "t.star", project / "nowhere")


@pytest.mark.parametrize("gone", ["job002", "job003"])
def test_names_of_two_folders_that_lead_to_one_file_are_told(project, gone):
    """Cut short, the name of a stack that is missing may be that of another."""
    kept = "job003" if gone == "job002" else "job002"
    touch(project / "Extract" / kept / "m1.mrcs")
    (project / "Extract" / gone / "m1.mrcs").unlink(missing_ok=True)
    finder = StackFinder(project.parent / "table.star", project / "Extract" / kept)
    for job in ("job002", "job003"):
        assert finder.find(f"Extract/{job}/m1.mrcs").is_file()
    ((one, other, path),) = finder.mixed_up
    assert {one, other} == {"Extract/job002/m1.mrcs", "Extract/job003/m1.mrcs"}
    assert path == project / "Extract" / kept / "m1.mrcs"


@pytest.mark.parametrize("other", ["job002/m1.mrcs", "m1.mrcs", "/old/place/Extract/job002/m1.mrcs"])
def test_longer_and_shorter_names_of_one_file_are_no_mistake(project, other):
    finder = StackFinder(project.parent / "table.star", project / "Extract" / "job002")
    assert finder.find("Extract/job002/m1.mrcs") == finder.find(other)
    assert finder.mixed_up == []


def test_a_file_that_two_whole_names_lead_to_is_no_mistake(project):
    (project / "Linked").symlink_to(project / "Extract")
    finder = StackFinder(project / "table.star")
    assert finder.find("Extract/job002/m1.mrcs").samefile(finder.find("Linked/job002/m1.mrcs"))
    assert finder.mixed_up == []
