"""The kernels in plain torch: the definition that the fast ones are tested against.

Slow and hungry for memory on purpose: each function is its formula.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.kernels.types import Fit, GridExpectation, GridScores, NormalEquations, Observations, Poses


def slices(volume: Tensor, grid: FourierGrid, rotations: Tensor, disc: HalfDisc) -> Tensor:
    """Central slices by trilinear interpolation; differentiable in volume and rotations.

    volume: complex `grid.shape`; rotations: `(n, 3, 3)`
    returns: complex `(n, P)`, the volume at `R^T (kx, ky, 0)`
    """
    return sample(volume, grid, _slice_points(rotations, disc))


def sample(volume: Tensor, grid: FourierGrid, points: Tensor) -> Tensor:
    """Trilinear values of a volume at any frequencies `(..., 3)` (x, y, z), cycles per box: complex `(...)`."""
    flat = volume.flatten()
    flipped, corners = _corners(grid, points)
    values = sum((flat[index] * weight for index, weight in corners), torch.zeros(()))
    return torch.where(flipped, values.conj(), values)


def insert(
    numerator: Tensor,
    denominator: Tensor,
    grid: FourierGrid,
    observations: Observations,
    poses: Poses,
    responsibility: Tensor,
) -> None:
    """Add images to a volume's sums at their poses: the adjoint of `slices`, with CTF, shift and weights.

    numerator: complex `grid.shape`, gains `sum p w a C conj(shift phase) X`
    denominator: real `grid.shape`, gains `sum p w a^2 C^2`
    responsibility: `(n,)`, the probability `p` of each hypothesis
    """
    o = observations
    image = poses.image
    transfer = o.ctf[image] * o.scale[image, None]
    weight = o.weight[o.group[image]] * responsibility[:, None]
    values = o.images[image] * o.disc.shift_phase(poses.shift, o.box).conj() * transfer * weight
    insert_values(numerator, denominator, grid, poses.rotation, o.disc, values, transfer**2 * weight)


def insert_values(
    numerator: Tensor,
    denominator: Tensor,
    grid: FourierGrid,
    rotations: Tensor,
    disc: HalfDisc,
    values: Tensor,
    weights: Tensor,
) -> None:
    """Spread slices over a volume's sums with trilinear weights: the adjoint of `slices`.

    values: complex `(n, P)`; weights: real `(n, P)`
    """
    flipped, corners = _corners(grid, _slice_points(rotations, disc))
    values = torch.where(flipped, values.conj(), values)
    for index, share in corners:
        numerator.view(-1).index_add_(0, index.flatten(), (values * share).flatten().to(numerator.dtype))
        denominator.view(-1).index_add_(0, index.flatten(), (weights * share).flatten().to(denominator.dtype))


def fits(volume: Tensor, grid: FourierGrid, observations: Observations, poses: Poses) -> Fit:
    """How each pose hypothesis fits its image."""
    o, image = observations, poses.image
    weight = o.weight[o.group[image]]
    model = slices(volume, grid, poses.rotation, o.disc) * o.disc.shift_phase(poses.shift, o.box) * o.ctf[image]
    return Fit(
        cross=(weight * (o.images[image].conj() * model).real).sum(-1),
        power=(weight * model.abs() ** 2).sum(-1),
    )


def normal_equations(volume: Tensor, grid: FourierGrid, observations: Observations, poses: Poses) -> NormalEquations:
    """Misfit of each pose hypothesis with its derivatives, by forward differentiation of the image model."""
    o = observations
    image = poses.image
    weight = o.weight[o.group[image]]
    transfer = o.ctf[image] * o.scale[image, None]

    def model(tangent: Tensor, rotation: Tensor, shift: Tensor, transfer: Tensor) -> Tensor:
        x, y, z = tangent[0], tangent[1], tangent[2]
        zero = torch.zeros_like(x)
        rows = (zero, -z, y, z, zero, -x, -y, x, zero)
        # First order is all the derivative at zero needs.
        turned = rotation + torch.stack(rows).view(3, 3) @ rotation
        cut = slices(volume, grid, turned[None], o.disc)[0]
        out = cut * o.disc.shift_phase((shift + tangent[3:])[None], o.box)[0] * transfer
        return torch.view_as_real(out)

    zero = torch.zeros(len(image), 5, dtype=poses.rotation.dtype)
    arguments = (zero, poses.rotation, poses.shift, transfer)
    value = torch.view_as_complex(torch.vmap(model)(*arguments))
    jacobian = torch.vmap(torch.func.jacfwd(model))(*arguments)
    jacobian = torch.view_as_complex(jacobian.permute(0, 3, 1, 2).contiguous())
    data = o.images[image]
    return NormalEquations(
        cross=(weight * (data.conj() * value).real).sum(-1) / o.scale[image],
        power=(weight * value.abs() ** 2).sum(-1) / o.scale[image] ** 2,
        gradient=torch.einsum("np,nip->ni", weight * (value - data), jacobian.conj()).real,
        matrix=torch.einsum("np,nip,njp->nij", weight.to(value.dtype), jacobian.conj(), jacobian).real,
    )


def grid_scores(slices: Tensor, observations: Observations, shifts: Tensor, log_prior: Tensor) -> GridScores:
    """Best log-likelihood of each image at each rotation over all shifts.

    Each slice stands for two rotations, its own and that turned by 180 degrees in the plane, whose slice is its conjugate.

    slices: complex `(G, P)`; shifts: `(S, 2)`, pixels; log_prior: `(S,)`, nats
    """
    best, which = _grid_posterior(slices, observations, shifts, log_prior).max(1)
    return GridScores(best, which)


def grid_entropies(
    slices: Tensor, observations: Observations, shifts: Tensor, log_prior: Tensor, sharpness: Tensor
) -> Tensor:
    """Entropy of each image's posterior at several sharpnesses, `(n, len(sharpness))`, nats."""
    scores = _grid_posterior(slices, observations, shifts, log_prior).flatten(1)
    return torch.stack([torch.distributions.Categorical(logits=b * scores).entropy() for b in sharpness], 1)


