"""What a finished run knows: enough to find poses of particles it never saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import Tensor

from cryospin.errors import InputError
from cryospin.formats.tensors import read_tensors
from cryospin.formats.volume import read_map
from cryospin.geometry.symmetry import point_group
from cryospin.proposals.heads import HeadProposals
from cryospin.results import RunFolder
from cryospin.settings import imposed_group

_ANEW = "Give a finished run's folder, or run cryospin reconstruct again"


@dataclass(frozen=True)
class Model:
    """A map, and how images of it look.

    run: the folder it came from
    density: the map `(d, d, d)`, masked and filtered
    pixel_size: Å per voxel
    group: point group imposed, `(order, 3, 3)`
    invert: whether protein was dark in the run's images
    signed: whether some of them were turned over before that was said, since their table said that they differ
    noise: power of each shell of the images, float64 `(d // 2,)`
    contrast: usual contrast of an image relative to the map
    spread: how much the contrasts of the run's images varied, over how much noise alone would make them, 1 at least
    limit: last shell that poses were compared at
    heads: trained to guess poses, or None
    seed: of the run
    """

    run: Path
    density: Tensor
    pixel_size: float
    group: Tensor
    invert: bool
    signed: bool
    noise: Tensor
    contrast: float
    spread: float
    limit: int
    heads: HeadProposals | None
    seed: int

    @classmethod
    def of_run(cls, run: Path) -> Self:
        """The model of a finished run; raises `InputError` where the folder is none, or its files are damaged."""
        folder = RunFolder.open(run)
        if not folder.finished:
            raise InputError("is not finished", where=run, remedy=f"Continue it first: cryospin resume {run}")
        config, measured = folder.config(), _measured(run, folder.checkpoints / "model.safetensors")
        density, pixel_size = read_map(run / "map.mrc")
        if len(measured["noise"]) != len(density) // 2:
            raise InputError("is not the map that the run wrote: its box is another", where=run / "map.mrc", remedy=_ANEW)
        return cls(
            run=run,
            density=density,
            pixel_size=pixel_size,
            group=point_group(imposed_group(config["symmetry"])),
            invert=config["invert"],
            signed=config.get("signed", False),
            noise=measured["noise"],
            contrast=float(measured["contrast"]),
            spread=float(measured["spread"]),
            limit=int(measured["limit"]),
            heads=_trained_heads(folder.checkpoints / "heads.safetensors"),
            seed=config["seed"],
        )

    @property
    def box(self) -> int:
        """Voxels along a side."""
        return len(self.density)

    @property
    def size_angstrom(self) -> float:
        """Side of the box."""
        return self.box * self.pixel_size


def _measured(run: Path, path: Path) -> dict[str, Tensor]:
    """What the run measured of its images."""
    if not path.exists():
        raise InputError(
            "keeps no model that poses of new particles could be found with",
            where=run,
            remedy="Give a run of the preset cryospin or search, made by this version",
        )
    measured = read_tensors(path, _ANEW)
    if missing := {"noise", "contrast", "spread", "limit"} - measured.keys():
        raise InputError(f"lacks {', '.join(sorted(missing))}", where=path, remedy=_ANEW)
    return measured


def _trained_heads(path: Path) -> HeadProposals | None:
    """The heads that a run kept, if it had any."""
    if not path.exists():
        return None
    heads = HeadProposals(0)
    try:
        heads.load(read_tensors(path, _ANEW))
    except RuntimeError as error:
        raise InputError("does not hold the heads of this version", where=path, remedy=_ANEW) from error
    return heads
