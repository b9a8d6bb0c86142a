"""Image stacks in MRC files: any number mode and byte order, compressed or not, one open at a time."""

from __future__ import annotations

import bz2
import gzip
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import mrcfile
import numpy as np
import torch
from mrcfile import constants, dtypes, utils
from torch import Tensor

from cryospin.errors import InputError
from cryospin.formats.whole import whole

_HEADER_BYTES = 1024
_LARGEST_PIXEL = 1e15
_COMPRESSED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
_VOLUME_STACKS = range(401, 631)


@dataclass(frozen=True)
class Stack:
    """What the header of a stack says.

    count: images; box: pixels along a side
    voxel: Å, 0 where the header has none
    dtype: of the pixels, with their byte order; offset: bytes before the first pixel
    compressed: with gzip or bzip2
    """

    path: Path
    count: int
    box: int
    voxel: float
    dtype: np.dtype
    offset: int
    compressed: bool = False

    @property
    def image_bytes(self) -> int:
        """Of one image."""
        return self.box * self.box * self.dtype.itemsize

    def images(self) -> np.ndarray:
        """All images `(count, box, box)`: memory-mapped, or in memory if the file is compressed."""
        shape = (self.count, self.box, self.box)
        if not self.compressed:
            return np.memmap(self.path, self.dtype, "r", self.offset, shape)
        try:
            with _opened(self.path) as handle:
                handle.seek(self.offset)
                pixels = handle.read(self.count * self.image_bytes)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"cannot be decompressed ({error})", where=self.path, remedy="Copy the file again") from error
        self._refuse_short(len(pixels))
        return np.frombuffer(pixels, self.dtype).reshape(shape)

    def _refuse_short(self, held: int) -> None:
        if held < self.count * self.image_bytes:
            raise InputError(
                f"cut short: its header promises {self.count} images, it holds {max(0, held) // self.image_bytes}",
                where=self.path,
                remedy="Copy the file again, or extract the particles anew",
            )


@dataclass(frozen=True)
class ImageLocation:
    """Where the images of a table lie.

    stacks: the stacks
    stack: int64 `(N,)`, index into `stacks`
    slice: int64 `(N,)`, position in the stack, counted from 0
    """

    stacks: Sequence[Stack]
    stack: np.ndarray
    slice: np.ndarray

    def take(self, rows: np.ndarray) -> ImageLocation:
        """Some of the images."""
        return ImageLocation(self.stacks, self.stack[rows], self.slice[rows])

    def reading_order(self, rows: np.ndarray) -> np.ndarray:
        """The order in which rows are best read, stack by stack: int64 `(len(rows),)`, an index into `rows`."""
        return np.lexsort((self.slice[rows], self.stack[rows]))

    @property
    def boxes(self) -> np.ndarray:
        """Box of each image, pixels, int64 `(N,)`."""
        return np.array([s.box for s in self.stacks], dtype=np.int64)[self.stack]


def read_header(path: Path) -> Stack:
    """What a stack holds, without reading its pixels; a single image counts as a stack of one.

    Raises `InputError` for anything but square images of real numbers, and for a file shorter than its header says.
    """
    try:
        with _opened(path) as handle:
            raw = handle.read(_HEADER_BYTES)
            compressed = isinstance(handle, gzip.GzipFile | bz2.BZ2File)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot be read ({error})", where=path, remedy="Copy the file again") from error
    if len(raw) < _HEADER_BYTES:
        raise InputError(
            f"holds {len(raw)} bytes, less than an MRC header", where=path, remedy="Copy the file again, or extract anew"
        )
    header = _parse(raw, path)
    nx, ny, nz = (int(header[n]) for n in ("nx", "ny", "nz"))
    if nx != ny:
        raise InputError(
            f"images are {nx} x {ny} pixels, not square", where=path, remedy="Extract the particles in square boxes"
        )
    stack = Stack(
        path,
        count=nz,
        box=nx,
        voxel=_voxel(header),
        dtype=_dtype(header, path),
        offset=_HEADER_BYTES + max(0, int(header["nsymbt"])),
        compressed=compressed,
    )
    if not compressed:
        stack._refuse_short(path.stat().st_size - stack.offset)
    return stack