def grid_expectation(
    slices: Tensor, observations: Observations, shifts: Tensor, log_prior: Tensor, sharpness: float
) -> GridExpectation:
    """Images averaged over their posterior on the grid, the log-posterior multiplied by `sharpness`."""
    o = observations
    scores = _grid_posterior(slices, o, shifts, log_prior)
    posterior = torch.softmax(sharpness * scores.flatten(1), 1).view_as(scores)
    transfer = o.ctf * o.scale[:, None]
    weight = o.weight[o.group]
    moved = (o.images * transfer * weight)[:, None] * o.disc.shift_phase(shifts, o.box).conj()
    own, turned = posterior.to(moved.dtype).chunk(2, 2)
    return GridExpectation(
        numerator=torch.einsum("nsg,nsp->gp", own, moved) + torch.einsum("nsg,nsp->gp", turned, moved.conj()),
        denominator=torch.einsum("nsg,np->gp", (own + turned).real, transfer**2 * weight),
        best=scores.flatten(1).argmax(1),
    )


def _grid_posterior(slices: Tensor, o: Observations, shifts: Tensor, log_prior: Tensor) -> Tensor:
    """Log-likelihood plus prior `(n, S, 2G)`, relative to an image without a particle."""
    slices = torch.cat([slices, slices.conj()])
    model = slices[None, :] * o.disc.shift_phase(shifts, o.box)[:, None]
    transfer = o.ctf * o.scale[:, None]
    weight = o.weight[o.group]
    cross = torch.einsum("np,sgp->nsg", (o.images * transfer * weight).conj(), model).real
    power = torch.einsum("np,gp->ng", transfer**2 * weight, slices.abs() ** 2)
    return 2 * cross - power[:, None] + log_prior[:, None]


def _slice_points(rotations: Tensor, disc: HalfDisc) -> Tensor:
    """Where slices lie in the volume: `R^T (kx, ky, 0)`, `(n, P, 3)`."""
    k = torch.stack([disc.kx, disc.ky]).to(rotations.dtype)
    return torch.einsum("nix,ip->npx", rotations[:, :2], k)


def _corners(grid: FourierGrid, points: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Flat indices and weights of the eight lattice points about each frequency.

    Points with x < 0 are read at their Hermitian mate, and their value conjugated.
    """
    position = points * grid.padding
    flipped = position[..., 0] < 0
    position = torch.where(flipped[..., None], -position, position)
    position = position + position.new_tensor([0.0, grid.half, grid.half])
    base = position.detach().floor()
    fraction = position - base
    base = base.long()
    _, ny, nx = grid.shape
    corners = []
    for dz in (0, 1):
        for dy in (0, 1):
            for dx in (0, 1):
                index = ((base[..., 2] + dz) * ny + base[..., 1] + dy) * nx + base[..., 0] + dx
                part = [f if d else 1 - f for f, d in zip(fraction.unbind(-1), (dx, dy, dz), strict=True)]
                corners.append((index, part[0] * part[1] * part[2]))
    return flipped, corners
