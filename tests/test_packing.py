"""Images taken under other conditions come to the same coefficients."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from cryospin.errors import InputError
from cryospin.formats.new_star import VERSION, image_columns, optics_columns
from cryospin.formats.star_text import star_file
from cryospin.formats.table import ImageNames
from cryospin.optics import Optics, odd_aberration
from cryospin.particles import ParticleSet
from cryospin.simulation import ImagingConditions, simulate

CLEAR = {"snr": 1e4, "defocus": (8000.0, 9000.0)}
TILT = {"beam_tilt": (50.0, -60.0)}
STRETCH = {"magnification": (1.08, 0.06, -0.04, 0.93)}


@pytest.fixture
def imaged(tmp_path, blobs):
    """Simulates the same particles under other conditions, and loads them with their poses."""
    density = replace(blobs, width=0.6 * blobs.width)

    def image(name, box=24, pixel_size=6.0, count=12, **conditions):
        conditions = ImagingConditions(**CLEAR | conditions)
        simulate(density.density(box), pixel_size, count, tmp_path / name, conditions, seed=4)
        return ParticleSet.load(tmp_path / name / "truth.star")

    return image


def likeness(a, b, radius=9):
    """The least correlation of two particles' coefficients; a constant in the images does not count."""
    a, b = (x.observations.images[:, 1 : x.observations.disc.count(radius)] for x in (a, b))
    return float(((a * b.conj()).real.sum(1) / (a.norm(dim=1) * b.norm(dim=1))).min())


def kept_quiet(particles, **fields):
    """The set as if its table did not know of an aberration."""
    optics = particles.table.optics
    groups = tuple(replace(g, **fields) for g in optics.groups)
    return replace(particles, table=replace(particles.table, optics=replace(optics, groups=groups)))


def test_beam_tilt_is_undone(imaged):
    straight, tilted = imaged("straight").pack(24), imaged("tilted", **TILT)
    assert likeness(tilted.pack(24), straight) > 0.999
    assert likeness(kept_quiet(tilted, beam_tilt=(0.0, 0.0)).pack(24), straight) < 0.99


def test_odd_aberrations_are_taken_off_at_any_box(imaged):
    plain = imaged("plain")
    waved = kept_quiet(plain, odd_zernike=(1.0, -2.0, 30.0))
    full, cropped = waved.pack(24).observations, waved.pack(16).observations
    assert torch.equal(full.images[:, : len(cropped.disc)], cropped.images)
    aberration = odd_aberration(waved.table.optics.groups[0], full.disc, 144.0)
    torch.testing.assert_close(full.images * aberration, plain.pack(24).observations.images)


def test_anisotropic_magnification_is_undone(imaged):
    round_, stretched = imaged("round").pack(24), imaged("stretched", **STRETCH)
    assert likeness(stretched.pack(24), round_) > 0.99
    assert likeness(kept_quiet(stretched, magnification=(1.0, 0.0, 0.0, 1.0)).pack(24), round_) < 0.9
    torch.testing.assert_close(stretched.pack(24).observations.ctf, round_.observations.ctf)


def test_tilt_and_magnification_are_undone_together(imaged):
    plain, both = imaged("plain").pack(24), imaged("both", **TILT, **STRETCH)
    assert likeness(both.pack(24), plain) > 0.99
    assert likeness(kept_quiet(both, beam_tilt=(0.0, 0.0)).pack(24), plain) < 0.98


@pytest.mark.parametrize("conditions", [{}, STRETCH, TILT | STRETCH], ids=["plain", "stretched", "stretched and tilted"])
def test_recentred_images_are_those_of_centred_particles(imaged, conditions):
    centred, shifted = imaged("centred", shift_sd=0.0).pack(24), imaged("shifted", shift_sd=1.5, **conditions)
    packed = shifted.pack(24, recentre=True)
    assert likeness(packed, centred) > 0.99
    assert likeness(shifted.pack(24), centred) < 0.8
    assert torch.equal(packed.centre, shifted.table.poses.shift)
    assert float(packed.centre.std()) == pytest.approx(1.5 * 6.0, rel=0.3)


def test_recentring_is_the_same_at_a_smaller_box(imaged):
    shifted = imaged("shifted")
    full, cropped = shifted.pack(24, recentre=True).observations, shifted.pack(16, recentre=True).observations
    torch.testing.assert_close(full.images[:, : len(cropped.disc)], cropped.images)


def test_without_shifts_there_is_nothing_to_recentre_by(simulated):
    with pytest.raises(InputError, match=r"particles\.star: has no shifts to centre the particles by\. Drop --recentre"):
        ParticleSet.load(simulated / "particles.star").pack(24, recentre=True)


def test_particles_that_are_not_recentred_have_no_centre(imaged):
    assert not imaged("shifted").pack(24).centre.any()


