"""RELION reads what cryospin writes, and the two mean the same by every aberration."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from other_programs import BOX, PIXEL, masked_fsc, run

from cryospin.formats.new_star import VERSION, optics_columns
from cryospin.formats.stack import read_header
from cryospin.formats.star import read_star
from cryospin.formats.star_text import star_file
from cryospin.formats.volume import read_map, write_map
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid, pack
from cryospin.geometry.rotations import random_rotations, to_relion_angles
from cryospin.kernels import cpu as kernels
from cryospin.optics import OpticsGroup, contrast_transfer
from cryospin.simulation import ImagingConditions, simulate

pytestmark = pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="RELION is not installed")

PLAIN = OpticsGroup("optics", 300.0, 2.7, 0.1, PIXEL, BOX)
EVEN = (0.0, 60.0, -90.0, 45.0, 2000.0, -1000.0, 3000.0, 500.0, -1500.0)
CTF_CASES = {
    "nothing": (PLAIN, {}),
    "a phase plate": (PLAIN, {"rlnPhaseShift": 70.0}),
    "B-factor and scale": (PLAIN, {"rlnCtfBfactor": 300.0, "rlnCtfScalefactor": 0.7}),
    "even Zernike terms": (replace(PLAIN, even_zernike=EVEN), {}),
}


@pytest.mark.parametrize("case", CTF_CASES)
def test_the_ctf_is_the_one_relion_projects_with(case, density, tmp_path, generator):
    group, extra = CTF_CASES[case]
    rotations = random_rotations(8, generator)
    write_map(tmp_path / "map.mrc", density, PIXEL)
    _star(tmp_path / "p.star", group, rotations, extra)
    run(f"relion_project --i map.mrc --o p --ang p.star --ctf --angpix {PIXEL}", tmp_path)
    theirs = torch.from_numpy(read_header(tmp_path / "p.mrcs").images().copy())
    disc, grid = HalfDisc.build(BOX // 2 - 3), FourierGrid(BOX // 2 - 1, 3)
    ours = kernels.slices(map_to_grid(density, grid), grid, rotations, disc)
    ours *= contrast_transfer(read_star(tmp_path / "p.star").optics, disc, BOX, PIXEL)
    assert _correlation(pack(theirs, disc), ours) > 0.999
    assert float(pack(theirs, disc).abs().sum() / ours.abs().sum()) == pytest.approx(1, abs=0.02)


DISTORTIONS = {
    "magnification": ImagingConditions(snr=50.0, magnification=(1.03, 0.02, -0.01, 0.98)),
    "beam tilt": ImagingConditions(snr=50.0, beam_tilt=(14.0, -9.0)),
    "phase shift": ImagingConditions(snr=50.0, phase_shift=75.0),
    "all at once": ImagingConditions(
        snr=50.0, magnification=(1.03, 0.02, -0.01, 0.98), beam_tilt=(14.0, -9.0), phase_shift=75.0
    ),
}
COLUMNS = ("rlnMagMat", "rlnBeamTilt", "rlnPhaseShift")


@pytest.mark.parametrize("case", DISTORTIONS)
def test_relion_undoes_what_the_simulator_did(case, density, tmp_path):
    simulate(density, PIXEL, 600, tmp_path, replace(DISTORTIONS[case], astigmatism=2000.0), seed=1)
    with_columns = _reconstructed(tmp_path, "truth.star")
    _without(tmp_path / "truth.star", tmp_path / "ignorant.star")
    without = _reconstructed(tmp_path, "ignorant.star")
    right, wrong = (1 - masked_fsc(m, density)[12:18] for m in (with_columns, without))
    assert float(right.max()) < 0.01
    assert float(wrong.mean()) > 2 * float(right.mean())


def test_relion_reconstructs_from_the_table_written_back(written):
    from_truth, from_back = (_reconstructed(written, name) for name in ("truth.star", "particles.star"))
    assert float(masked_fsc(from_truth, from_back)[1:20].min()) > 0.9999


def test_relion_starts_to_refine_from_the_table_written_back(written, density):
    write_map(written / "reference.mrc", density, PIXEL)
    (written / "refine").mkdir(exist_ok=True)
    run(
        "relion_refine --i particles.star --ref reference.mrc --o refine/run --iter 1 --dont_check_norm --ctf "
        f"--particle_diameter {0.8 * BOX * PIXEL} --tau2_fudge 2 --healpix_order 1 --offset_range 2 --offset_step 2 "
        "--pad 1 --pool 30 --ini_high 40 --j 2 --K 1 --sym C1 --norm --scale",
        written,
    )
    assert (written / "refine" / "run_it001_data.star").is_file()


def _star(path: Path, group: OpticsGroup, rotations: torch.Tensor, extra: dict[str, float]) -> None:
    """A table of CTFs all different, at given rotations."""
    count = len(rotations)
    angles = to_relion_angles(rotations)
    rows = {
        "rlnImageName": [f"{i + 1}@p.mrcs" for i in range(count)],
        "rlnOpticsGroup": [1] * count,
        "rlnDefocusU": [9000.0 + 1000 * i for i in range(count)],
        "rlnDefocusV": [8000.0 + 900 * i for i in range(count)],
        "rlnDefocusAngle": [20.0 * i for i in range(count)],
        "rlnOriginXAngst": [0.0] * count,
        "rlnOriginYAngst": [0.0] * count,
    }
    rows |= {name: angles[:, i].tolist() for i, name in enumerate(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"))}
    rows |= {name: [value] * count for name, value in extra.items()}
    star_file(path, {"optics": optics_columns((group,)), "particles": rows}, VERSION).write(path)


def _reconstructed(folder: Path, table: str) -> torch.Tensor:
    run(f"relion_reconstruct --i {table} --o {table}.mrc --ctf --pad 2", folder)
    return read_map(folder / f"{table}.mrc")[0]


def _without(source: Path, target: Path) -> None:
    """The same table with every aberration set to nothing."""
    star = read_star(source).source.star
    for name in ("optics", "particles"):
        block = star.block(name)
        labels = [label for label in block.labels if label.startswith(COLUMNS)]
        nothing = {label: ["1" if label in ("rlnMagMat00", "rlnMagMat11") else "0"] * len(block) for label in labels}
        star = star.replaced(block, nothing)
    star.write(target)


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b.conj()).real.sum() / math.sqrt(float((a.abs() ** 2).sum() * (b.abs() ** 2).sum())))
