"""What the microscope did to each image: the contrast transfer function, through torch-ctf."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch_ctf
from torch import Tensor

from cryospin.fourier import HalfDisc

_CHUNK_PIXELS = 1 << 22


@dataclass(frozen=True)
class Optics:
    """Imaging conditions of each particle; every field is float64 `(N,)` except `group`.

    defocus_u, defocus_v: Å, positive for underfocus
    defocus_angle: degrees from the x axis to the direction of `defocus_u`
    phase_shift: degrees, of a phase plate
    voltage: kV
    spherical_aberration: mm
    amplitude_contrast: fraction
    group: int64 `(N,)`, optics group counted from 0
    """

    defocus_u: Tensor
    defocus_v: Tensor
    defocus_angle: Tensor
    phase_shift: Tensor
    voltage: Tensor
    spherical_aberration: Tensor
    amplitude_contrast: Tensor
    group: Tensor

    def __len__(self) -> int:
        return len(self.defocus_u)

    def take(self, rows: Tensor) -> Optics:
        """The optics of some particles."""
        return Optics(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def contrast_transfer(optics: Optics, disc: HalfDisc, box: int, pixel_size: float) -> Tensor:
    """CTF of each particle on a half-disc, positive at low frequency for underfocus (RELION's sign).

    disc: frequencies in cycles per box
    box, pixel_size: any pair with the particle's physical box, `box >= 2 radius + 1`; pixel size in Å
    returns: float32 `(N, P)`
    """
    kx, ky = disc.kx.long(), disc.ky.long()
    # The half spectrum has kx >= 0; the CTF is even, so kx < 0 is read at the opposite point.
    row, column = torch.where(kx < 0, -ky, ky) % box, kx.abs()
    out = torch.empty(len(optics), len(disc))
    step = max(1, _CHUNK_PIXELS // (box * (box // 2 + 1)))
    for start in range(0, len(optics), step):
        part = optics.take(torch.arange(start, min(start + step, len(optics))))
        out[start : start + step] = _on_half_spectrum(part, box, pixel_size)[:, row, column]
    return out


def _on_half_spectrum(optics: Optics, box: int, pixel_size: float) -> Tensor:
    """CTF on the whole half spectrum, float32 `(n, box, box // 2 + 1)`."""
    # torch-ctf takes the root of the astigmatism, so the larger defocus has to come first.
    swap = optics.defocus_u < optics.defocus_v
    larger = torch.where(swap, optics.defocus_v, optics.defocus_u)
    smaller = torch.where(swap, optics.defocus_u, optics.defocus_v)
    angle = torch.where(swap, optics.defocus_angle + 90, optics.defocus_angle)
    return torch_ctf.calculate_ctf_2d(
        defocus=(larger + smaller) / 2e4,
        astigmatism=(larger - smaller) / 2e4,
        astigmatism_angle=angle,
        voltage=optics.voltage,
        spherical_aberration=optics.spherical_aberration,
        amplitude_contrast=optics.amplitude_contrast,
        phase_shift=optics.phase_shift,
        pixel_size=pixel_size,
        image_shape=(box, box),
        rfft=True,
        fftshift=False,
    )
