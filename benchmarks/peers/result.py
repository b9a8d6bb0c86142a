"""What another program found, in the form that `cryospin evaluate` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryospin.formats.star import ANGLES, ORIGINS, read_poses, read_star
from cryospin.formats.star_text import StarFile, parse_star
from cryospin.formats.volume import read_map, write_map
from cryospin.geometry.rotations import to_relion_angles


def poses_in_order(found: Path, table: Path) -> StarFile:
    """The particles of `table`, a RELION 3.1 table of one stack, with the poses that `found` gives them.

    Programs write their own copies of the images, in an order of their own: particles are matched by their number in the
    stack.

    raises: ValueError where `found` lacks a particle
    """
    poses, theirs, ours = read_poses(found), read_star(found).images.slice, read_star(table).images.slice
    row = dict(zip(theirs.tolist(), range(len(theirs)), strict=True))
    missing = set(ours.tolist()) - row.keys()
    if missing:
        raise ValueError(f"{found} lacks {len(missing)} particles, such as number {min(missing) + 1}")
    poses = poses.take(np.array([row[i] for i in ours.tolist()]))
    values = np.concatenate([to_relion_angles(poses.rotation).numpy(), -poses.shift.numpy()], axis=1)
    columns = {name: [f"{v:.6f}" for v in values[:, i]] for i, name in enumerate((*ANGLES, *ORIGINS))}
    star = parse_star(table)
    block = star.block("particles")
    assert block is not None, "a RELION 3.1 table has a particles block"
    return star.replaced(block, columns)


def write_result(found: Path, maps: list[Path], table: Path, out: Path) -> None:
    """Write `particles.star` and `map.mrc`, the mean of `maps` (one, or two halves), to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    poses_in_order(found, table).write(out / "particles.star")
    densities = [read_map(path) for path in maps]
    write_map(out / "map.mrc", sum(d for d, _ in densities) / len(densities), read_star(table).pixel_size)
