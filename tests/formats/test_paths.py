from __future__ import annotations

from pathlib import Path

import pytest

from cryospin.errors import InputError
from cryospin.formats.paths import find_stack


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A RELION project: the table in a job folder, names relative to the project."""
    monkeypatch.chdir(tmp_path.parent)
    (tmp_path / "Refine3D" / "job007").mkdir(parents=True)
    (tmp_path / "Extract" / "job002").mkdir(parents=True)
    (tmp_path / "Extract" / "job002" / "m1.mrcs").touch()
    return tmp_path


def test_names_relative_to_the_project_are_found_from_a_job_folder(project):
    got = find_stack("Extract/job002/m1.mrcs", project / "Refine3D" / "job007" / "run_data.star")
    assert got.resolve() == (project / "Extract/job002/m1.mrcs").resolve()


def test_names_relative_to_the_working_folder_are_found(project, monkeypatch):
    monkeypatch.chdir(project)
    assert find_stack("Extract/job002/m1.mrcs", Path("elsewhere.star")).is_file()


def test_absolute_names_are_found(project):
    name = str(project / "Extract/job002/m1.mrcs")
    assert str(find_stack(name, project / "t.star")) == name


def test_mrc_and_mrcs_are_exchanged(project):
    assert find_stack("Extract/job002/m1.mrc", project / "t.star").name == "m1.mrcs"


def test_datadir_comes_first_and_takes_the_bare_name_too(project):
    other = project / "fast_disk"
    other.mkdir()
    (other / "m1.mrcs").touch()
    assert find_stack("lost/m1.mrcs", project / "t.star", other) == other / "m1.mrcs"
    (other / "Extract" / "job002").mkdir(parents=True)
    (other / "Extract" / "job002" / "m1.mrcs").touch()
    got = find_stack("Extract/job002/m1.mrcs", project / "t.star", other)
    assert got == other / "Extract" / "job002" / "m1.mrcs"


def test_a_stack_beside_the_table_is_found_by_its_bare_name(project):
    (project / "m9.mrcs").touch()
    assert find_stack("/some/other/machine/m9.mrcs", project / "t.star").name == "m9.mrcs"


def test_a_missing_stack_is_named_with_the_places_tried(project):
    with pytest.raises(InputError) as error:
        find_stack("Extract/job009/m1.mrcs", project / "t.star", project / "fast_disk")
    text = str(error.value)
    assert text.startswith(f"{project / 't.star'}: stack Extract/job009/m1.mrcs not found (looked in ")
    for place in (project / "fast_disk" / "Extract" / "job009", project / "Extract" / "job009", project):
        assert str(place) in text
    assert "--datadir" in text
