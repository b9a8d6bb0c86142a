"""Rows on disk behave as the rows of a tensor do, and leave nothing behind."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from cryospin.disk_rows import DiskRows, allocate_rows
from cryospin.errors import InputError


@pytest.fixture(params=[torch.float32, torch.complex64])
def pair(request, tmp_path):
    """The same numbers in memory and on disk."""
    values = torch.randn(20, 7, dtype=request.param, generator=torch.Generator().manual_seed(0))
    rows = DiskRows.create(20, 7, request.param, tmp_path)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    for some in order.split(6):
        rows[some] = values[some]
    return values, rows


@pytest.mark.parametrize("which", [torch.tensor([3, 3, 0, 19]), slice(4, 9), torch.empty(0, dtype=torch.long)])
def test_rows_are_those_that_were_written(pair, which):
    values, rows = pair
    assert torch.equal(rows[which], values[which])


def test_rows_cut_short_stay_on_disk(pair):
    values, rows = pair
    short = rows[:, :4]
    assert isinstance(short, DiskRows)
    assert short.shape == (20, 4)
    assert torch.equal(short[torch.tensor([5, 2])], values[[5, 2], :4])


def test_what_is_taken_is_a_copy(pair):
    values, rows = pair
    rows[slice(0, 5)].zero_()
    rows[torch.arange(5)].zero_()
    assert torch.equal(rows[torch.arange(20)], values)


def test_the_file_has_no_name(pair, tmp_path):
    assert len(pair[1]) == 20
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_rows_are_a_tensor(tmp_path):
    assert isinstance(allocate_rows(3, 2, torch.float32, None), torch.Tensor)
    assert isinstance(allocate_rows(3, 2, torch.float32, tmp_path), DiskRows)


@pytest.mark.parametrize("free", [0, 10**9])
def test_without_a_system_call_for_it_room_is_looked_for(tmp_path, monkeypatch, free):
    monkeypatch.delattr("os.posix_fallocate")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    if free:
        rows = DiskRows.create(3, 2, torch.float32, tmp_path)
        assert rows[torch.tensor([2])].tolist() == [[0, 0]]
    else:
        with pytest.raises(InputError, match=r"no room for 0\.0 GiB.*No space left"):
            DiskRows.create(3, 2, torch.float32, tmp_path)


def test_a_disk_without_room_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(InputError, match=r"no room for 0\.0 GiB.*No space left"):
        DiskRows.create(3, 2, torch.float32, tmp_path)
