from __future__ import annotations

import shutil
import subprocess

import mrcfile
import pytest
import starfile
import torch

from cryospin.errors import InputError
from cryospin.formats.star import read_star
from cryospin.formats.volume import read_map
from cryospin.fourier import HalfDisc, pack
from cryospin.maps.fsc import fourier_shell_correlation
from cryospin.noise import shell_mean
from cryospin.optics import contrast_transfer, odd_aberration
from cryospin.simulation import ImagingConditions, simulate

BOX, PIXEL = 24, 6.0
NO_CTF = {"defocus": (0.0, 0.0), "astigmatism": 0.0, "spherical_aberration": 0.0, "amplitude_contrast": 1.0}
"""Conditions under which the CTF is 1 everywhere."""


@pytest.fixture(scope="module")
def density(blobs):
    return blobs.density(BOX)


def images_of(density, folder, count, seed=0, **conditions):
    simulate(density, PIXEL, count, folder, ImagingConditions(**conditions), seed)
    return torch.from_numpy(mrcfile.read(folder / "particles.mrcs").copy())


def rows_of(path):
    return starfile.read(path, always_dict=True)["particles"]


def test_four_files_that_belong_together(density, tmp_path):
    images = images_of(density, tmp_path, 7)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["particles.mrcs", "particles.star", "truth.mrc", "truth.star"]
    assert images.shape == (7, BOX, BOX)
    truth, voxel = read_map(tmp_path / "truth.mrc")
    assert torch.equal(truth, density)
    assert voxel == PIXEL
    blind, told = rows_of(tmp_path / "particles.star"), rows_of(tmp_path / "truth.star")
    assert blind.equals(told[blind.columns])
    assert not any(("Angle" in c and c != "rlnDefocusAngle") or "Origin" in c for c in blind.columns)
    assert read_star(tmp_path / "particles.star").pixel_size == PIXEL


def test_without_ctf_and_noise_an_image_is_the_closed_form_projection(blobs, density, tmp_path):
    images = images_of(density, tmp_path, 4, snr=1e8, **NO_CTF)
    poses = read_star(tmp_path / "truth.star").poses
    for image, r, t in zip(images, poses.rotation, poses.shift / PIXEL, strict=True):
        want = blobs.image(BOX, r, t)
        got = image / float((image * want).sum() / want.square().sum())
        torch.testing.assert_close(got, want, rtol=0, atol=0.03 * float(want.max()))


@pytest.mark.parametrize("snr", [0.1, 2.0])
def test_signal_and_noise_have_the_variances_asked_for(density, tmp_path, snr):
    clear = images_of(density, tmp_path / "a", 200, snr=1e6)
    noisy = images_of(density, tmp_path / "b", 200, snr=snr)
    signal = clear * (snr / 1e6) ** 0.5
    noise = noisy - signal
    assert float(noise.var()) == pytest.approx(1, abs=0.03)
    assert abs(float(noise.mean())) < 0.01
    assert float(signal.var(dim=(1, 2)).mean()) == pytest.approx(snr, rel=0.02)
    assert abs(float((noise * signal).mean())) < 0.02 * snr**0.5


