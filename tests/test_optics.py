from __future__ import annotations

import math
import shutil
import subprocess
from dataclasses import fields, replace

import mrcfile
import pytest
import torch

from cryospin.formats.star import read_star
from cryospin.formats.volume import read_map
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid, pack
from cryospin.kernels import cpu
from cryospin.optics import Optics, OpticsGroup, contrast_transfer, odd_aberration

BOX, PIXEL = 64, 2.0
SIZE = BOX * PIXEL
GROUP = OpticsGroup("g", voltage=300.0, spherical_aberration=2.7, amplitude_contrast=0.1, pixel_size=PIXEL)
PARTICLE = {
    "defocus_u": 15000.0,
    "defocus_v": 14000.0,
    "defocus_angle": 25.0,
    "phase_shift": 0.0,
    "b_factor": 0.0,
    "scale": 1.0,
}


def optics(**values) -> Optics:
    """One particle's optics; what is not given is a usual value."""
    own = {name: torch.tensor([values.pop(name, usual)], dtype=torch.float64) for name, usual in PARTICLE.items()}
    return Optics(**own, group=torch.zeros(1, dtype=torch.long), groups=(replace(GROUP, **values),))


def joined(many: list[Optics]) -> Optics:
    """Particles with a group each."""
    columns = {f.name: torch.cat([getattr(o, f.name) for o in many]) for f in fields(Optics) if f.name != "groups"}
    return Optics(**columns | {"group": torch.arange(len(many))}, groups=tuple(o.groups[0] for o in many))


def electron_wavelength(kilovolts: float) -> float:
    volts = kilovolts * 1e3
    return 12.2643247 / math.sqrt(volts * (1 + volts * 0.978466e-6))


def even_terms(x: float, y: float) -> list[float]:
    """The first nine even Zernike polynomials, in RELION's order, written out."""
    square, two, across = x * x + y * y, 2 * x * y, x * x - y * y
    return [
        1.0,
        *(two, 2 * square - 1, across),
        *(2 * two * across, (4 * square - 3) * two, 6 * square**2 - 6 * square + 1, (4 * square - 3) * across),
        across**2 - two**2,
    ]


def odd_terms(x: float, y: float) -> list[float]:
    """The first six odd ones."""
    square = x * x + y * y
    return [y, x, 3 * x * x * y - y**3, (3 * square - 2) * y, (3 * square - 2) * x, x**3 - 3 * x * y * y]


def closed_form(o: Optics, kx: float, ky: float) -> float:
    """`-sin(gamma)` of RELION, in Å: the negative of `sin(chi)`'s phase, with Zernike terms added, times the envelope."""
    g = o.groups[0]
    wavelength, k = electron_wavelength(g.voltage), math.hypot(kx, ky) / SIZE
    direction = math.atan2(ky, kx) - math.radians(float(o.defocus_angle))
    mean, half = (o.defocus_u + o.defocus_v) / 2, (o.defocus_u - o.defocus_v) / 2
    defocus = float(mean) + float(half) * math.cos(2 * direction)
    chi = math.pi * wavelength * defocus * k**2
    chi -= math.pi / 2 * g.spherical_aberration * 1e7 * wavelength**3 * k**4
    chi += math.radians(float(o.phase_shift)) + math.asin(g.amplitude_contrast)
    gamma = -chi + sum(c * z for c, z in zip(g.even_zernike, even_terms(kx / SIZE, ky / SIZE), strict=False))
    return -math.sin(gamma) * float(o.scale) * math.exp(-float(o.b_factor) * k**2 / 4)


