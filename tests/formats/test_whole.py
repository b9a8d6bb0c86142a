"""Files that are whole or not there, and errors that say which file it was."""

from __future__ import annotations

import errno

import pytest

from cryospin.errors import InputError
from cryospin.formats.whole import refuse_to_replace, whole


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    with whole(tmp_path / "map.mrc") as temporary:
        temporary.write_text("all of it")
        assert not (tmp_path / "map.mrc").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["map.mrc"]


def half_written(path, *named):
    with whole(path) as temporary:
        temporary.write_text("half of it")
        raise OSError(errno.ENOSPC, "No space left on device", *named)


@pytest.mark.parametrize(("named", "said"), [((), "map.mrc"), (("other.mrc",), "other.mrc")])
def test_a_full_disk_leaves_nothing_and_is_told_with_the_file(tmp_path, named, said):
    with pytest.raises(OSError, match="No space left on device") as caught:
        half_written(tmp_path / "map.mrc", *named)
    assert str(caught.value.filename).endswith(said)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_things_may_be_written_to(tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "report").mkdir()
    refuse_to_replace(tmp_path, ["map.mrc", "report"])
    refuse_to_replace(tmp_path / "new", ["map.mrc"])


@pytest.mark.parametrize("there", ["map.mrc", "report/page.html"])
def test_what_would_be_written_over_is_named(tmp_path, there):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    with pytest.raises(InputError, match=rf"{there.split('/')[0]}: is there already. Give another --out"):
        refuse_to_replace(tmp_path, ["map.mrc", "report"])


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="out: is a file, not a folder"):
        refuse_to_replace(tmp_path / "out", [])
