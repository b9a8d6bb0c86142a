"""Densities from atoms and from maps, on the box and voxel size asked for."""

from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from cryospin.errors import InputError, require
from cryospin.formats.volume import read_map
from cryospin.fourier import resample_map
from cryospin.settings import check_seed
from cryospin.simulation.phantom import phantom

_ATOMS = (".pdb", ".ent", ".cif", ".mmcif")
_MAPS = (".mrc", ".map", ".ccp4")
_OVERSAMPLING = 2
_SMALLEST_BOX = 16
_SOLID, _MAY_BE_CUT = 0.2, 0.01
"""Density that is particle and no solvent, of the highest; share of such voxels that may lie outside of the box."""


def density_from_source(source: str, box: int, pixel_size: float, seed: int = 0) -> Tensor:
    """The density a source names, float32 `(box, box, box)` with voxels of `pixel_size` Å and unit variance.

    source: `phantom`, an atomic model (PDB, mmCIF) or a map (MRC)
    raises: `InputError` for a source that cannot be read, holds nothing or does not fit, and for a box, a pixel size or a
        seed that cannot be
    """
    check_seed(seed)
    require(
        box >= _SMALLEST_BOX and box % 2 == 0,
        f"--box {box} is too small or odd",
        f"Give an even number, {_SMALLEST_BOX} or more",
    )
    require(pixel_size > 0, f"--pixel-size {pixel_size:g} is not positive", "Give Å per pixel")
    if source == "phantom":
        density = phantom(box, pixel_size, seed)
    elif Path(source).suffix.lower() in _ATOMS:
        density = density_from_atoms(Path(source), box, pixel_size)
    elif Path(source).suffix.lower() in _MAPS:
        density = density_from_map(Path(source), box, pixel_size)
    else:
        raise InputError(f"unknown source {source}", remedy="Give phantom, or a PDB, mmCIF or MRC file")
    if not density.std() > 0:
        raise InputError("the density is empty in the box asked for", where=source)
    return density / density.std()


def density_from_atoms(path: Path, box: int, pixel_size: float) -> Tensor:
    """Atoms weighted by their electrons, blurred to the voxel size and centred by weight."""
    if not path.is_file():
        raise InputError("no such file", where=path)
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"not a readable atomic model ({error})", where=path) from error
    structure.remove_waters()
    sites = [(site.atom.pos.tolist(), site.atom.element.atomic_number * site.atom.occ) for site in _first_model(structure)]
    if not sites:
        raise InputError("holds no atoms", where=path)
    position = np.array([p for p, _ in sites])
    weight = np.array([w for _, w in sites])
    position -= np.average(position, axis=0, weights=weight)
    fine, voxel = box * _OVERSAMPLING, pixel_size / _OVERSAMPLING
    at = np.rint(position[:, ::-1] / voxel).astype(int) + fine // 2
    inside = ((at >= 0) & (at < fine)).all(1)
    if not inside.all():
        raise InputError(
            f"{int((~inside).sum())} atoms do not fit a box of {box} x {pixel_size:g} Å",
            where=path,
            remedy="Give a larger --box or --pixel-size",
        )
    grid = np.zeros((fine,) * 3)
    np.add.at(grid, tuple(at.T), weight)
    blurred = ndimage.gaussian_filter(grid, max(1.0, 0.7 * pixel_size) / voxel)
    return resample_map(torch.from_numpy(blurred).float(), box)


def density_from_map(path: Path, box: int, pixel_size: float) -> Tensor:
    """A map resampled to the voxel size asked for and padded or cut to the box.

    A header without a voxel size is taken to mean `pixel_size`.

    raises: `InputError` where the box would cut off some of the particle
    """
    density, voxel = read_map(path)
    voxel = voxel or pixel_size
    padded = _even_multiple(density.shape[0] + density.shape[0] % 2, voxel / pixel_size)
    density = _fit(density - density[0].median(), padded)
    resampled = max(2, round(padded * voxel / pixel_size / 2) * 2)
    sampled = resample_map(density, resampled)
    solid = sampled > _SOLID * sampled.max()
    cut = float(solid.sum() - _fit(solid, box).sum()) / max(1, int(solid.sum()))
    if cut > _MAY_BE_CUT:
        raise InputError(
            f"{100 * cut:.0f} % of the map's density does not fit a box of {box} x {pixel_size:g} Å",
            where=path,
            remedy="Give a larger --box or --pixel-size",
        )
    return _fit(sampled, box)


def _even_multiple(size: int, ratio: float) -> int:
    """The even size, from `size` to a little more, whose product with `ratio` is nearest to an even number."""

    def stretch(n: int) -> float:
        half = n * ratio / 2
        return abs(round(half) / half - 1)

    return min(range(size, size + size // 4 + 16, 2), key=stretch)


def _first_model(structure: gemmi.Structure) -> list[gemmi.CRA]:
    """Atoms of the first model with their places in the hierarchy."""
    return list(structure[0].all())


def _fit(cube: Tensor, box: int) -> Tensor:
    """Pad with zeros or cut a cube about its centre."""
    size = cube.shape[0]
    out = cube.new_zeros((box,) * 3)
    n = min(size, box)
    a, b = size // 2 - n // 2, box // 2 - n // 2
    out[b : b + n, b : b + n, b : b + n] = cube[a : a + n, a : a + n, a : a + n]
    return out