def read_images(where: ImageLocation, rows: np.ndarray) -> Tensor:
    """Images of the given rows, which have to be of one box: float32 `(len(rows), D, D)`."""
    box = where.stacks[where.stack[rows[0]]].box
    out = np.empty((len(rows), box, box), np.float32)
    order = where.reading_order(rows)
    for here in np.split(order, np.flatnonzero(np.diff(where.stack[rows[order]])) + 1):
        out[here] = where.stacks[where.stack[rows[here[0]]]].images()[where.slice[rows[here]]]
    return torch.from_numpy(out)


def unusable(images: Tensor) -> Tensor:
    """Which images hold NaN, infinite or absurdly large pixels, whose squares would overflow: bool `(n,)`."""
    return ~(images.flatten(1).abs().amax(1) < _LARGEST_PIXEL)


def create_stack(path: Path, shape: tuple[int, int, int], pixel_size: float) -> mrcfile.mrcmemmap.MrcMemmap:
    """A new float32 stack on disk to be filled image by image; close it when done."""
    handle = mrcfile.new_mmap(path, shape, mrc_mode=2, overwrite=True)
    handle.set_image_stack()
    handle.voxel_size = pixel_size
    return handle


def write_stack(path: Path, images: Tensor, pixel_size: float) -> None:
    """Write images `(n, D, D)` as a float32 stack, whole or not at all; `pixel_size` in Å."""
    with whole(path) as temporary, create_stack(temporary, (len(images), *images.shape[1:]), pixel_size) as handle:
        handle.data[:] = images.numpy()


def _opened(path: Path) -> BinaryIO:
    """The file, decompressed on the way if need be."""
    with path.open("rb") as handle:
        start = handle.read(3)
    for magic, opener in _COMPRESSED.items():
        if start.startswith(magic):
            return cast(BinaryIO, opener(path, "rb"))
    return path.open("rb")


def _parse(raw: bytes, path: Path) -> np.ndarray:
    """The header in the byte order that makes sense of it, whatever its machine stamp says."""
    native = np.frombuffer(raw, dtypes.HEADER_DTYPE)[0]
    order = ""
    if bytes(native["map"]) == constants.MAP_ID:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                order = utils.byte_order_from_machine_stamp(native["machst"])
        except ValueError:
            order = ""
    for candidate in (order, "<", ">"):
        header = np.frombuffer(raw, dtypes.HEADER_DTYPE.newbyteorder(candidate or "="))[0]
        if candidate and _makes_sense(header):
            return header
    raise InputError(
        "not an MRC stack: its header makes no sense in either byte order",
        where=path,
        remedy="Give .mrcs or .mrc files; other formats have to be converted",
    )


def _makes_sense(header: np.ndarray) -> bool:
    sides = [int(header[n]) for n in ("nx", "ny", "nz")]
    return all(0 < s < 1 << 24 for s in sides) and 0 <= int(header["mode"]) <= 101 and int(header["nsymbt"]) >= 0


def _dtype(header: np.ndarray, path: Path) -> np.dtype:
    """Of the pixels."""
    mode = int(header["mode"])
    if int(header["ispg"]) in _VOLUME_STACKS:
        raise InputError("holds volumes, not images", where=path, remedy="Give a stack of particle images")
    try:
        dtype = utils.dtype_from_mode(mode)
    except ValueError as error:
        raise InputError(
            f"pixels are of MRC mode {mode}, which is not supported",
            where=path,
            remedy="Convert the stack to mode 2 (float32) or 12 (float16)",
        ) from error
    if dtype.kind == "c":
        raise InputError("holds complex numbers, not images", where=path, remedy="Give a stack of particle images")
    return dtype.newbyteorder(header.dtype["mode"].byteorder)


def _voxel(header: np.ndarray) -> float:
    """Å along x, 0 where the header makes no sense of it."""
    side, count = float(header["cella"]["x"]), int(header["mx"])
    return side / count if count > 0 and 0 < side < 1e9 else 0.0
