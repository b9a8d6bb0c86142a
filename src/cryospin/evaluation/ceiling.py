"""The best map any poses could give: from the true ones, made as a run makes its own."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cryospin.engine.final import FinalMaps, final_maps
from cryospin.engine.half_sets import HalfSets
from cryospin.errors import InputError
from cryospin.formats.table import GivenPoses
from cryospin.kernels.types import Poses
from cryospin.poses.modes import Modes
from cryospin.preparation import prepare
from cryospin.settings import Settings


def maps_from_poses(run: Path, poses: GivenPoses, datadir: Path | None = None, frame: Tensor | None = None) -> FinalMaps:
    """Maps from a run's images at given poses, with the run's box, mask, contrast and filter.

    frame: `(3, 3)`, how the axes of the run's point group stand in the frame of the poses; in the standard way if None
    raises: `InputError` where the run's particles are not where they were
    """
    try:
        config = tomllib.loads((run / "config.toml").read_text())
        settings = Settings(
            particles=Path(config["particles"]),
            out=run,
            device="cpu",
            box=config["box"],
            mask_diameter=config["mask_diameter_A"],
            max_resolution=config["max_resolution_A"],
            symmetry=config["symmetry"],
            impose=config.get("impose", "start"),
            invert=config["invert"],
            datadir=datadir or (Path(config["datadir"]) if "datadir" in config else None),
            **{name: config[name] for name in ("ctf", "first", "sample", "particles_index", "recentre") if name in config},
        )
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"config.toml cannot be used ({error})", where=run, remedy="Give a finished run's folder"
        ) from error
    _, packed, problem = prepare(settings)
    if frame is not None:
        problem = replace(problem, group=(frame @ problem.group.double() @ frame.T).float())
    count = len(problem)
    shift = ((poses.shift - packed.centre) / problem.pixel_size).float()
    hypotheses = Poses(torch.arange(count), poses.rotation.float(), shift)
    modes = Modes(hypotheses, torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.long))
    modes = modes.to(problem.device)
    half = problem.order(torch.Generator().manual_seed(0)) % 2
    return final_maps(HalfSets.settled(problem, half, modes), modes).cpu()
