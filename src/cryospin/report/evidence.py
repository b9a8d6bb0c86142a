"""What a run writes down for its report while the images are at hand, so that the report needs none of them later."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from cryospin.evenly import evenly_spaced
from cryospin.formats.tensors import read_tensors, write_tensors
from cryospin.fourier import CPU, FourierGrid, map_to_grid, unpack
from cryospin.kernels import dispatch as kernels
from cryospin.kernels.types import Observations, Poses
from cryospin.noise import shell_mean
from cryospin.proposals.heads import INPUT_RADIUS, HeadProposals
from cryospin.report.views import views_of

EVIDENCE = Path("report") / "evidence.safetensors"

_THUMBNAIL = 64
_WORST = 24
_TYPICAL = 4
_HEAD_SAMPLE = 2000


@torch.no_grad()
def gather_evidence(
    density: Tensor,
    observations: Observations,
    poses: Poses,
    *,
    shortfall: Tensor,
    shell: float,
    group: Tensor,
    heads: HeadProposals | None = None,
) -> dict[str, Tensor]:
    """Class-like averages, thumbnails of the images that fit worst and of some that fit as usual, and the heads' errors.

    Costs a fraction of a second, whatever the number of images.

    density: the final map `(d, d, d)`
    observations: all images, with their noise weights and contrasts, wherever they are
    poses: the best pose of each image, by image, on the CPU
    shortfall: by how many standard errors each image's contrast falls short of the usual, `(N,)`
    shell: the resolution, cycles per box
    group: the particle's point group, `(order, 3, 3)`
    """
    radius = min(observations.disc.radius, max(4, round(shell)))
    shortfall = shortfall.float().cpu()
    views = views_of(density, observations, poses, radius)
    worst = shortfall.argsort(descending=True)
    middle = len(worst) // 2
    rows = torch.cat([worst[:_WORST], worst[middle : middle + _TYPICAL]])
    image, expected = _thumbnails(density, observations, poses, rows, radius)
    found = {
        "shortfall": shortfall,
        "contrast": observations.scale.float().cpu(),
        "thumbnail_row": rows,
        "thumbnail_image": image.half(),
        "thumbnail_expected": expected.half(),
        "view_rotation": views.rotation,
        "view_projection": _unit(views.projection).half(),
        "view_average": _unit(views.average).half(),
        "view_count": views.count,
        "view_spread_deg": views.spread_deg,
        "view_correlation": views.correlation,
    }
    if heads is not None and heads.trained:
        found |= _head_errors(heads, observations, poses, group.cpu())
    return found


def _thumbnails(
    density: Tensor, observations: Observations, poses: Poses, rows: Tensor, radius: int
) -> tuple[Tensor, Tensor]:
    """Images and what the map predicts for them, both Wiener-filtered, `C S / (C^2 S + N)`: `(n, b, b)` each."""
    o = observations.up_to(min(radius, _THUMBNAIL // 2 - 1))
    some, at = o.take(rows).to(CPU), poses.take(rows)
    disc = some.disc
    grid = FourierGrid(disc.radius)
    model = kernels.slices(map_to_grid(density, grid), grid, at.rotation, disc)
    signal = shell_mean((model.real**2 + model.imag**2).mean(0), disc)[disc.shell]
    gain = some.ctf * signal / (some.ctf**2 * signal + 1 / some.weight[some.group].clamp_min(1e-12))
    model *= disc.shift_phase(at.shift, o.box) * some.ctf
    box = min(_THUMBNAIL, o.box)
    return tuple(_unit(unpack((x * gain).to(torch.complex64), disc, box)) for x in (some.images, model))  # type: ignore[return-value]


def _unit(images: Tensor) -> Tensor:
    """Images of mean 0 and variance 1 each."""
    flat = images.flatten(1)
    variance, mean = torch.var_mean(flat, dim=1)
    return (images - mean[:, None, None]) / variance.sqrt().clamp_min(1e-12)[:, None, None]


def _head_errors(heads: HeadProposals, observations: Observations, poses: Poses, group: Tensor) -> dict[str, Tensor]:
    """Angle between the view each head guesses and the one an image ended at, for some of the images.

    The turn in the plane is left out: it is searched for every view that a head proposes.
    """
    rows = evenly_spaced(len(poses.image), _HEAD_SAMPLE)
    guess = heads.propose(observations.up_to(INPUT_RADIUS).take(rows)).rotation.cpu().unflatten(0, (len(rows), -1))
    right = poses.rotation[rows]
    cosine = torch.einsum("nmi,ngi->nmg", guess[..., 2, :], torch.einsum("ni,gij->ngj", right[:, 2], group.float()))
    return {"head_row": rows, "head_error_deg": torch.rad2deg(cosine.amax(2).clamp(-1, 1).acos())}


def write_evidence(run: Path, evidence: dict[str, Tensor]) -> None:
    """Write the file into a run's folder."""
    path = run / EVIDENCE
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, evidence)


def read_evidence(run: Path) -> dict[str, Tensor]:
    """What `write_evidence` wrote; empty where it wrote nothing."""
    path = run / EVIDENCE
    return read_tensors(path, "Remove it; the report then does without") if path.is_file() else {}
