from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch

from cryospin.findings import Severity
from cryospin.formats.stack import write_stack
from cryospin.particles import ParticleSet
from cryospin.preflight.pixels import look_at_pixels

SAMPLED = np.unique(np.linspace(0, 259, 200).astype(int))
LEFT_OUT = np.setdiff1d(np.arange(260), SAMPLED)


def look(many, **options):
    particles = ParticleSet.load(many.star)
    return look_at_pixels(particles, **options), particles.table.findings


def only(rows, value):
    """Sets whole images to a value."""

    def change(pixels):
        pixels[rows] = value
        return pixels

    return change


def test_normalised_images_of_white_protein_are_called_so(many):
    facts, findings = look(many)
    assert facts.normalised
    assert facts.dark is False
    assert abs(facts.background_mean) < 0.05
    assert facts.background_sd == pytest.approx(1, abs=0.1)
    assert findings == []


@pytest.mark.parametrize(("scale", "offset"), [(1, 5), (3, 0), (0.01, 0), (200, 1500), (1e-6, 1e-6), (1e-25, 0)])
def test_images_that_are_not_normalised_are_called_so(many, scale, offset):
    many.change(lambda pixels: scale * pixels + offset)
    facts, findings = look(many)
    assert not facts.normalised
    assert facts.background_mean == pytest.approx(offset, abs=0.1 * scale)
    assert facts.background_sd == pytest.approx(scale, rel=0.1)
    assert findings == []


def test_dark_protein_is_told_from_white(many):
    many.change(lambda pixels: 100 - 7 * pixels)
    assert look(many)[0].dark is True


def test_noise_does_not_tell_contrast(many):
    generator = np.random.default_rng(3)
    many.change(lambda pixels: generator.normal(size=pixels.shape).astype(np.float32))
    assert look(many)[0].dark is None


def test_a_few_images_do_not_tell_contrast(table):
    assert look_at_pixels(ParticleSet.load(table.star)).dark is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_one_broken_pixel_is_enough(many, value):
    def spoil(pixels):
        pixels[SAMPLED[7], 3, 4] = pixels[SAMPLED[9], 0, 0] = value
        return pixels

    many.change(spoil)
    facts, (finding,) = look(many)
    assert str(finding).endswith(
        f"row {SAMPLED[7] + 1}: the image has NaN or infinite pixels. Remove the particle; the same for 1 more row"
    )
    assert (finding.severity, finding.row, finding.count) == ("error", SAMPLED[7] + 1, 2)
    assert np.isfinite(facts.background_mean)
    assert facts.dark is False


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_a_constant_image_is_named(many, value):
    many.change(only([SAMPLED[3]], value))
    _, (finding,) = look(many)
    assert finding.problem == f"row {SAMPLED[3] + 1}: the image is constant"
    assert finding.severity is Severity.error


@pytest.mark.parametrize("outside", [0.0, 0.7])
def test_an_image_without_noise_about_the_particle_is_named(many, outside):
    y, x = np.mgrid[-10:10, -10:10]

    def mask(pixels):
        pixels[SAMPLED[3]] = np.where(np.hypot(x, y) > 8, outside, pixels[SAMPLED[3]])
        return pixels

    many.change(mask)
    _, (finding,) = look(many)
    assert finding.problem == f"row {SAMPLED[3] + 1}: the image has no noise about the particle: it was masked"
    assert finding.severity is Severity.error


def test_the_second_of_two_equal_images_is_named(many):
    def repeat(pixels):
        pixels[SAMPLED[40]] = pixels[SAMPLED[60]] = pixels[SAMPLED[20]]
        return pixels

    many.change(repeat)
    _, (finding,) = look(many)
    assert finding.problem == f"row {SAMPLED[40] + 1}: the image equals an earlier one, pixel by pixel"
    assert (finding.severity, finding.count) == ("warning", 2)


def test_constant_images_are_not_called_equal_as_well(many):
    many.change(only([3, 5], 0.0))
    assert [f.problem for f in look(many)[1]] == ["row 4: the image is constant"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_set_without_a_good_image_has_no_facts(many, value):
    many.change(only(slice(None), value))
    facts, (finding,) = look(many)
    assert facts is None
    assert finding.row == 1


def test_a_sample_may_miss_what_a_deep_look_finds(many):
    many.change(only([LEFT_OUT[5]], np.nan))
    facts, findings = look(many)
    assert (facts.looked_at, findings) == (200, [])
    facts, (finding,) = look(many, deep=True)
    assert (facts.looked_at, finding.row) == (260, LEFT_OUT[5] + 1)


def test_a_deep_look_counts_every_image_once(many, monkeypatch):
    monkeypatch.setattr("cryospin.preflight.pixels._CHUNK_PIXELS", 100 * 20 * 20)
    done = []
    look(many, deep=True, reading=lambda total: done.append)
    assert done == [100, 100, 60]


def test_images_of_several_boxes_are_looked_at_together(many):
    write_stack(many.folder / "wide.mrcs", torch.randn(1, 28, 28) * 2, 5.0)
    text = many.star.read_text()
    many.star.write_text(text.replace("000260@particles.mrcs", "000001@wide.mrcs"))
    many.change(only([259], np.nan))
    facts, findings = look(many)
    assert facts.looked_at == 200
    assert findings.of(Severity.error) == []


def test_a_stack_that_breaks_while_it_is_read_is_named(many):
    broken = many.folder / "broken.mrcs"
    packed = bytearray(gzip.compress(many.stack.read_bytes()))
    packed[len(packed) // 2 :] = b"\0" * 100
    broken.write_bytes(packed)
    many.edit("000260@particles.mrcs", "000260@broken.mrcs")
    facts, findings = look(many)
    assert facts is None
    (error,) = findings.of(Severity.error)
    assert error.where == broken
    assert "cannot be decompressed" in error.problem