def mixed(folder, *sets):
    """One table of several sets, an optics group each, their rows taking turns."""
    count = len(sets[0])
    tables = [s.table for s in sets]
    turn = torch.arange(count * len(sets)).reshape(len(sets), count).T.flatten()
    columns = {f.name: torch.cat([getattr(t.optics, f.name) for t in tables])[turn] for f in fields(Optics)[:-2]}
    group = torch.arange(len(sets)).repeat(count)
    optics = Optics(**columns, group=group, groups=tuple(t.optics.groups[0] for t in tables))
    files = tuple(f"{t.path.parent.name}/particles.mrcs" for t in tables)
    names = ImageNames(files, group.numpy(), torch.arange(count).repeat_interleave(len(sets)).numpy())
    rows = image_columns(replace(tables[0], images=names, optics=optics))
    star = folder / "mixed.star"
    star_file(star, {"optics": optics_columns(optics.groups), "particles": rows}, VERSION).write(star)
    return ParticleSet.load(star)


def test_images_of_two_pixel_sizes_come_to_one_lattice(imaged, tmp_path):
    coarse, fine = imaged("coarse"), imaged("fine", box=36, pixel_size=4.0, shift_sd=2.25)
    both = mixed(tmp_path, coarse, fine)
    assert (both.box, both.size_angstrom, both.pixel_size, both.working_box()) == (24, 144.0, 6.0, 24)
    packed, alone = both.pack(24), coarse.pack(24)
    assert torch.equal(packed.observations.images[::2], alone.observations.images)
    torch.testing.assert_close(packed.observations.ctf[1::2], packed.observations.ctf[::2], rtol=0, atol=1e-4)
    assert likeness(part(packed, 1), alone) > 0.999
    assert [f.severity for f in both.table.findings] == ["warning", "note"]
    assert "2 box sizes and 2 pixel sizes; they are brought to one box of 144.0 Å" in both.table.findings[1].problem


def part(packed, turn):
    """Every other particle."""
    o = packed.observations
    return replace(packed, observations=o._replace(images=o.images[turn::2], ctf=o.ctf[turn::2]))


def test_the_same_dose_gives_the_same_contrast_at_any_pixel_size(imaged, tmp_path):
    coarse = imaged("coarse", snr=1.0, count=200)
    fine = imaged("fine", box=36, pixel_size=4.0, shift_sd=2.25, snr=(4 / 6) ** 2, count=200)
    o = mixed(tmp_path, coarse, fine).pack(24).observations
    a, b = o.images[::2, 1 : o.disc.count(5)], o.images[1::2, 1 : o.disc.count(5)]
    assert float(a.norm() / b.norm()) == pytest.approx(1, abs=0.01)
    assert float(o.images[1::2, o.disc.count(9) :].abs().square().mean()) == pytest.approx(1, abs=0.06)


def test_images_of_two_physical_boxes_come_to_one_lattice(imaged, blobs, tmp_path):
    narrow = replace(blobs, position=0.75 * blobs.position, width=0.45 * blobs.width)
    conditions = ImagingConditions(**CLEAR)
    simulate(narrow.density(32), 6.0, 12, tmp_path / "wide", conditions, seed=4)
    small, wide = imaged("small", **TILT), ParticleSet.load(tmp_path / "wide" / "truth.star")
    both = mixed(tmp_path, wide, small)
    assert (both.box, both.size_angstrom, both.pixel_size) == (32, 192.0, 6.0)
    packed = both.pack(32)
    assert torch.equal(packed.observations.images[::2], wide.pack(32).observations.images)
    assert likeness(part(packed, 1), part(packed, 0), radius=12) > 0.95


def test_some_of_a_mixed_set_are_packed_as_in_all_of_it(imaged, blobs, tmp_path):
    simulate(blobs.density(32), 6.0, 12, tmp_path / "wide", ImagingConditions(**CLEAR), seed=4)
    both = mixed(tmp_path, ParticleSet.load(tmp_path / "wide" / "truth.star"), imaged("small"))
    small = np.arange(1, 24, 2)
    some, all_of_them = both.take(small).pack(24).observations, both.pack(24).observations
    assert torch.equal(some.images, all_of_them.images[1::2])
    assert torch.equal(some.ctf, all_of_them.ctf[1::2])


def test_a_mixed_set_of_odd_boxes_has_a_lattice(imaged, tmp_path):
    both = mixed(tmp_path, imaged("a", box=26, pixel_size=5.5), imaged("b", box=24, pixel_size=6.1))
    assert both.size_angstrom == pytest.approx(146.4)
    assert both.box == 24
    packed = both.pack(both.working_box())
    assert torch.isfinite(packed.observations.images.abs()).all()
    assert packed.pixel_size == pytest.approx(6.1)
