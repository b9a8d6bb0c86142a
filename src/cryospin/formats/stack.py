"""Image stacks in MRC files: memory-mapped, read in the order they lie on disk."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import torch
from torch import Tensor

from cryospin.errors import InputError
from cryospin.formats.whole import whole


@dataclass(frozen=True)
class ImageLocation:
    """Where the images of a table lie.

    files: the stacks
    stack: int64 `(N,)`, index into `files`
    slice: int64 `(N,)`, position in the stack, counted from 0
    """

    files: list[Path]
    stack: np.ndarray
    slice: np.ndarray


def open_stack(path: Path) -> np.memmap:
    """The images of a stack, memory-mapped `(n, D, D)`; a single image counts as a stack of one.

    Raises `InputError` for anything but square images of real numbers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with mrcfile.mmap(path, mode="r", permissive=True) as handle:
                data = handle.data
    except (OSError, ValueError) as error:
        raise InputError(f"not a readable MRC stack ({error})", where=path) from error
    if data is None or data.ndim not in (2, 3) or np.iscomplexobj(data):
        raise InputError("holds no stack of real images", where=path)
    data = data if data.ndim == 3 else data[None]
    if data.shape[1] != data.shape[2]:
        raise InputError(
            f"images are {data.shape[2]} x {data.shape[1]} pixels, not square",
            where=path,
            remedy="Extract the particles in square boxes",
        )
    return data


def check_locations(where: ImageLocation, table: Path) -> int:
    """The box size all images share; raises `InputError` where stacks disagree or a slice does not exist."""
    box = 0
    for index, path in enumerate(where.files):
        count, size = open_stack(path).shape[:2]
        rows = np.flatnonzero(where.stack == index)
        beyond = rows[(where.slice[rows] >= count) | (where.slice[rows] < 0)]
        if len(beyond):
            row = int(beyond[0])
            raise InputError(
                f"row {row + 1} asks for image {where.slice[row] + 1} of {path.name}, which holds {count}",
                where=table,
                remedy="Check rlnImageName",
            )
        if box and size != box:
            raise InputError(
                f"{path.name} has images of {size} pixels, {where.files[0].name} of {box}",
                where=table,
                remedy="Give particles of one box size",
            )
        box = size
    return box


def read_images(where: ImageLocation, rows: np.ndarray) -> Tensor:
    """Images of the given rows, float32 `(len(rows), D, D)`."""
    out: np.ndarray | None = None
    for index in np.unique(where.stack[rows]):
        stack = open_stack(where.files[index])
        here = np.flatnonzero(where.stack[rows] == index)
        if out is None:
            out = np.empty((len(rows), *stack.shape[1:]), np.float32)
        out[here] = stack[where.slice[rows[here]]]
    assert out is not None, "no rows asked for"
    return torch.from_numpy(out)


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
