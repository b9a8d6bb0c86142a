"""What the microscope did to each image: contrast transfer, aberrations and magnification.

The contrast transfer function comes from torch-ctf. RELION's further terms are added here: even Zernike terms to its
phase, B-factor and scale to its size. Odd terms (beam tilt, trefoil) are a phase error of the image and are undone on
load, as is anisotropic magnification; what is left is real.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch_ctf
from torch import Tensor

from cryospin.fourier import HalfDisc

_CHUNK_PIXELS = 1 << 22

_Term = Callable[[int], tuple[int, int]]


@dataclass(frozen=True)
class OpticsGroup:
    """Imaging conditions that images taken together share.

    name: as the table has it
    voltage: kV
    spherical_aberration: mm
    amplitude_contrast: fraction
    pixel_size: Å
    box: pixels along a side of the images, 0 where the table does not say
    beam_tilt: x and y, mrad
    odd_zernike, even_zernike: RELION's coefficients, radians at frequencies in 1/Å, in its order
    magnification: RELION's matrix, row by row: a frequency `m` of the image is `M m` of the particle
    """

    name: str
    voltage: float
    spherical_aberration: float
    amplitude_contrast: float
    pixel_size: float
    box: int = 0
    beam_tilt: tuple[float, float] = (0.0, 0.0)
    odd_zernike: tuple[float, ...] = ()
    even_zernike: tuple[float, ...] = ()
    magnification: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0)

    @property
    def distortion(self) -> Tensor:
        """The magnification matrix, float64 `(2, 2)`."""
        return torch.tensor(self.magnification, dtype=torch.float64).reshape(2, 2)

    @property
    def wavelength(self) -> float:
        """Of the electrons, Å."""
        return float(torch_ctf.calculate_relativistic_electron_wavelength(self.voltage * 1e3)) * 1e10


@dataclass(frozen=True)
class Optics:
    """Imaging conditions of each particle; every field is float64 `(N,)` except `group` and `groups`.

    defocus_u, defocus_v: Å, positive for underfocus
    defocus_angle: degrees from the x axis to the direction of `defocus_u`
    phase_shift: degrees, of a phase plate
    b_factor: Å², by which the contrast falls off as `exp(-B k² / 4)`
    scale: of the contrast
    group: int64 `(N,)`, row in `groups`
    groups: conditions that particles share
    """

    defocus_u: Tensor
    defocus_v: Tensor
    defocus_angle: Tensor
    phase_shift: Tensor
    b_factor: Tensor
    scale: Tensor
    group: Tensor
    groups: tuple[OpticsGroup, ...]

    def __len__(self) -> int:
        return len(self.defocus_u)

    def take(self, rows: Tensor) -> Optics:
        """The optics of some particles."""
        per_particle = (f.name for f in fields(self) if f.name != "groups")
        return replace(self, **{name: getattr(self, name)[rows] for name in per_particle})

    def of_group(self, name: str) -> Tensor:
        """A number of each particle's group, float64 `(N,)`."""
        return torch.tensor([getattr(g, name) for g in self.groups], dtype=torch.float64)[self.group]

    @property
    def distortion(self) -> Tensor:
        """Magnification matrix of each particle, float64 `(N, 2, 2)`."""
        return torch.stack([g.distortion for g in self.groups])[self.group]

    def shift_of_particle(self, shift: Tensor) -> Tensor:
        """Displacements `(N, 2)` in the image as displacements of the particle, its magnification undone.

        An image frequency `m` stands for `k = M m`, so `m.t = k.(M^-T t)`.
        """
        return (torch.linalg.inv(self.distortion).mT @ shift.double()[..., None])[..., 0]

    def shift_in_image(self, shift: Tensor) -> Tensor:
        """The inverse of `shift_of_particle`."""
        return (self.distortion.mT @ shift.double()[..., None])[..., 0]


