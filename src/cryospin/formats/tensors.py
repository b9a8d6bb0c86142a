"""Tensors in safetensors files."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from cryospin.errors import InputError
from cryospin.formats.whole import whole


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors by name, whole or not at all; raises `OSError` where the disk will not have them."""
    with whole(path) as temporary:
        # Python writes the bytes: the library's own writer has errors of its own kind, and files only their owner may read.
        temporary.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def read_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """Tensors by name; raises `InputError` with a remedy where the file is missing or damaged."""
    if not path.is_file():
        raise InputError("no such file", where=path, remedy=remedy)
    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"cannot be read ({error})", where=path, remedy=remedy) from error