def test_shifts_have_the_deviation_asked_for_and_move_the_particle_that_way(density, tmp_path):
    images = images_of(density, tmp_path, 300, snr=1e6, shift_sd=2.0, **NO_CTF)
    shift = read_star(tmp_path / "truth.star").poses.shift / PIXEL
    assert float(shift.std()) == pytest.approx(2.0, rel=0.1)
    k = (torch.arange(BOX) - BOX // 2).float()
    centre = torch.stack([(images.sum(1) * k).sum(1), (images.sum(2) * k).sum(1)], 1) / images.sum((1, 2))[:, None]
    poses = read_star(tmp_path / "truth.star").poses
    origin = torch.stack([density.sum((0, 1)) @ k, density.sum((0, 2)) @ k, density.sum((1, 2)) @ k]) / density.sum()
    want = shift.float() + (poses.rotation.float() @ origin)[:, :2]
    near = shift.norm(dim=1) < 4
    torch.testing.assert_close(centre[near], want[near], rtol=0, atol=0.3)


def test_coloured_noise_falls_with_frequency_and_keeps_its_mean_power(density, tmp_path):
    images = images_of(density, tmp_path, 300, snr=1e-9, coloured=True)
    disc = HalfDisc.build(11)
    power = shell_mean(pack(images, disc).abs().square().mean(0), disc)
    assert (power[1:].diff() < 0.02).all()
    assert power[1] > 1.5 * power[11]
    assert float(images.var()) == pytest.approx(1, abs=0.05)
    white = images_of(density, tmp_path / "white", 300, snr=1e-9)
    flat = shell_mean(pack(white, disc).abs().square().mean(0), disc)
    torch.testing.assert_close(flat[1:], torch.ones(11, dtype=torch.float64), rtol=0, atol=0.1)


def test_junk_images_hold_no_particle(density, tmp_path):
    images = images_of(density, tmp_path, 300, snr=25.0, junk=0.3)
    empty = images.var(dim=(1, 2)) < 2
    assert 0.2 < float(empty.double().mean()) < 0.4
    assert float(images[empty].var(dim=(1, 2)).max()) < 1.3
    assert float(images[~empty].var(dim=(1, 2)).median()) > 10
    assert (images_of(density, tmp_path / "none", 30, snr=25.0).var(dim=(1, 2)) > 2).all()


def test_only_junk_can_be_made(density, tmp_path):
    images = images_of(density, tmp_path, 20, snr=25.0, junk=1.0)
    assert float(images.var()) == pytest.approx(1, abs=0.05)


def test_optics_lie_within_the_conditions(density, tmp_path):
    images_of(density, tmp_path, 300, defocus=(8000.0, 9000.0), astigmatism=400.0, voltage=200.0)
    o = read_star(tmp_path / "truth.star").optics
    assert o.defocus_u.min() >= 8000
    assert o.defocus_u.max() <= 9000
    difference = o.defocus_u - o.defocus_v
    assert difference.min() >= 0
    assert 350 < difference.max() <= 400
    assert (o.of_group("voltage") == 200).all()
    assert float(o.defocus_angle.std()) > 40
    assert o.defocus_u.std() > 200


def test_the_ctf_is_that_of_the_table(density, tmp_path):
    plain = images_of(density, tmp_path / "a", 20, snr=1e8, seed=3, **NO_CTF)
    seen = images_of(density, tmp_path / "b", 20, snr=1e8, seed=3, defocus=(15000.0, 20000.0))
    disc = HalfDisc.build(9)
    ctf = contrast_transfer(read_star(tmp_path / "b" / "truth.star").optics, disc, BOX, PIXEL)
    a, b = pack(plain, disc) * ctf, pack(seen, disc)
    gain = (a * b.conj()).real.sum() / a.abs().square().sum()
    torch.testing.assert_close(b / gain, a, rtol=0, atol=0.02 * float(a.abs().max()))


def test_the_seed_decides_everything(density, tmp_path):
    a, b, c = (images_of(density, tmp_path / str(i), 5, seed=s) for i, s in enumerate((4, 4, 5)))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)
    rows = [rows_of(tmp_path / str(i) / "truth.star") for i in range(3)]
    assert rows[0].equals(rows[1])
    assert not rows[0].equals(rows[2])


def test_the_number_of_chunks_does_not_matter(density, tmp_path, monkeypatch):
    whole = images_of(density, tmp_path / "a", 10, snr=1e8)
    counts = []
    monkeypatch.setattr("cryospin.simulation.images._CHUNK_PIXELS", 4 * BOX * BOX)
    simulate(density, PIXEL, 10, tmp_path / "b", ImagingConditions(snr=1e8), progress=counts.append)
    parts = torch.from_numpy(mrcfile.read(tmp_path / "b" / "particles.mrcs").copy())
    assert counts == [4, 4, 2]
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-3 * float(whole.max()))


