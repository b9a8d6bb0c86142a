from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.peers import relion
from benchmarks.peers.result import poses_in_order, write_result
from cryospin.formats.star import read_poses
from cryospin.formats.star_text import parse_star
from cryospin.formats.volume import read_map, write_map


@pytest.fixture
def shuffled(simulated, tmp_path):
    """The true poses as another program would write them: other images, another order, origins in pixels."""
    star = parse_star(simulated / "truth.star")
    block = star.block("particles")
    columns = star.columns(block, block.labels)
    names = [f"{name.partition('@')[0]}@copies.mrcs" for name in columns["rlnImageName"]]
    pixels = {f"rlnOrigin{axis}": [str(float(v) / 6.0) for v in columns.pop(f"rlnOrigin{axis}Angst")] for axis in "XY"}
    columns = columns | pixels | {"rlnImageName": names}
    order = np.random.default_rng(0).permutation(len(names))
    lines = [f"_{label}" for label in columns]
    rows = [" ".join(values[i] for values in columns.values()) for i in order]
    optics = star.lines[: star.lines.index("data_particles")]
    (tmp_path / "found.star").write_text("\n".join([*optics, "data_particles", "loop_", *lines, *rows, ""]))
    return tmp_path / "found.star"


def test_poses_come_back_in_the_tables_order_and_in_angstrom(shuffled, simulated, tmp_path):
    poses_in_order(shuffled, simulated / "particles.star").write(tmp_path / "ordered.star")
    found, true = read_poses(tmp_path / "ordered.star"), read_poses(simulated / "truth.star")
    torch.testing.assert_close(found.rotation, true.rotation, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.shift, true.shift, rtol=0, atol=1e-4)
    assert float(true.shift.abs().max()) > 1


def test_a_particle_that_was_lost_is_missed(shuffled, simulated):
    shuffled.write_text("\n".join(shuffled.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(ValueError, match="lacks 1 particles"):
        poses_in_order(shuffled, simulated / "particles.star")


def test_half_maps_are_averaged(shuffled, simulated, tmp_path):
    halves = [tmp_path / f"half{i}.mrc" for i in (1, 2)]
    for value, path in zip((1.0, 3.0), halves, strict=True):
        write_map(path, torch.full((4, 4, 4), value), 6.0)
    write_result(shuffled, halves, simulated / "particles.star", tmp_path / "out")
    density, voxel = read_map(tmp_path / "out" / "map.mrc")
    assert density.unique().tolist() == [2.0]
    assert voxel == 6.0


def test_relions_last_iteration_is_the_one_written_whole(tmp_path):
    def wrote(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        last = relion._last_written(tmp_path)
        return last and (last[2], len(last[1]))

    assert wrote("initial/run_it000_data.star", "initial/run_it000_class001.mrc") is None
    assert wrote("initial/run_it005_class001.mrc", "initial/run_it005_data.star") == ("initial model, iteration 5", 1)
    assert wrote("refined/run_it000_data.star", "refined/run_it000_class001.mrc") == ("initial model, iteration 5", 1)
    halves = ("refined/run_it002_half1_class001.mrc", "refined/run_it002_half2_class001.mrc")
    assert wrote(*halves) == ("initial model, iteration 5", 1)
    assert wrote("refined/run_it002_data.star", "refined/run_it003_data.star") == ("refinement, iteration 2", 2)
    assert wrote("refined/run_class001.mrc", "refined/run_data.star") == ("refinement", 1)
