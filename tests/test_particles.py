from __future__ import annotations

from dataclasses import replace

import mrcfile
import numpy as np
import pytest
import starfile
import torch

from cryospin.errors import InputError
from cryospin.formats.stack import write_stack
from cryospin.formats.star import read_poses
from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.kernels import cpu
from cryospin.optics import contrast_transfer
from cryospin.particles import ParticleSet
from cryospin.selection import Selection
from cryospin.simulation import ImagingConditions, simulate


def load(table) -> ParticleSet:
    return ParticleSet.load(table.star)


def of_box(particles, side):
    """The set as if its images had another box."""
    stacks = [replace(stack, box=side) for stack in particles.images.stacks]
    return replace(particles, images=replace(particles.images, stacks=stacks))


def set_pixels(table, image, value):
    with mrcfile.mmap(table.stack, mode="r+") as handle:
        handle.data[image] = value


def test_sizes_are_those_of_the_files(table):
    particles = load(table)
    assert len(particles) == 12
    assert particles.box == 24
    assert particles.pixel_size == 6.0
    assert particles.size_angstrom == 144.0


def test_packed_images_are_the_model_at_the_true_poses(simulated, blobs):
    packed = ParticleSet.load(simulated / "particles.star").pack(24)
    o, disc = packed.observations, packed.observations.disc
    assert packed.pixel_size == 6.0
    assert not packed.inverted
    truth = read_poses(simulated / "truth.star")
    grid = FourierGrid(11)
    model = cpu.slices(map_to_grid(blobs.density(24), grid), grid, truth.rotation.float(), disc)
    model *= o.ctf * disc.shift_phase((truth.shift / 6.0).float(), o.box)
    low = (disc.shell > 0) & (disc.shell <= 6)
    cross = (o.images * model.conj()).real[:, low].sum(1)
    power = o.images.abs()[:, low].square().sum(1) * model.abs()[:, low].square().sum(1)
    assert float((cross / power.sqrt()).min()) > 0.95
    torch.testing.assert_close(
        o.ctf, contrast_transfer(ParticleSet.load(simulated / "particles.star").table.optics, disc, 24, 6.0)
    )
    assert (o.weight == 1).all()
    assert (o.scale == 1).all()


def test_the_background_has_mean_zero_and_variance_one(table):
    g = torch.Generator().manual_seed(0)
    write_stack(table.stack, 7 + 3 * torch.randn(12, 24, 24, generator=g), 6.0)
    o = load(table).pack(24, invert=False).observations
    noise = o.images[:, 1:].abs().square().mean()
    assert float(noise) == pytest.approx(1, abs=0.15)
    assert float(o.images[:, 0].abs().max()) < 7


def test_a_larger_box_is_cropped_to_the_same_transform(table):
    particles = load(table)
    full, cropped = particles.pack(24).observations, particles.pack(16)
    assert cropped.observations.box == 16
    assert cropped.pixel_size == pytest.approx(9.0)
    disc = cropped.observations.disc
    assert disc.radius == 7
    count = full.disc.count(7)
    assert torch.equal(cropped.observations.images, full.images[:, :count])
    torch.testing.assert_close(cropped.observations.ctf, full.ctf[:, :count], rtol=0, atol=1e-5)


def test_cropping_moves_shifts_to_the_new_pixels(simulated, blobs):
    particles = ParticleSet.load(simulated / "truth.star")
    packed = particles.pack(16)
    o, poses = packed.observations, particles.table.poses
    grid = FourierGrid(7)
    model = cpu.slices(map_to_grid(blobs.density(24), grid), grid, poses.rotation.float(), o.disc)
    model *= o.ctf * o.disc.shift_phase((poses.shift / packed.pixel_size).float(), o.box)
    cross = (o.images * model.conj()).real[:, 1:].sum(1)
    power = o.images.abs()[:, 1:].square().sum(1) * model.abs()[:, 1:].square().sum(1)
    assert float((cross / power.sqrt()).min()) > 0.9


def test_dark_protein_is_noticed_and_inverted(table):
    upright = load(table).pack(24)
    with mrcfile.mmap(table.stack, mode="r+") as handle:
        handle.data[:] = 50 - 2 * handle.data
    dark = load(table).pack(24)
    assert (upright.inverted, dark.inverted) == (False, True)
    torch.testing.assert_close(dark.observations.images, upright.observations.images, rtol=1e-3, atol=1e-3)
    kept = load(table).pack(24, invert=False)
    assert not kept.inverted
    torch.testing.assert_close(kept.observations.images, -dark.observations.images)
    assert load(table).pack(24, invert=True).inverted


def test_contrast_is_told_in_noisy_images(tmp_path, blobs):
    simulate(blobs.density(24), 6.0, 200, tmp_path, ImagingConditions(snr=0.05), seed=2)
    assert not ParticleSet.load(tmp_path / "particles.star").pack(24).inverted
    with mrcfile.mmap(tmp_path / "particles.mrcs", mode="r+") as handle:
        handle.data[:] *= -1
    assert ParticleSet.load(tmp_path / "particles.star").pack(24).inverted


