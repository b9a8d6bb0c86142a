"""Centred transforms, the packed half-disc of an image and the half-grid of a volume.

Frequencies are in cycles per box throughout, so they do not change when a box is Fourier-cropped.
The centre of a box of size ``D`` is index ``D // 2`` in real and in Fourier space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class HalfDisc:
    """The independent Fourier coefficients of a real image up to a frequency limit.

    Hermitian symmetry leaves ``ky > 0 or (ky = 0 and kx >= 0)``. The coefficients are sorted by shell
    (``round(|k|)``) and by angle within a shell, so a lower frequency limit is a prefix.

    radius: last shell, cycles per box
    kx, ky: float32 `(P,)`, cycles per box
    shell: int64 `(P,)`
    """

    radius: int
    kx: Tensor
    ky: Tensor
    shell: Tensor

    @classmethod
    def build(cls, radius: int, device: torch.device = CPU) -> HalfDisc:
        """The half-disc with shells 0 to `radius`; raises `ValueError` for a radius below 1."""
        if radius < 1:
            raise ValueError(f"a half-disc needs a radius of at least 1 cycle per box, not {radius}")
        return _build_half_disc(radius, device)

    def __len__(self) -> int:
        return len(self.shell)

    def count(self, radius: int) -> int:
        """Number of coefficients with shell <= `radius`; they are the first ones."""
        return len(self.prefix(radius)) if radius >= 1 else int((self.shell <= radius).sum())

    def prefix(self, radius: int) -> HalfDisc:
        """The half-disc with a lower frequency limit."""
        return self if radius >= self.radius else HalfDisc.build(radius, self.shell.device)

    def shift_phase(self, shift: Tensor, box: int) -> Tensor:
        """What moving a particle does to its transform: `exp(-2 pi i k.t / D)`.

        shift: displacements `(n, 2)` (x, y) in pixels of a box of `box`; returns: complex `(n, P)`
        """
        angle = shift @ torch.stack([self.kx, self.ky]).to(shift.dtype) * (-2 * math.pi / box)
        return torch.complex(angle.cos(), angle.sin())

    def shell_counts(self) -> Tensor:
        """Number of coefficients in each shell, float32 `(radius + 1,)`."""
        return torch.bincount(self.shell, minlength=self.radius + 1).float()


@lru_cache(maxsize=256)
def _build_half_disc(radius: int, device: torch.device) -> HalfDisc:
    k = torch.arange(-radius, radius + 1)
    ky, kx = torch.meshgrid(k, k, indexing="ij")
    shell = torch.hypot(kx.double(), ky.double()).round().long()
    keep = (shell <= radius) & ((ky > 0) | ((ky == 0) & (kx >= 0)))
    kx, ky, shell = kx[keep], ky[keep], shell[keep]
    angle = torch.atan2(ky.double(), kx.double())
    order = torch.argsort(shell.double() * 8 + angle)
    return HalfDisc(radius, kx[order].float().to(device), ky[order].float().to(device), shell[order].to(device))


def pack(images: Tensor, disc: HalfDisc) -> Tensor:
    """Fourier coefficients of real images on a half-disc, orthonormal and about the box centre.

    White noise of variance 1 a pixel gives coefficients of variance 1, whatever the box.

    images: real `(..., D, D)` with `D >= 2 * disc.radius`
    returns: complex64 `(..., P)`
    """
    box = images.shape[-1]
    if box < 2 * disc.radius:
        raise ValueError(f"a box of {box} pixels holds no frequency of {disc.radius} cycles per box")
    # The last axis named is the halved one: ky >= 0, as the half-disc has it.
    spectrum = torch.fft.rfftn(images.float(), dim=(-1, -2), norm="ortho")
    kx, ky = disc.kx.long(), disc.ky.long()
    picked = spectrum[..., ky, kx % box]
    return picked * _centre_phase(kx + ky, box)


def unpack(packed: Tensor, disc: HalfDisc, box: int) -> Tensor:
    """Real images from their half-disc: the inverse of `pack` for band-limited images.

    packed: complex `(..., P)`; returns: float32 `(..., box, box)`
    """
    if box < 2 * disc.radius + 1:
        raise ValueError(f"a box of {box} pixels cannot show {disc.radius} cycles per box")
    kx, ky = disc.kx.long(), disc.ky.long()
    values = packed * _centre_phase(kx + ky, box).conj()
    spectrum = packed.new_zeros((*packed.shape[:-1], box // 2 + 1, box))
    spectrum[..., ky, kx % box] = values
    axis = ky == 0
    spectrum[..., 0, (-kx[axis]) % box] = values[..., axis].conj()
    return torch.fft.irfftn(spectrum, s=(box, box), dim=(-1, -2), norm="ortho")


def _centre_phase(k: Tensor, box: int) -> Tensor:
    """Phase that moves the origin of a transform from pixel 0 to the box centre."""
    return torch.polar(torch.ones(len(k), device=k.device), 2 * math.pi * ((k * (box // 2)) % box) / box)


@dataclass(frozen=True)
class FourierGrid:
    """Geometry of the half of a 3D Fourier lattice that a volume is kept on.

    Stored `[z, y, x]` with `x >= 0` only; index `half` of z and y, and index 0 of x, is frequency 0.
    The lattice is finer than one cycle per box by `padding`, which keeps linear interpolation accurate.

    radius: last shell that can be read, cycles per box
    padding: lattice points per cycle per box
    """

    radius: int
    padding: int = 2

    @property
    def half(self) -> int:
        """Largest |z| or |y| on the lattice: the shell's outer edge and one corner beyond it."""
        return math.ceil(self.padding * (self.radius + 0.5)) + 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the half-grid."""
        return 2 * self.half + 1, 2 * self.half + 1, self.half + 2

    @property
    def box(self) -> int:
        """Smallest real-space box, in voxels, that carries all frequencies of the grid."""
        return 2 * (self.radius + 1)

    def points(self, device: torch.device = CPU) -> Tensor:
        """Frequencies (x, y, z) of the lattice points in cycles per box, float32 `(*shape, 3)`."""
        a = torch.arange(-self.half, self.half + 1, device=device) / self.padding
        x = torch.arange(self.half + 2, device=device) / self.padding
        z, y, x = torch.meshgrid(a, a, x, indexing="ij")
        return torch.stack([x, y, z], dim=-1)

    def shell_of_points(self, device: torch.device = CPU) -> Tensor:
        """Distance of each lattice point from the origin in cycles per box, float32, shape `shape`."""
        return self.points(device).norm(dim=-1)

    def nearest_shell(self, device: torch.device = CPU) -> Tensor:
        """Shell that each lattice point belongs to, int32, shape `shape`; all beyond `radius` are `radius + 1`."""
        return _nearest_shell(self, device)


@lru_cache(maxsize=2)
def _nearest_shell(grid: FourierGrid, device: torch.device) -> Tensor:
    return grid.shell_of_points(device).round().int().clamp_(max=grid.radius + 1)


def map_to_grid(density: Tensor, grid: FourierGrid) -> Tensor:
    """The lattice values whose linear interpolation gives the transform of a map.

    The map is divided by the squared sinc that linear interpolation multiplies it with, and padded.

    density: real `(d, d, d)` with the physical extent of the particle box; any `d`
    returns: complex64 of `grid.shape`; a central slice of it is the orthonormal transform of a projection
    """
    box = density.shape[-1]
    across, along = _waves(box, grid, density.device)
    flat = density.float() / interpolation_envelope(box, grid.padding, density.device) / box
    # Axis by axis, and only at the frequencies of the grid: three products of matrices cost less than a padded FFT.
    x = torch.complex(flat @ across.real, flat @ across.imag)
    y = along.T @ x
    return (along.T @ y.flatten(1)).unflatten(1, y.shape[1:])


def grid_to_map(values: Tensor, grid: FourierGrid, box: int | None = None) -> Tensor:
    """The map of lattice values that were averaged with linear interpolation weights.

    values: complex `grid.shape`, zero where nothing is known
    returns: float32 `(box, box, box)`; `box` defaults to the smallest that carries the grid
    """
    box = grid.box if box is None else box
    across, along = _waves(box, grid, values.device)
    z = (along.conj() @ values.flatten(1)).unflatten(1, values.shape[1:])
    y = along.conj() @ z
    # Half of the lattice is stored; what is not is the conjugate, so that all but the plane x = 0 counts twice.
    twice = torch.full((grid.shape[2], 1), 2.0, device=values.device)
    twice[0] = 1.0
    back = across.T * twice
    out = y.real @ back.real + y.imag @ back.imag
    return out * (box / (box * grid.padding) ** 3) / interpolation_envelope(box, grid.padding, values.device)


@lru_cache(maxsize=16)
def _waves(box: int, grid: FourierGrid, device: torch.device) -> tuple[Tensor, Tensor]:
    """Fourier transform about the box centre, as matrices of voxels by lattice points along one axis.

    returns: complex64 `(box, half + 2)` for x, and `(box, 2 half + 1)` for y and z
    """
    place = (torch.arange(box) - box // 2).double() / (box * grid.padding)
    k = torch.arange(-grid.half, grid.half + 2).double()
    waves = torch.polar(torch.ones(box, len(k), dtype=torch.float64), -2 * math.pi * place[:, None] * k)
    # The lattice may reach beyond what the padded box can tell from lower frequencies; nothing is there.
    waves = (waves * (k.abs() <= (box * grid.padding - 1) // 2)).to(torch.complex64).to(device)
    return waves[:, grid.half :].contiguous(), waves[:, :-1].contiguous()


def _between(spectrum: Tensor, wide: int, grid: FourierGrid, values: Tensor, *, to_grid: bool) -> Tensor:
    """Copy the frequencies that a wrapped half spectrum and a centred half-grid have in common."""
    reach = min(grid.half, (wide - 1) // 2)
    across = min(grid.half + 1, (wide - 1) // 2)
    k = torch.arange(-reach, reach + 1, device=values.device)
    at, row = k + grid.half, k % wide
    column = torch.arange(across + 1, device=values.device)
    inside = (at[:, None, None], at[None, :, None], column)
    wrapped = (row[:, None, None], row[None, :, None], column)
    if to_grid:
        values[inside] = spectrum[wrapped]
        return values
    spectrum[wrapped] = values[inside]
    return spectrum


@lru_cache(maxsize=64)
def interpolation_envelope(box: int, padding: int, device: torch.device = CPU) -> Tensor:
    """Squared sinc along each axis: what linear interpolation in Fourier space does to a map.

    returns: float32 `(box, box, box)`, 1 at the centre
    """
    x = (torch.arange(box, device=device) - box // 2) / (box * padding)
    s = torch.sinc(x) ** 2
    return s[:, None, None] * s[None, :, None] * s


def resample_map(density: Tensor, box: int) -> Tensor:
    """A map of the same physical extent on a coarser or finer grid, by cropping or padding its transform."""
    if box == density.shape[-1]:
        return density
    grid = FourierGrid(min(box, density.shape[-1]) // 2 - 1, padding=1)
    spectrum = torch.fft.rfftn(torch.fft.ifftshift(density.float(), dim=(-3, -2, -1)))
    values = _between(spectrum, density.shape[-1], grid, spectrum.new_zeros(grid.shape), to_grid=True)
    values = values * (grid.shell_of_points(density.device) <= grid.radius + 1)
    out = _between(values.new_zeros((box, box, box // 2 + 1)), box, grid, values, to_grid=False)
    scale = (box / density.shape[-1]) ** 3
    return torch.fft.fftshift(torch.fft.irfftn(out, s=(box,) * 3), dim=(-3, -2, -1)) * scale


def same_transform(density: Tensor, box: int) -> Tensor:
    """A map on a coarser or finer grid from which slices are as strong as from the map itself.

    With the same values the lattice of a map of more voxels is stronger, by the square of the ratio of the boxes.
    """
    return resample_map(density, box) * (density.shape[-1] / box) ** 2


def low_pass(density: Tensor, radius: int) -> Tensor:
    """A map `(d, d, d)` without frequencies beyond shell `radius`."""
    box = density.shape[-1]
    k = torch.fft.fftfreq(box, device=density.device) * box
    distance = (k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[: box // 2 + 1] ** 2).sqrt()
    spectrum = torch.fft.rfftn(density) * (distance < radius + 0.5)
    return torch.fft.irfftn(spectrum, s=density.shape)
