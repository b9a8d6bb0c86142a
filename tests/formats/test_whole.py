"""Files that are whole or not there, and errors that say which file it was."""

from __future__ import annotations

import errno

import pytest

from cryospin.formats.whole import whole


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