def test_images_are_read_in_chunks_without_a_seam(table, monkeypatch):
    whole = load(table).pack(24).observations.images
    done = []
    monkeypatch.setattr("cryospin.packing._CHUNK_PIXELS", 5 * 24 * 24)
    parts = load(table).pack(24, progress=done.append).observations.images
    torch.testing.assert_close(parts, whole)
    assert done == [5, 5, 2]


def test_rows_keep_their_own_images(table):
    table.column("rlnImageName", 0, "000005@particles.mrcs")
    table.column("rlnImageName", 4, "000001@particles.mrcs")
    swapped = load(table).pack(24).observations.images
    table.column("rlnImageName", 0, "000001@particles.mrcs")
    table.column("rlnImageName", 4, "000005@particles.mrcs")
    plain = load(table).pack(24).observations.images
    torch.testing.assert_close(swapped[[4, 1, 2, 3, 0]], plain[:5])
    assert not torch.equal(swapped[0], plain[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
def test_broken_pixels_are_named(table, value):
    with mrcfile.mmap(table.stack, mode="r+") as handle:
        handle.data[7, 3, 3] = value
    table.column("rlnImageName", 2, "000008@particles.mrcs")
    with pytest.raises(
        InputError, match=r"image 8 \(row 3 of particles\.star\) has NaN or infinite pixels\. Remove"
    ) as error:
        load(table).pack(24)
    assert str(error.value).startswith(str(table.stack))


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567])
def test_constant_images_are_named(table, value):
    set_pixels(table, 4, value)
    with pytest.raises(InputError, match=r"image 5 \(row 5 of particles\.star\) has no contrast\. Remove the particle"):
        load(table).pack(24)


@pytest.mark.parametrize("outside", [0.0, 3.5])
def test_images_without_noise_about_the_particle_are_named(table, outside):
    y, x = np.mgrid[-12:12, -12:12]
    with mrcfile.mmap(table.stack, mode="r+") as handle:
        handle.data[6, np.hypot(x, y) > 10] = outside
    with pytest.raises(InputError, match=r"image 7 \(row 7 of particles\.star\) has no noise about.* without a mask"):
        load(table).pack(24)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e12])
def test_the_scale_of_the_pixels_does_not_matter(table, scale):
    plain = load(table).pack(24)
    with mrcfile.mmap(table.stack, mode="r+") as handle:
        handle.data[:] *= np.float32(scale)
    torch.testing.assert_close(load(table).pack(24).observations.images, plain.observations.images, rtol=1e-4, atol=1e-4)


def test_stacks_are_checked_on_loading(table):
    table.column("rlnImageName", 3, "000013@particles.mrcs")
    with pytest.raises(InputError, match=r"row 4 asks for image 13 of particles\.mrcs, which holds 12"):
        load(table)
    table.stack.unlink()
    with pytest.raises(InputError, match=r"stack particles\.mrcs not found \(looked in .*--datadir"):
        load(table)


def test_datadir_is_where_stacks_are(table):
    other = table.folder / "disk"
    other.mkdir()
    table.stack.rename(other / "particles.mrcs")
    assert len(ParticleSet.load(table.star, other)) == 12


def test_tiny_images_are_refused(table):
    write_stack(table.stack, torch.randn(12, 12, 12), 6.0)
    with pytest.raises(InputError, match="12 pixels are too small"):
        load(table)


def test_working_box_is_even_and_within_the_images(table):
    particles = load(table)
    assert particles.working_box() == 24
    assert particles.working_box(16) == 16
    assert of_box(particles, 25).working_box() == 24
    assert of_box(particles, 300).working_box() == 128
    for box in (26, 17, 14, 0):
        with pytest.raises(
            InputError, match=rf"--box {box} does not fit images of 24 pixels\. Give an even number from 16 to 24"
        ):
            particles.working_box(box)


def test_observations_are_complete(table):
    o = load(table).pack(20).observations
    disc = HalfDisc.build(9)
    assert o.images.shape == o.ctf.shape == (12, len(disc))
    assert o.images.dtype == torch.complex64
    assert o.group.tolist() == [0] * 12


def signed(particles, *sign):
    column = torch.tensor(sign, dtype=torch.float32).repeat(6)
    return replace(particles, table=replace(particles.table, sign=column).without_sign_of_all())


def test_particles_of_mixed_sign_come_out_alike(table):
    plain = load(table).pack(24)
    with mrcfile.mmap(table.stack, mode="r+") as handle:
        handle.data[1::2] *= -1
    packed = signed(load(table), 1, -1).pack(24)
    torch.testing.assert_close(packed.observations.images, plain.observations.images)
    assert not packed.inverted
    dark = signed(load(table), -1, 1).pack(24)
    assert dark.inverted
    torch.testing.assert_close(dark.observations.images, plain.observations.images)


