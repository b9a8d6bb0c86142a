"""Rows of numbers in a file, for sets of images that memory does not hold."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from cryospin.errors import InputError

_TOUCHED = 1 << 26
"""Bytes of rows between two releases of the pages they lie in: what is mapped counts as memory that the process takes."""


class DiskRows:
    """A tensor `(N, P)` that lies in a file: rows are copied to memory when they are asked for, and only so far as asked.

    The file has no name, so it is gone with the process however that ends.
    """

    def __init__(self, array: np.ndarray, mapping: mmap.mmap) -> None:
        self._array, self._mapping = array, mapping

    @classmethod
    def create(cls, count: int, width: int, dtype: torch.dtype, folder: Path) -> DiskRows:
        """A file of zeros in a folder; raises `InputError` where the disk has no room for it."""
        numbers = torch.empty(0, dtype=dtype).numpy().dtype
        size = count * width * numbers.itemsize
        with tempfile.TemporaryFile(dir=folder) as file:
            try:
                _reserve(file.fileno(), size, folder)
            except OSError as error:
                raise InputError(
                    f"has no room for {size / 2**30:.1f} GiB of packed images ({error.strerror})",
                    where=folder,
                    remedy="Free some space, give --out on another disk, more --memory, or a smaller --box",
                ) from error
            mapping = mmap.mmap(file.fileno(), size)
        return cls(np.frombuffer(mapping, numbers).reshape(count, width), mapping)

    @property
    def shape(self) -> torch.Size:
        """`(N, P)`."""
        return torch.Size(self._array.shape)

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, which: Tensor | slice | tuple[slice, slice]) -> Tensor:
        """Rows as a tensor in memory, or for a pair of slices the same rows cut short, still on disk."""
        if isinstance(which, tuple):
            return cast(Tensor, DiskRows(self._array[which], self._mapping))
        rows = which.numpy() if isinstance(which, Tensor) else np.arange(*which.indices(len(self)))
        out = np.empty((len(rows), self._array.shape[1]), self._array.dtype)
        for part in self._parts(len(rows)):
            out[part] = self._array[rows[part]]
            self._release()
        return torch.from_numpy(out)

    def __setitem__(self, which: Tensor, values: Tensor) -> None:
        rows, numbers = which.numpy(), values.numpy()
        for part in self._parts(len(rows)):
            self._array[rows[part]] = numbers[part]
            self._release()

    def _parts(self, count: int) -> Iterator[slice]:
        """So many rows in parts, none of which touches much of the file."""
        most = max(1, _TOUCHED // self._array.strides[0])
        return (slice(start, start + most) for start in range(0, count, most))

    def _release(self) -> None:
        """Let go of the pages that were touched; what they hold stays in the file."""
        self._mapping.madvise(mmap.MADV_DONTNEED)


def _reserve(file: int, size: int, folder: Path) -> None:
    """Make an empty file so large; raises `OSError` where the disk has no room for it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    # macOS has no such call: what others write meanwhile can still fill the disk.
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(file, size)


def allocate_rows(
    count: int, width: int, dtype: torch.dtype, folder: Path | None, device: torch.device | None = None
) -> Tensor:
    """A place for `count` rows: a tensor on a device or, where a folder is given, `DiskRows` there that stand in for one."""
    if folder is None:
        return torch.empty(count, width, dtype=dtype, device=device)
    return cast(Tensor, DiskRows.create(count, width, dtype, folder))