def test_no_images_are_refused(density, tmp_path):
    with pytest.raises(InputError, match=r"--n 0 is no number of images\. Give for instance 3000"):
        simulate(density, PIXEL, 0, tmp_path / "none", ImagingConditions())
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("conditions", "says"),
    [
        ({"snr": 0.0}, "--snr 0 is not positive"),
        ({"snr": float("nan")}, "--snr nan is not positive"),
        ({"shift_sd": -1.0}, "--shift-sd -1 is negative"),
        ({"junk": 1.5}, r"--junk 1\.5 is not a fraction"),
        ({"defocus": (2e4, 1e4)}, "--defocus 20000 10000 is not a range"),
        ({"astigmatism": 2e4}, "--astigmatism 20000 does not lie between 0 and the least defocus, 10000"),
    ],
)
def test_conditions_that_nothing_can_be_imaged_with_are_refused(conditions, says):
    with pytest.raises(InputError, match=says):
        ImagingConditions(**conditions)


def test_a_phase_plate_is_in_the_table_and_in_the_ctf(density, tmp_path):
    plain = images_of(density, tmp_path / "a", 20, snr=1e8, seed=3, **NO_CTF)
    seen = images_of(density, tmp_path / "b", 20, snr=1e8, seed=3, phase_shift=70.0)
    assert "rlnPhaseShift" not in rows_of(tmp_path / "a" / "truth.star")
    optics = read_star(tmp_path / "b" / "truth.star").optics
    assert (optics.phase_shift == 70).all()
    disc = HalfDisc.build(9)
    a, b = pack(plain, disc) * contrast_transfer(optics, disc, BOX, PIXEL), pack(seen, disc)
    gain = (a * b.conj()).real.sum() / a.abs().square().sum()
    torch.testing.assert_close(b / gain, a, rtol=0, atol=0.02 * float(a.abs().max()))


def test_beam_tilt_turns_phases_and_nothing_else(density, tmp_path):
    plain = images_of(density, tmp_path / "a", 20, snr=1e8, seed=3)
    tilted = images_of(density, tmp_path / "b", 20, snr=1e8, seed=3, beam_tilt=(60.0, -40.0))
    group = read_star(tmp_path / "b" / "truth.star").optics.groups[0]
    assert group.beam_tilt == (60.0, -40.0)
    disc = HalfDisc.build(9)
    a, b = pack(plain, disc), pack(tilted, disc)
    turned = a * odd_aberration(group, disc, BOX * PIXEL)
    torch.testing.assert_close(b, turned, rtol=0, atol=0.01 * float(a.abs().max()))
    assert float((b - a).abs().max()) > 0.05 * float(a.abs().max())


def test_anisotropic_magnification_stretches_images_and_their_shifts(blobs, density, tmp_path):
    matrix = torch.tensor([[1.08, 0.05], [-0.03, 0.95]], dtype=torch.float64)
    distortion = {"magnification": tuple(matrix.flatten().tolist())}
    images = images_of(density, tmp_path, 4, snr=1e8, shift_sd=0.7, **NO_CTF, **distortion)
    table = read_star(tmp_path / "truth.star")
    assert table.optics.groups[0].magnification == distortion["magnification"]
    k = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    y, x = torch.meshgrid(k, k, indexing="ij")
    # An image frequency m stands for M m of the particle, so a place r in the image is M^-T r of the particle.
    place = torch.stack([x, y], dim=-1) @ torch.linalg.inv(matrix)
    for image, r, t in zip(images, table.poses.rotation, table.poses.shift / PIXEL, strict=True):
        centres = (r @ blobs.position.T).T[:, :2] * BOX + t
        squared = (place[:, :, None] - centres).square().sum(-1) / (blobs.width * BOX) ** 2
        want = (torch.exp(-squared / 2) * blobs.weight / blobs.width**2).sum(-1).float()
        got = image / float((image * want).sum() / want.square().sum())
        torch.testing.assert_close(got, want, rtol=0, atol=0.03 * float(want.max()))


@pytest.mark.skipif(not shutil.which("relion_reconstruct"), reason="relion_reconstruct is not installed")
def test_relion_reconstructs_the_map_from_our_table(density, tmp_path):
    images_of(density, tmp_path, 300, snr=5.0, astigmatism=1500.0)
    command = ["relion_reconstruct", "--i", "truth.star", "--o", "relion.mrc", "--ctf"]
    subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=tmp_path)
    theirs, voxel = read_map(tmp_path / "relion.mrc")
    assert voxel == pytest.approx(PIXEL)
    fsc = fourier_shell_correlation(theirs, density)
    assert float(fsc[1:7].min()) > 0.95
