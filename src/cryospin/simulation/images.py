"""Particle images of a density, with their true poses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cryospin.errors import InputError
from cryospin.formats.stack import create_stack
from cryospin.formats.star import ANGLES, ORIGINS, write_star
from cryospin.formats.volume import write_map
from cryospin.formats.whole import whole
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid, pack, unpack
from cryospin.geometry.rotations import random_rotations, to_relion_angles
from cryospin.kernels import cpu as kernels
from cryospin.optics import Optics, contrast_transfer

_CHUNK_PIXELS = 1 << 22
_PADDING = 3
_STACK = "particles.mrcs"


@dataclass(frozen=True)
class ImagingConditions:
    """How the images are taken.

    snr: variance of the signal, CTF applied, over that of the noise, in whole images
    shift_sd: standard deviation of the particle's displacement, pixels
    defocus: least and greatest mean defocus, Å
    astigmatism: greatest difference of the two defoci, Å
    coloured: whether the noise falls off with frequency as carbon and ice make it
    junk: fraction of images that hold noise only
    """

    snr: float = 0.1
    shift_sd: float = 1.5
    defocus: tuple[float, float] = (10000.0, 25000.0)
    astigmatism: float = 500.0
    coloured: bool = False
    junk: float = 0.0
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.1


def simulate(
    density: Tensor,
    pixel_size: float,
    count: int,
    out: Path,
    conditions: ImagingConditions,
    seed: int = 0,
    progress: Callable[[int], None] = lambda n: None,
) -> None:
    """Write `particles.star`, `particles.mrcs`, `truth.star` and `truth.mrc` to a folder.

    density: `(D, D, D)`; pixel_size: Å; progress: called with the number of images done since the last call
    """
    if count < 1:
        raise InputError("no images asked for", remedy="Give --n a positive number")
    out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    rotation = random_rotations(count, generator)
    shift = torch.randn(count, 2, generator=generator) * conditions.shift_sd
    junk = torch.rand(count, generator=generator) < conditions.junk
    optics = _draw_optics(count, conditions, generator)
    _write_images(density, pixel_size, rotation, shift, junk, optics, conditions, out / _STACK, generator, progress)
    write_map(out / "truth.mrc", density, pixel_size)
    _write_tables(out, optics, rotation, shift, pixel_size, density.shape[0])


def _draw_optics(count: int, c: ImagingConditions, generator: torch.Generator) -> Optics:
    """Defocus and astigmatism of each image, evenly distributed within the conditions."""
    u = torch.rand(3, count, generator=generator, dtype=torch.float64)
    defocus_u = c.defocus[0] + u[0] * (c.defocus[1] - c.defocus[0])
    one = torch.ones(count, dtype=torch.float64)
    return Optics(
        defocus_u=defocus_u,
        defocus_v=defocus_u - u[1] * c.astigmatism,
        defocus_angle=u[2] * 180,
        phase_shift=0 * one,
        voltage=c.voltage * one,
        spherical_aberration=c.spherical_aberration * one,
        amplitude_contrast=c.amplitude_contrast * one,
        group=torch.zeros(count, dtype=torch.long),
    )


def _write_images(
    density: Tensor,
    pixel_size: float,
    rotation: Tensor,
    shift: Tensor,
    junk: Tensor,
    optics: Optics,
    conditions: ImagingConditions,
    path: Path,
    generator: torch.Generator,
    progress: Callable[[int], None],
) -> None:
    """Project, apply CTF and shift, add noise, a chunk at a time; the stack's background has unit variance."""
    box, count = density.shape[0], len(rotation)
    disc, grid = HalfDisc.build(box // 2 - 1), FourierGrid(box // 2 - 1, _PADDING)
    volume = map_to_grid(density, grid)
    noise_shape = _noise_shape(disc) if conditions.coloured else None

    def signal(rows: Tensor) -> Tensor:
        packed = kernels.slices(volume, grid, rotation[rows], disc)
        packed *= contrast_transfer(optics.take(rows), disc, box, pixel_size)
        return unpack(packed * disc.shift_phase(shift[rows], box), disc, box)

    probe = torch.arange(count)[~junk][:500]
    strength = float(signal(probe).var(dim=(1, 2)).mean()) if len(probe) else 1.0
    gain = (conditions.snr / strength) ** 0.5
    with whole(path) as temporary, create_stack(temporary, (count, box, box), pixel_size) as stack:
        for rows in torch.arange(count).split(max(1, _CHUNK_PIXELS // box**2)):
            images = gain * signal(rows) * ~junk[rows, None, None]
            noise = torch.randn(images.shape, generator=generator)
            if noise_shape is not None:
                noise = noise + unpack(pack(noise, disc) * (noise_shape - 1), disc, box)
            stack.data[rows[0] : rows[-1] + 1] = (images + noise).numpy()
            progress(len(rows))


def _noise_shape(disc: HalfDisc) -> Tensor:
    """Amplitude of coloured noise relative to white: falls with the root of frequency, mean power 1."""
    shape = (1 + disc.shell / 8.0) ** -0.5
    return shape / shape.square().mean().sqrt()


def _write_tables(out: Path, optics: Optics, rotation: Tensor, shift: Tensor, pixel_size: float, box: int) -> None:
    """The particle table without poses, and the same with the true ones."""
    count = len(rotation)
    group = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnVoltage": [float(optics.voltage[0])],
            "rlnSphericalAberration": [float(optics.spherical_aberration[0])],
            "rlnAmplitudeContrast": [float(optics.amplitude_contrast[0])],
            "rlnImagePixelSize": [pixel_size],
            "rlnImageSize": [box],
            "rlnImageDimensionality": [2],
        }
    )
    rows = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@{_STACK}" for i in range(count)],
            "rlnMicrographName": [f"micrograph{i // 100 + 1:04d}.mrc" for i in range(count)],
            "rlnOpticsGroup": 1,
            "rlnDefocusU": optics.defocus_u.numpy(),
            "rlnDefocusV": optics.defocus_v.numpy(),
            "rlnDefocusAngle": optics.defocus_angle.numpy(),
        }
    )
    angles = to_relion_angles(rotation).numpy()
    origin = -shift.double().numpy() * pixel_size
    poses = {n: angles[:, i] for i, n in enumerate(ANGLES)} | {n: origin[:, i] for i, n in enumerate(ORIGINS)}
    truth = rows.assign(**poses)
    write_star(out / "particles.star", {"optics": group, "particles": rows})
    write_star(out / "truth.star", {"optics": group, "particles": truth})