def contrast_transfer(optics: Optics, disc: HalfDisc, box: int, pixel_size: float) -> Tensor:
    """CTF of each particle on a half-disc, positive at low frequency for underfocus (RELION's sign).

    disc: frequencies of the particle (its magnification undone) in cycles per box
    box, pixel_size: any pair with the particle's physical box, `box >= 2 radius + 1`; pixel size in Å
    returns: float32 `(N, P)`
    """
    kx, ky = disc.kx.long(), disc.ky.long()
    # The half spectrum has kx >= 0; the CTF is even, so kx < 0 is read at the opposite point.
    row, column = torch.where(kx < 0, -ky, ky) % box, kx.abs()
    offsets = [_phase(g.even_zernike, _even_term, disc, box * pixel_size) for g in optics.groups]
    aberrated = any(offset is not None for offset in offsets)
    square = (disc.kx.double() ** 2 + disc.ky.double() ** 2) / (box * pixel_size) ** 2
    out = torch.empty(len(optics), len(disc))
    step = max(1, _CHUNK_PIXELS // (box * (box // 2 + 1)))
    for start in range(0, len(optics), step):
        part = optics.take(torch.arange(start, min(start + step, len(optics))))
        ctf = _on_half_spectrum(part, box, pixel_size, wave=aberrated)[:, row, column]
        if aberrated:
            for number in part.group.unique().tolist():
                if (offset := offsets[number]) is not None:
                    ctf[part.group == number] *= torch.exp(-1j * offset).to(ctf.dtype)
            ctf = ctf.imag
        if part.b_factor.any():
            ctf = ctf * torch.exp(-part.b_factor[:, None] / 4 * square)
        out[start : start + step] = ctf * part.scale[:, None]
    return out


def odd_aberration(group: OpticsGroup, disc: HalfDisc, size_angstrom: float) -> Tensor | None:
    """The factor by which beam tilt and odd Zernike terms turn the phases of an image: complex64 `(P,)`.

    RELION's convention: the coefficients' phase is added to the image's, and beam tilt adds
    `-2 pi Cs lambda^2 k^2 (k.tilt)` to it.

    size_angstrom: physical side of the box that the disc's frequencies refer to
    returns: None where there is nothing to undo
    """
    phase = _phase(group.odd_zernike, _odd_term, disc, size_angstrom)
    if any(group.beam_tilt):
        kx, ky = (k.double() / size_angstrom for k in (disc.kx, disc.ky))
        along = (kx * group.beam_tilt[0] + ky * group.beam_tilt[1]) * 1e-3
        coma = -2 * math.pi * group.spherical_aberration * 1e7 * group.wavelength**2 * (kx**2 + ky**2) * along
        phase = coma if phase is None else phase + coma
    return None if phase is None else torch.polar(torch.ones_like(phase), phase).to(torch.complex64)


def _phase(coefficients: tuple[float, ...], term: _Term, disc: HalfDisc, size_angstrom: float) -> Tensor | None:
    """Sum of Zernike terms on a half-disc, radians, float64 `(P,)`; None for no terms."""
    if not any(coefficients):
        return None
    kx, ky = disc.kx.double() / size_angstrom, disc.ky.double() / size_angstrom
    radius, angle = torch.hypot(kx, ky), torch.atan2(ky, kx)
    return sum((c * zernike(*term(i), radius, angle) for i, c in enumerate(coefficients) if c), torch.zeros_like(kx))


def zernike(m: int, n: int, radius: Tensor, angle: Tensor) -> Tensor:
    """Zernike polynomial `Z_n^m`, not normalised: the radial part times `cos(m angle)`, or `sin(-m angle)` for m < 0."""
    a = abs(m)
    terms = (
        (-1) ** k * math.comb(n - k, k) * math.comb(n - 2 * k, (n - a) // 2 - k) * radius ** (n - 2 * k)
        for k in range((n - a) // 2 + 1)
    )
    return sum(terms, torch.zeros_like(radius)) * ((m * angle).cos() if m >= 0 else (a * angle).sin())


def _odd_term(i: int) -> tuple[int, int]:
    """(m, n) of RELION's odd coefficient `i`: n = 1, 1, 3, 3, 3, 3, 5, ..."""
    k = int((math.sqrt(1 + 4 * i) - 1) / 2)
    n = 2 * k + 1
    return 2 * (i - k * (k + 1)) - n, n


def _even_term(i: int) -> tuple[int, int]:
    """(m, n) of RELION's even coefficient `i`: n = 0, 2, 2, 2, 4, ..."""
    k = math.isqrt(i)
    return 2 * (i - k * k) - 2 * k, 2 * k


def _on_half_spectrum(optics: Optics, box: int, pixel_size: float, *, wave: bool) -> Tensor:
    """CTF on the whole half spectrum `(n, box, box // 2 + 1)`; or `exp(-i phase)`, whose imaginary part it is."""
    # torch-ctf takes the root of the astigmatism, so the larger defocus has to come first.
    swap = optics.defocus_u < optics.defocus_v
    larger = torch.where(swap, optics.defocus_v, optics.defocus_u)
    smaller = torch.where(swap, optics.defocus_u, optics.defocus_v)
    angle = torch.where(swap, optics.defocus_angle + 90, optics.defocus_angle)
    return torch_ctf.calculate_ctf_2d(
        defocus=(larger + smaller) / 2e4,
        astigmatism=(larger - smaller) / 2e4,
        astigmatism_angle=angle,
        voltage=optics.of_group("voltage"),
        spherical_aberration=optics.of_group("spherical_aberration"),
        amplitude_contrast=optics.of_group("amplitude_contrast"),
        phase_shift=optics.phase_shift,
        pixel_size=pixel_size,
        image_shape=(box, box),
        rfft=True,
        fftshift=False,
        return_complex_ctf=wave,
    )