CONDITIONS = {
    "usual": {},
    "no astigmatism": {"defocus_v": 15000.0},
    "strong astigmatism": {"defocus_u": 22000.0, "defocus_v": 12000.0, "defocus_angle": 140.0},
    "U below V": {"defocus_u": 12000.0, "defocus_v": 16000.0, "defocus_angle": 70.0},
    "phase plate": {"phase_shift": 75.0},
    "other microscope": {"voltage": 200.0, "spherical_aberration": 0.01, "amplitude_contrast": 0.07},
    "overfocus": {"defocus_u": -8000.0, "defocus_v": -9000.0},
    "B-factor": {"b_factor": 60.0},
    "negative B-factor": {"b_factor": -30.0},
    "scale": {"scale": 0.6},
    "constant phase": {"even_zernike": (0.7,)},
    "defocus and astigmatism": {"even_zernike": (0.3, 20.0, -15.0, 30.0)},
    "tetrafoil and others": {"even_zernike": (0.1, 5.0, 3.0, -4.0, 300.0, -3.0, 2.0, 4.0, -250.0)},
    "everything": {"even_zernike": (0.5, 20.0, 10.0), "b_factor": 40.0, "scale": 1.3, "phase_shift": 40.0, "voltage": 200.0},
}


@pytest.mark.parametrize("values", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_ctf_is_the_closed_form(values):
    o, disc = optics(**values), HalfDisc.build(31)
    got = contrast_transfer(o, disc, BOX, PIXEL)[0]
    want = torch.tensor([closed_form(o, float(x), float(y)) for x, y in zip(disc.kx, disc.ky, strict=True)])
    torch.testing.assert_close(got, want, rtol=0, atol=3e-3 * max(1.0, float(want.abs().max())))
    assert float(want.std()) > 0.2


@pytest.mark.parametrize("place", range(9))
def test_every_even_term_has_its_place(place):
    coefficient = 400.0 if place >= 4 else 25.0
    o, disc = optics(even_zernike=(0.0,) * place + (coefficient if place else 1.0,)), HalfDisc.build(31)
    got = contrast_transfer(o, disc, BOX, PIXEL)[0]
    want = torch.tensor([closed_form(o, float(x), float(y)) for x, y in zip(disc.kx, disc.ky, strict=True)])
    torch.testing.assert_close(got, want, rtol=0, atol=4e-3)


def test_an_even_term_of_second_order_is_defocus():
    disc, coefficient = HalfDisc.build(31), 20.0
    aberrated = contrast_transfer(optics(even_zernike=(coefficient, 0.0, coefficient)), disc, BOX, PIXEL)
    less = 2 * coefficient / (math.pi * electron_wavelength(300.0))
    defocused = contrast_transfer(optics(defocus_u=15000.0 - less, defocus_v=14000.0 - less), disc, BOX, PIXEL)
    torch.testing.assert_close(aberrated, defocused, rtol=0, atol=3e-3)


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
    many = joined([optics(), optics(even_zernike=(0.2, 30.0), b_factor=50.0)])
    wide = contrast_transfer(many, disc, 64, 2.0)
    cropped = contrast_transfer(many, disc, 32, 4.0)
    torch.testing.assert_close(cropped, wide, rtol=0, atol=1e-5)


def test_particles_keep_their_own_optics_across_chunks_and_groups(monkeypatch):
    disc = HalfDisc.build(15)
    many = [optics(defocus_u=10000.0 + 900 * i, defocus_v=9000.0 + 700 * i, voltage=200.0 + 25 * i) for i in range(5)]
    many += [optics(b_factor=80.0), optics(even_zernike=(0.4, 0.0, 50.0)), optics(scale=0.5), optics(even_zernike=(1.0,))]
    together = joined(many)
    monkeypatch.setattr("cryospin.optics._CHUNK_PIXELS", 3 * BOX * (BOX // 2 + 1))
    got = contrast_transfer(together, disc, BOX, PIXEL)
    torch.testing.assert_close(got, torch.cat([contrast_transfer(o, disc, BOX, PIXEL) for o in many]), rtol=0, atol=1e-5)
    some = torch.tensor([5, 3, 1])
    torch.testing.assert_close(contrast_transfer(together.take(some), disc, BOX, PIXEL), got[some], rtol=0, atol=1e-5)
    assert together.take(some).of_group("voltage").tolist() == [300.0, 275.0, 225.0]


def test_beam_tilt_is_coma():
    group, disc = replace(GROUP, beam_tilt=(3.0, -2.0)), HalfDisc.build(31)
    kx, ky = disc.kx.double() / SIZE, disc.ky.double() / SIZE
    along = (3.0 * kx - 2.0 * ky) * 1e-3
    phase = -2 * math.pi * 2.7e7 * electron_wavelength(300.0) ** 2 * (kx**2 + ky**2) * along
    assert float(phase.abs().max()) > 1
    want = torch.polar(torch.ones_like(phase), phase).to(torch.complex64)
    torch.testing.assert_close(odd_aberration(group, disc, SIZE), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("place", range(6))
def test_every_odd_term_has_its_place(place):
    coefficient = 5.0 if place < 2 else 60.0
    group, disc = replace(GROUP, odd_zernike=(0.0,) * place + (coefficient,)), HalfDisc.build(31)
    pairs = zip(disc.kx / SIZE, disc.ky / SIZE, strict=True)
    phase = torch.tensor([coefficient * odd_terms(float(x), float(y))[place] for x, y in pairs])
    torch.testing.assert_close(odd_aberration(group, disc, SIZE), torch.polar(torch.ones(len(disc)), phase))


def test_beam_tilt_adds_to_odd_terms_and_is_one_of_them():
    disc, tilt = HalfDisc.build(31), 2.0
    c = -2 * math.pi * 2.7e7 * electron_wavelength(300.0) ** 2 * tilt * 1e-3 / 3
    tilted = odd_aberration(replace(GROUP, beam_tilt=(tilt, 0.0)), disc, SIZE)
    as_terms = odd_aberration(replace(GROUP, odd_zernike=(0.0, 2 * c, 0.0, 0.0, c)), disc, SIZE)
    torch.testing.assert_close(tilted, as_terms, rtol=0, atol=1e-4)
    cancelled = odd_aberration(replace(GROUP, beam_tilt=(tilt, 0.0), odd_zernike=(0.0, -2 * c, 0.0, 0.0, -c)), disc, SIZE)
    torch.testing.assert_close(cancelled, torch.ones_like(cancelled), rtol=0, atol=1e-4)


def test_aberrations_keep_images_real():
    disc = HalfDisc.build(20)
    opposite = HalfDisc(disc.radius, -disc.kx, -disc.ky, disc.shell)
    group = replace(GROUP, beam_tilt=(3.0, 1.0), odd_zernike=(1.0, 2.0, 30.0, 0.0, 10.0, 20.0))
    here, there = (odd_aberration(group, d, SIZE) for d in (disc, opposite))
    torch.testing.assert_close(there, here.conj())
    o = optics(even_zernike=(0.2, 9.0, 8.0, 7.0, 100.0), defocus_v=9000.0)
    here, there = (contrast_transfer(o, d, BOX, PIXEL) for d in (disc, opposite))
    torch.testing.assert_close(there, here, rtol=0, atol=1e-5)


def test_without_odd_terms_there_is_nothing_to_undo():
    assert odd_aberration(replace(GROUP, odd_zernike=(0.0, 0.0), even_zernike=(1.0,)), HalfDisc.build(5), SIZE) is None


def test_shifts_of_a_distorted_image_and_of_its_particle_mean_the_same_phase(generator):
    matrix = torch.tensor([[1.02, 0.03], [-0.01, 0.97]], dtype=torch.float64)
    o = joined([optics(magnification=tuple(matrix.flatten().tolist())), optics()])
    shift, m = (torch.randn(2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    of_particle = o.shift_of_particle(shift)
    torch.testing.assert_close(o.shift_in_image(of_particle), shift)
    k = torch.stack([matrix @ m[0], m[1]])
    torch.testing.assert_close((k * of_particle).sum(1), (m * shift).sum(1))
    assert not torch.allclose(of_particle[0], shift[0], atol=1e-3)
    torch.testing.assert_close(of_particle[1], shift[1])


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
