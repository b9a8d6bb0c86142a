"""Rotation matrices in cryospin's convention, with RoMa doing the arithmetic.

`R` maps the particle frame to the lab frame; a slice is read at `R^T (kx, ky, 0)`. RELION's angles are
the intrinsic ZYZ decomposition of `R^T`: `R^T = Rz(rot) Ry(tilt) Rz(psi)`.
"""

from __future__ import annotations

import roma
import torch
from torch import Tensor


def random_rotations(count: int, generator: torch.Generator) -> Tensor:
    """Uniformly distributed rotations, float32 `(count, 3, 3)`."""
    quaternion = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return roma.unitquat_to_rotmat(roma.quat_normalize(quaternion)).float()


def from_relion_angles(angles: Tensor) -> Tensor:
    """Rotations from (rot, tilt, psi) in degrees: `(..., 3)` to float64 `(..., 3, 3)`."""
    return roma.euler_to_rotmat("ZYZ", angles.double(), degrees=True).mT


def to_relion_angles(rotations: Tensor) -> Tensor:
    """(rot, tilt, psi) in degrees of rotations: `(..., 3, 3)` to float64 `(..., 3)`, tilt in 0 to 180."""
    m = rotations.double().mT
    sine = torch.hypot(m[..., 0, 2], m[..., 1, 2])
    tilt = torch.atan2(sine, m[..., 2, 2])
    # At a pole only rot + psi (or psi - rot) is defined; all of it goes to psi.
    pole = sine < 1e-9
    rot = torch.where(pole, 0.0, torch.atan2(m[..., 1, 2], m[..., 0, 2]))
    psi = torch.where(
        pole,
        torch.atan2(m[..., 1, 0], m[..., 1, 1]),
        torch.atan2(m[..., 2, 1], -m[..., 2, 0]),
    )
    return torch.rad2deg(torch.stack([rot, tilt, psi], dim=-1))


def from_six_numbers(x: Tensor) -> Tensor:
    """Rotations from two vectors by Gram-Schmidt: `(..., 6)` to `(..., 3, 3)` (Zhou et al., CVPR 2019)."""
    return roma.special_gramschmidt(x.unflatten(-1, (3, 2)))


def exponential(tangent: Tensor) -> Tensor:
    """Rotation matrices of rotation vectors in radians: `(..., 3)` to `(..., 3, 3)`."""
    return roma.rotvec_to_rotmat(tangent)


def turn(rotations: Tensor, tangent: Tensor) -> Tensor:
    """Rotations followed by small lab-frame turns, kept orthonormal.

    rotations: `(..., 3, 3)`; tangent: rotation vectors `(..., 3)`, radians
    """
    return roma.special_gramschmidt((exponential(tangent.double()) @ rotations.double())[..., :, :3]).to(rotations.dtype)


def distance_deg(a: Tensor, b: Tensor) -> Tensor:
    """Geodesic distance in degrees between rotations `(..., 3, 3)`."""
    return torch.rad2deg(roma.rotmat_geodesic_distance(a.double(), b.double()))


def chordal_distance_squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared Frobenius distance between rotations `(..., 3, 3)`; smooth everywhere, at most 8."""
    return ((a - b) ** 2).sum(dim=(-2, -1))


def mean_rotation(rotations: Tensor, weights: Tensor) -> Tensor:
    """Chordal mean of rotations `(n, 3, 3)` under weights `(n,)`."""
    total = (rotations.double() * weights.double()[:, None, None]).sum(0)
    return roma.special_procrustes(total)


def flip_hand(rotations: Tensor) -> Tensor:
    """Poses of the same images for the map mirrored along z.

    With `M = diag(1, 1, -1)` the mirrored map is `V(M k)`, and `V(M (M R^T M) k) = V(R^T k)` for every k in the
    image plane, which `M` leaves alone.
    """
    mirror = rotations.new_tensor([1.0, 1.0, -1.0])
    return rotations * mirror[:, None] * mirror


def in_plane(angles: Tensor) -> Tensor:
    """Rotations about the beam by angles in radians: `(...)` to `(..., 3, 3)`."""
    zero = torch.zeros_like(angles)
    return exponential(torch.stack([zero, zero, angles], dim=-1))


def with_half_turns(rotations: Tensor) -> Tensor:
    """Rotations, and after them the same turned by 180 degrees in the plane: `(n, 3, 3)` to `(2n, 3, 3)`.

    The slice at the second is the conjugate of that at the first: `(kx, ky)` becomes `(-kx, -ky)`.
    """
    return torch.cat([rotations, half_turned(rotations)])


def half_turned(rotations: Tensor) -> Tensor:
    """Rotations `(..., 3, 3)` turned by 180 degrees in the plane: poses of images, given those of their turned copies."""
    return rotations * rotations.new_tensor([-1.0, -1.0, 1.0])[:, None]


def from_rotation_vectors(vectors: Tensor) -> Tensor:
    """Rotation matrices of rotation vectors of any length in radians: `(..., 3)` to float64 `(..., 3, 3)`."""
    return roma.rotvec_to_rotmat(vectors.double())


def to_rotation_vectors(rotations: Tensor) -> Tensor:
    """Rotation vectors in radians, at most pi long: `(..., 3, 3)` to float64 `(..., 3)`."""
    return roma.rotmat_to_rotvec(rotations.double())
