"""What a run is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from cryospin.device import Choice, choose
from cryospin.engine.learning import Learning
from cryospin.environment import cores_to_use
from cryospin.errors import InputError
from cryospin.geometry.symmetry import point_group
from cryospin.presets.options import LEARNED, learning
from cryospin.selection import Selection

PRESETS = {"cryospin": "both", "search": "grid"}
"""What each preset explores with unless `--proposals` says otherwise."""

PROPOSALS = ("heads", "grid", "both")

IMPOSE = ("refinement", "start")

_MOST_SEED = 2**62
"""Random generators take twice that, and some of a run are seeded a little higher."""

STARTS = 3
"""Starts from nothing that are made at most, where a user does not say."""

AUTO = "auto"
"""What `--symmetry` is where the point group is not known."""


def imposed_group(symmetry: str) -> str:
    """The point group that a value of `--symmetry` imposes."""
    name = symmetry.strip().upper()
    return "C1" if name == AUTO.upper() else name


def check_seed(seed: int) -> None:
    """Raise `InputError` for a number that no random generator can be seeded with."""
    if not 0 <= seed <= _MOST_SEED:
        raise InputError(f"--seed {seed} cannot be used", remedy="Give a whole number from 0 up, of at most 18 digits")


def _refuse_unwritable(path: Path | None) -> None:
    """Raise `InputError` for a path that no settings file could hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the name {str(path)!r} is not UTF-8", remedy="Rename the file or folder, or give a link to it"
        ) from error


@dataclass(frozen=True)
class Settings:
    """Everything a user may choose about a reconstruction.

    particles: the particle table
    out: folder for the results
    preset: `cryospin`, `search`, `paper` or `cryoai`
    proposals: `heads`, `grid`, `both`, or None for the preset's own
    box: pixels to Fourier-crop the images to; None for the images' own, up to 128
    mask_diameter: Å; None for 84 % of the box
    max_resolution: Å; no frequency beyond it is used
    symmetry: point group imposed, axes as `point_group` has them; `auto` to report which the map has and impose none
    impose: where a point group is imposed from, `refinement` or `start`
    invert: whether protein is dark in the images; None to look
    device: `auto`, `cpu`, `cuda` or `cuda:n`
    threads: cores to use; None for all
    memory: GiB the run may take; packed images that do not fit are kept on disk. None for most of what is free
    seed: of every random choice
    starts: at most so many starts from nothing; the next is made only if none before convinced
    datadir: folder to look for stacks in
    ctf: for bare image stacks, the table with their CTF; for a `.cs`, its passthrough file
    first: use only so many particles, from the top
    sample: use only so many of what `first` and `particles_index` leave, evenly spaced
    particles_index: use only the rows that this text file lists, counted from 0
    recentre: centre the particles by the shifts in the table before anything else
    truth_poses: a table of true poses, to follow the error during the run
    shifts: whether displacements are estimated; `paper` and `cryoai` can do without
    options: numbers of `paper` and `cryoai` that differ from the published ones, by name; see `engine.learning.Learning`
    """

    particles: Path
    out: Path
    preset: str = "cryospin"
    proposals: str | None = None
    box: int | None = None
    mask_diameter: float | None = None
    max_resolution: float | None = None
    symmetry: str = "C1"
    impose: str = "refinement"
    invert: bool | None = None
    device: str = "auto"
    threads: int | None = None
    memory: float | None = None
    seed: int = 0
    starts: int = STARTS
    datadir: Path | None = None
    ctf: Path | None = None
    first: int | None = None
    sample: int | None = None
    particles_index: Path | None = None
    recentre: bool = False
    truth_poses: Path | None = None
    shifts: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be done before anything is read."""
        for name in ("particles", "out", "datadir", "ctf", "particles_index", "truth_poses"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, Path(value))
            _refuse_unwritable(getattr(self, name))
        presets = [*PRESETS, *LEARNED]
        if self.preset not in presets:
            raise InputError(f"--preset {self.preset} is not known", remedy=f"Choose from {', '.join(presets)}")
        if self.learns:
            self._check_learned()
        elif self.options or not self.shifts:
            name = "--set" if self.options else "--shifts none"
            raise InputError(f"{name} is for --preset {' and '.join(LEARNED)}", remedy="Drop it, or choose one of these")
        if self.proposals is not None and self.proposals not in PROPOSALS:
            raise InputError(f"--proposals {self.proposals} is not known", remedy=f"Choose from {', '.join(PROPOSALS)}")
        choose(self.device)
        for name in ("mask_diameter", "max_resolution"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"--{name.replace('_', '-')} {value:g} is not a positive number of Å")
        cores_to_use(self.threads)
        if self.memory is not None and not self.memory > 0:
            raise InputError(f"--memory {self.memory:g} is not a number of GiB", remedy="Give more than 0")
        check_seed(self.seed)
        if self.starts < 1:
            raise InputError(f"--starts {self.starts} is not a number of starts", remedy="Give 1 or more")
        if self.impose not in IMPOSE:
            raise InputError(f"--impose {self.impose} is not known", remedy=f"Choose from {', '.join(IMPOSE)}")
        point_group(self.imposed)

    def _check_learned(self) -> None:
        """Refuse what a preset that learns by gradient descent has no use for."""
        if self.proposals is not None:
            raise InputError(f"--proposals is not for --preset {self.preset}", remedy="Drop it")
        if self.starts != STARTS:
            raise InputError(f"--preset {self.preset} starts once", remedy="Drop --starts")
        if len(point_group(self.imposed)) > 1:
            raise InputError(f"--preset {self.preset} imposes no symmetry", remedy="Drop --symmetry, or the preset")
        learning(self.preset, self.options)

    @property
    def learns(self) -> bool:
        """Whether the preset learns poses and volume by gradient descent."""
        return self.preset in LEARNED

    @property
    def learning(self) -> Learning:
        """The numbers of such a preset; raises `InputError` for options it does not have."""
        return learning(self.preset, self.options, shifts=self.shifts)

    @property
    def selection(self) -> Selection:
        """Which particles are used."""
        return Selection(self.first, self.particles_index, self.sample)

    @property
    def imposed(self) -> str:
        """The point group that is imposed."""
        return imposed_group(self.symmetry)

    @property
    def looks_for_symmetry(self) -> bool:
        """Whether the run is to say which point group its map has."""
        return self.symmetry.strip().lower() == AUTO

    @property
    def explores_with(self) -> str:
        """`heads`, `grid` or `both`."""
        return self.proposals or PRESETS[self.preset]

    @property
    def computes_on(self) -> Choice:
        """The device the run uses, and why."""
        return choose(self.device)

    @property
    def cores(self) -> int:
        """Threads the run uses."""
        return cores_to_use(self.threads)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """The settings that `table` wrote; what else it holds is left alone."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in table.items() if name in known})

    def table(self) -> dict[str, Any]:
        """The settings as plain values for a configuration file; what was left open is not in it, and paths are absolute."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.learns:
            own: dict[str, Any] = {"options": self.learning.table(), "starts": None}
        else:
            own = {"proposals": self.explores_with, "options": None}
        values |= own | {"threads": self.cores}
        return {k: str(v.absolute()) if isinstance(v, Path) else v for k, v in values.items() if v is not None}
