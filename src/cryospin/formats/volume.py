"""Maps in MRC files."""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path

import mrcfile
import numpy as np
import torch
from torch import Tensor

from cryospin.errors import InputError
from cryospin.formats.whole import whole


def read_map(path: str | Path) -> tuple[Tensor, float]:
    """A cubic map and its voxel size.

    returns: float32 `(d, d, d)` as `[z, y, x]`, and the voxel size in Å (0 where the header has none)
    raises: `InputError` for a file that is not a cubic MRC map of finite numbers
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", where=path, remedy="Check the path of the map")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with mrcfile.open(path, permissive=True) as handle:
                data, voxel = handle.data, float(handle.voxel_size.x)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise InputError(f"not a readable MRC file ({error})", where=path, remedy="Copy the file again") from error
    if data is None or data.ndim != 3 or len(set(data.shape)) != 1 or np.iscomplexobj(data):
        shape = "nothing" if data is None else " x ".join(map(str, data.shape))
        raise InputError(f"expected a cubic map, found {shape}", where=path, remedy="Give a map with equal sides")
    density = torch.from_numpy(np.array(data, dtype=np.float32))
    if not torch.isfinite(density).all():
        raise InputError("the map holds NaN or infinite values", where=path, remedy="Write it again, or give another")
    return density, voxel


def write_map(path: str | Path, density: Tensor, voxel_size: float) -> None:
    """Write a map `(d, d, d)` with its voxel size in Å, whole or not at all."""
    with whole(path) as temporary, mrcfile.new(temporary, overwrite=True) as handle:
        handle.set_data(density.detach().cpu().numpy().astype(np.float32))
        handle.voxel_size = voxel_size