def test_a_sign_that_all_share_is_left_to_the_images(table):
    plain = load(table).pack(24)
    packed = signed(load(table), -1, -1).pack(24)
    assert not packed.inverted
    assert torch.equal(packed.observations.images, plain.observations.images)


def test_some_of_the_particles_of_mixed_sign_are_turned_over_as_all_are(table):
    whole = signed(load(table), 1, -1)
    some = whole.take(np.arange(1, 12, 2))
    all_of_them = whole.pack(24, invert=False).observations.images
    assert torch.equal(some.pack(24, invert=False).observations.images, all_of_them[1::2])


def test_boxes_beyond_what_kernels_can_count_are_refused(table):
    large = of_box(load(table), 1024)
    assert large.working_box(640) == 640
    with pytest.raises(InputError, match=r"--box 700 is larger than any run can use\. Give an even number from 16 to 640"):
        large.working_box(700)


def test_how_clear_the_contrast_is_goes_with_the_images(table):
    whole = load(table)
    assert whole.pack(24, invert=False).darkness is None
    assert whole.pack(24).darkness == pytest.approx(whole.darkness(24))


def test_selected_particles_are_those_of_the_whole_set(simulated, tmp_path):
    star, index = simulated / "truth.star", tmp_path / "rows.txt"
    index.write_text("9\n2\n5\n")
    whole = ParticleSet.load(star)
    images = whole.pack(24).observations.images
    for selection, rows in ((Selection(first=5), [0, 1, 2, 3, 4]), (Selection(index=index), [2, 5, 9])):
        some = ParticleSet.load(star, selection=selection)
        assert some.table.rows.tolist() == rows
        torch.testing.assert_close(some.pack(24).observations.images, images[rows])
        torch.testing.assert_close(some.pack(24).observations.ctf, whole.pack(24).observations.ctf[rows])
        assert torch.equal(some.table.poses.rotation, whole.table.poses.rotation[rows])
        assert torch.equal(some.table.shift, whole.table.shift[rows])


def test_broken_images_are_named_by_their_row_in_the_file(table):
    set_pixels(table, 9, np.nan)
    index = table.folder / "rows.txt"
    index.write_text("1\n9\n")
    with pytest.raises(InputError, match=r"image 10 \(row 10 of particles\.star\) has NaN"):
        ParticleSet.load(table.star, selection=Selection(index=index)).pack(24)


def test_stacks_of_particles_left_out_may_be_missing(table):
    table.column("rlnImageName", 11, "000001@elsewhere.mrcs")
    with pytest.raises(InputError, match=r"elsewhere\.mrcs not found"):
        load(table)
    assert len(ParticleSet.load(table.star, selection=Selection(first=11)).pack(24).observations.images) == 11


def test_loading_names_the_first_problem_and_counts_the_others(table):
    table.column("rlnImageName", 3, "000013@particles.mrcs")
    table.column("rlnDefocusU", 5, "much")
    with pytest.raises(InputError, match=r"row 6 .* rlnDefocusU is 'much', not a number\. .*check lists 1 more$") as e:
        load(table)
    assert e.value.where == table.star


def test_poses_that_are_not_used_may_be_broken(simulated, tmp_path):
    star = (simulated / "truth.star").read_text()
    row = next(line for line in star.splitlines() if "000004@" in line)
    table = starfile.read(simulated / "truth.star", always_dict=True)
    for name in ("rlnAngleRot", "rlnOriginXAngst"):
        value = f"{table['particles'][name][3]:.6f}"
        broken = tmp_path / f"{name}.star"
        assert row.split().count(value) == 1
        broken.write_text(star.replace(row, row.replace(value, "nan")))
        particles = ParticleSet.load(broken, datadir=simulated)
        (finding,) = (f for f in particles.table.findings if f.column == name)
        assert (finding.severity, finding.row) == ("warning", 4)
        assert "Poses of the table are not used" in finding.remedy
        whole = ParticleSet.load(simulated / "truth.star").pack(24).observations.images
        assert torch.equal(particles.pack(24).observations.images, whole)
        with pytest.raises(InputError, match=rf"{name} is 'nan', not a number, and --recentre needs it"):
            particles.pack(24, recentre=True)


def test_a_hollow_particle_that_fills_the_box_is_not_taken_for_dark(tmp_path):
    k = (torch.arange(32) - 16).float()
    distance = (k[:, None, None] ** 2 + k[None, :, None] ** 2 + k**2).sqrt()
    lopsided = 1 + 0.5 * (k[:, None, None] > 3)
    shell = torch.exp(-(((distance - 11) / 2) ** 2)) * lopsided
    simulate(shell, 6.0, 200, tmp_path, ImagingConditions(snr=1.0, shift_sd=0.5), seed=1)
    particles = ParticleSet.load(tmp_path / "particles.star")
    assert not particles.pack(32).inverted
