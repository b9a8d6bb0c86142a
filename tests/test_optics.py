from __future__ import annotations

import math
import shutil
import subprocess
from dataclasses import replace

import mrcfile
import pytest
import torch

from cryospin.formats.star import read_star
from cryospin.formats.volume import read_map
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid, pack
from cryospin.kernels import cpu
from cryospin.optics import Optics, contrast_transfer

BOX, PIXEL = 64, 2.0


def optics(**values: float) -> Optics:
    """One particle's optics; what is not given is a usual value."""
    usual = {
        "defocus_u": 15000.0,
        "defocus_v": 14000.0,
        "defocus_angle": 25.0,
        "phase_shift": 0.0,
        "voltage": 300.0,
        "spherical_aberration": 2.7,
        "amplitude_contrast": 0.1,
    }
    fields = {name: torch.tensor([value], dtype=torch.float64) for name, value in (usual | values).items()}
    return Optics(**fields, group=torch.zeros(1, dtype=torch.long))


def closed_form(o: Optics, kx: float, ky: float) -> float:
    """`sin(chi)` of the textbooks, in Å: chi = pi lambda dz k^2 - pi/2 Cs lambda^3 k^4 + phase + asin(contrast)."""
    volts = float(o.voltage) * 1e3
    wavelength = 12.2643247 / math.sqrt(volts * (1 + volts * 0.978466e-6))
    k = math.hypot(kx, ky) / (BOX * PIXEL)
    direction = math.atan2(ky, kx) - math.radians(float(o.defocus_angle))
    mean, half = (o.defocus_u + o.defocus_v) / 2, (o.defocus_u - o.defocus_v) / 2
    defocus = float(mean) + float(half) * math.cos(2 * direction)
    aberration = float(o.spherical_aberration) * 1e7
    chi = math.pi * wavelength * defocus * k**2 - math.pi / 2 * aberration * wavelength**3 * k**4
    return math.sin(chi + math.radians(float(o.phase_shift)) + math.asin(float(o.amplitude_contrast)))


CONDITIONS = {
    "usual": {},
    "no astigmatism": {"defocus_v": 15000.0},
    "strong astigmatism": {"defocus_u": 22000.0, "defocus_v": 12000.0, "defocus_angle": 140.0},
    "U below V": {"defocus_u": 12000.0, "defocus_v": 16000.0, "defocus_angle": 70.0},
    "phase plate": {"phase_shift": 75.0},
    "other microscope": {"voltage": 200.0, "spherical_aberration": 0.01, "amplitude_contrast": 0.07},
    "overfocus": {"defocus_u": -8000.0, "defocus_v": -9000.0},
}


@pytest.mark.parametrize("values", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_ctf_is_the_closed_form(values):
    o, disc = optics(**values), HalfDisc.build(31)
    got = contrast_transfer(o, disc, BOX, PIXEL)[0]
    want = torch.tensor([closed_form(o, float(x), float(y)) for x, y in zip(disc.kx, disc.ky, strict=True)])
    torch.testing.assert_close(got, want, rtol=0, atol=3e-3)
    assert float(want.std()) > 0.3


def test_protein_is_white_for_underfocus():
    got = contrast_transfer(optics(), HalfDisc.build(31), BOX, PIXEL)[0]
    assert float(got[0]) == pytest.approx(0.1, abs=1e-4)
    assert (got[HalfDisc.build(31).shell <= 3] > 0).all()


def test_exchanging_the_defoci_and_turning_by_90_degrees_is_no_change():
    disc = HalfDisc.build(31)
    a = contrast_transfer(optics(defocus_u=16000.0, defocus_v=12000.0, defocus_angle=30.0), disc, BOX, PIXEL)
    b = contrast_transfer(optics(defocus_u=12000.0, defocus_v=16000.0, defocus_angle=-60.0), disc, BOX, PIXEL)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_a_cropped_box_keeps_the_ctf():
    disc = HalfDisc.build(10)
    wide = contrast_transfer(optics(), disc, 64, 2.0)
    cropped = contrast_transfer(optics(), disc, 32, 4.0)
    torch.testing.assert_close(cropped, wide, rtol=0, atol=1e-5)


def test_particles_keep_their_own_optics_across_chunks(monkeypatch):
    disc = HalfDisc.build(15)
    many = [optics(defocus_u=10000.0 + 900 * i, defocus_v=9000.0 + 700 * i) for i in range(5)]
    names = Optics.__dataclass_fields__
    joined = Optics(**{name: torch.cat([getattr(o, name) for o in many]) for name in names})
    monkeypatch.setattr("cryospin.optics._CHUNK_PIXELS", 2 * BOX * (BOX // 2 + 1))
    together = contrast_transfer(joined, disc, BOX, PIXEL)
    one_by_one = torch.cat([contrast_transfer(o, disc, BOX, PIXEL) for o in many])
    torch.testing.assert_close(together, one_by_one)
    torch.testing.assert_close(contrast_transfer(joined.take(torch.tensor([3, 1])), disc, BOX, PIXEL), together[[3, 1]])


@pytest.mark.skipif(not shutil.which("relion_project"), reason="relion_project is not installed")
def test_images_are_those_of_relion_project(simulated, tmp_path):
    table, (density, pixel) = read_star(simulated / "truth.star"), read_map(simulated / "truth.mrc")
    command = ["relion_project", "--i", simulated / "truth.mrc", "--ang", simulated / "truth.star", "--ctf"]
    command += ["--angpix", str(pixel), "--o", tmp_path / "projected"]
    subprocess.run([str(c) for c in command], check=True, capture_output=True, timeout=60)
    box = density.shape[0]
    disc, grid = HalfDisc.build(box // 2 - 2), FourierGrid(box // 2 - 1)
    theirs = pack(torch.from_numpy(mrcfile.read(tmp_path / "projected.mrcs").copy()), disc)
    ours = cpu.slices(map_to_grid(density, grid), grid, table.poses.rotation.float(), disc)
    ours *= contrast_transfer(table.optics, disc, box, pixel)
    ours *= disc.shift_phase((table.poses.shift / pixel).float(), box)

    def correlation(images):
        a, b = images[:, 1:], theirs[:, 1:]
        return (a * b.conj()).real.sum(1) / (a.abs().square().sum(1) * b.abs().square().sum(1)).sqrt()

    assert float(correlation(ours).min()) > 0.999
    strength = torch.linalg.vector_norm(ours[:, 1:]) / torch.linalg.vector_norm(theirs[:, 1:])
    assert float(strength) == pytest.approx(1, abs=0.02)
    unastigmatic = replace(table.optics, defocus_v=table.optics.defocus_u)
    wrong = ours / contrast_transfer(table.optics, disc, box, pixel) * contrast_transfer(unastigmatic, disc, box, pixel)
    assert correlation(wrong).mean() < correlation(ours).mean()
