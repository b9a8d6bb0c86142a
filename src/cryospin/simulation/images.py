"""Particle images of a density, with their true poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cryospin.errors import require
from cryospin.formats.new_star import VERSION, optics_columns
from cryospin.formats.stack import create_stack
from cryospin.formats.star import ANGLES, ORIGINS
from cryospin.formats.star_text import star_file
from cryospin.formats.volume import write_map
from cryospin.formats.whole import refuse_to_replace, whole
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid, pack, unpack
from cryospin.geometry.rotations import random_rotations, to_relion_angles
from cryospin.kernels import dispatch as kernels
from cryospin.optics import Optics, OpticsGroup, contrast_transfer, odd_aberration
from cryospin.resampling import Resampler

_CHUNK_PIXELS = 1 << 22
_PADDING = 3
_STACK, _TABLES, _TRUTH = "particles.mrcs", ("particles.star", "truth.star"), "truth.mrc"


@dataclass(frozen=True)
class ImagingConditions:
    """How the images are taken.

    snr: variance of the signal, CTF applied, over that of the noise, in whole images
    shift_sd: standard deviation of the particle's displacement, pixels
    defocus: least and greatest mean defocus, Å
    astigmatism: greatest difference of the two defoci, Å
    coloured: whether the noise falls off with frequency as carbon and ice make it
    junk: fraction of images that hold noise only
    phase_shift: of a phase plate, degrees
    beam_tilt: x and y, mrad
    magnification: matrix, row by row: an image frequency `m` stands for `M m` of the particle
    raises: `InputError` for what nothing can be imaged with, in the words of the command line
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
    phase_shift: float = 0.0
    beam_tilt: tuple[float, float] = (0.0, 0.0)
    magnification: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse what nothing can be imaged with."""
        require(self.snr > 0, f"--snr {self.snr:g} is not positive", "Give for instance 0.1")
        require(self.shift_sd >= 0, f"--shift-sd {self.shift_sd:g} is negative", "Give 0 for centred particles")
        require(0 <= self.junk <= 1, f"--junk {self.junk:g} is not a fraction", "Give a number from 0 to 1")
        least, most = self.defocus
        require(
            0 <= least <= most,
            f"--defocus {least:g} {most:g} is not a range of underfocus in Å",
            "Give the least first, for instance 10000 25000",
        )
        require(
            0 <= self.astigmatism <= least,
            f"--astigmatism {self.astigmatism:g} does not lie between 0 and the least defocus, {least:g} Å",
            "Give for instance 500",
        )


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
    raises: `InputError` for no images, and where the folder holds such files already
    """
    require(count > 0, f"--n {count} is no number of images", "Give for instance 3000")
    refuse_to_replace(out, (*_TABLES, _STACK, _TRUTH))
    out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    rotation = random_rotations(count, generator)
    shift = torch.randn(count, 2, generator=generator) * conditions.shift_sd
    junk = torch.rand(count, generator=generator) < conditions.junk
    optics = _draw_optics(count, conditions, generator, pixel_size, density.shape[0])
    _write_images(density, pixel_size, rotation, shift, junk, optics, conditions, out / _STACK, generator, progress)
    write_map(out / _TRUTH, density, pixel_size)
    _write_tables(out, optics, rotation, shift, pixel_size)


def _draw_optics(count: int, c: ImagingConditions, generator: torch.Generator, pixel_size: float, box: int) -> Optics:
    """Defocus and astigmatism of each image, evenly distributed within the conditions."""
    u = torch.rand(3, count, generator=generator, dtype=torch.float64)
    defocus_u = c.defocus[0] + u[0] * (c.defocus[1] - c.defocus[0])
    group = OpticsGroup(
        name="opticsGroup1",
        voltage=c.voltage,
        spherical_aberration=c.spherical_aberration,
        amplitude_contrast=c.amplitude_contrast,
        pixel_size=pixel_size,
        box=box,
        beam_tilt=c.beam_tilt,
        magnification=c.magnification,
    )
    return Optics(
        defocus_u=defocus_u,
        defocus_v=defocus_u - u[1] * c.astigmatism,
        defocus_angle=u[2] * 180,
        phase_shift=torch.full_like(defocus_u, c.phase_shift),
        b_factor=torch.zeros_like(defocus_u),
        scale=torch.ones_like(defocus_u),
        group=torch.zeros(count, dtype=torch.long),
        groups=(group,),
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

    magnify = _magnifier(conditions, disc, box)
    aberration = odd_aberration(optics.groups[0], disc, box * pixel_size)

    def signal(rows: Tensor) -> Tensor:
        packed = kernels.slices(volume, grid, rotation[rows], disc)
        packed *= contrast_transfer(optics.take(rows), disc, box, pixel_size)
        if aberration is not None:
            packed *= aberration
        return magnify(unpack(packed * disc.shift_phase(shift[rows], box), disc, box))

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


def _magnifier(conditions: ImagingConditions, disc: HalfDisc, box: int) -> Callable[[Tensor], Tensor]:
    """What anisotropic magnification does to images."""
    matrix = torch.tensor(conditions.magnification).reshape(2, 2)
    if torch.equal(matrix, torch.eye(2)):
        return lambda images: images
    resample = Resampler(box, torch.stack([disc.kx, disc.ky], dim=1) @ matrix.T)
    return lambda images: unpack(resample(images), disc, box)


def _noise_shape(disc: HalfDisc) -> Tensor:
    """Amplitude of coloured noise relative to white: falls with the root of frequency, mean power 1."""
    shape = (1 + disc.shell / 8.0) ** -0.5
    return shape / shape.square().mean().sqrt()


def _write_tables(out: Path, optics: Optics, rotation: Tensor, shift: Tensor, pixel_size: float) -> None:
    """The particle table without poses, and the same with the true ones."""
    count = len(rotation)
    rows: dict[str, Sequence[object]] = {
        "rlnImageName": [f"{i + 1:06d}@{_STACK}" for i in range(count)],
        "rlnMicrographName": [f"micrograph{i // 100 + 1:04d}.mrc" for i in range(count)],
        "rlnOpticsGroup": [1] * count,
        "rlnDefocusU": _text(optics.defocus_u),
        "rlnDefocusV": _text(optics.defocus_v),
        "rlnDefocusAngle": _text(optics.defocus_angle),
    }
    if optics.phase_shift.any():
        rows["rlnPhaseShift"] = _text(optics.phase_shift)
    angles = to_relion_angles(rotation)
    origin = -optics.shift_in_image(shift.double() * pixel_size)
    poses = {n: _text(angles[:, i]) for i, n in enumerate(ANGLES)} | {n: _text(origin[:, i]) for i, n in enumerate(ORIGINS)}
    for name, columns in zip(_TABLES, (rows, rows | poses), strict=True):
        blocks = {"optics": optics_columns(optics.groups), "particles": columns}
        star_file(out / name, blocks, VERSION).write(out / name)


def _text(values: Tensor) -> list[str]:
    return [f"{v:.6f}" for v in values.tolist()]
