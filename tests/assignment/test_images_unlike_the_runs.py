"""Poses for images of another noise, contrast, pixel size or centre than those that the run saw."""

from __future__ import annotations

import shutil
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
import torch
from known_truth import BOX, COUNT, MEASURED, PIXEL

from cryospin.assignment import assign
from cryospin.evaluation.pose_error import pose_errors
from cryospin.formats.star import read_poses
from cryospin.formats.tensors import write_tensors
from cryospin.geometry.rotations import distance_deg
from cryospin.particles import ParticleSet
from cryospin.simulation import ImagingConditions, simulate


def test_noise_of_another_level_leaves_the_poses_as_sure(run, data, tmp_path):
    """As in images of other pixels, whose background was normalised to the same deviation."""
    sure = assign(run, data / "particles.star", tmp_path / "one", proposals="grid")
    louder = tmp_path / "louder"
    shutil.copytree(run, louder)
    noise = MEASURED | {"noise": 3 * MEASURED["noise"]}
    write_tensors(louder / "checkpoints" / "model.safetensors", noise)
    again = assign(louder, data / "particles.star", tmp_path / "two", proposals="grid")
    np.testing.assert_allclose(again.log_likelihood, sure.log_likelihood, rtol=1e-3, atol=0.1)


def test_images_of_lower_contrast_are_no_less_like_the_map(run, particle, tmp_path):
    """Half the signal power of the images that the run saw."""
    simulate(particle.density(BOX), PIXEL, COUNT, tmp_path / "data", ImagingConditions(snr=0.1, shift_sd=1.0), seed=9)
    found = assign(run, tmp_path / "data" / "particles.star", tmp_path / "out", proposals="grid")
    true = read_poses(tmp_path / "data" / "truth.star").rotation
    assert found.contrast == pytest.approx(0.5**0.5, rel=0.05)
    assert found.doubtful <= 0.05 * COUNT
    right = distance_deg(torch.from_numpy(found.poses.rotation), true) < 10
    assert found.poses.confidence.mean() == pytest.approx(float(right.double().mean()), abs=0.05)


@pytest.mark.parametrize("dark", [slice(None, COUNT // 2), slice(None)], ids=["one of two chunks", "all"])
def test_images_of_mixed_contrast_are_turned_over_one_by_one(run, data, tmp_path, monkeypatch, dark):
    """The table says which are dark, of all images or of the run's, and chunks of one sign are no others."""
    monkeypatch.setattr("cryospin.assignment._CHUNK", COUNT // 2)
    usual = assign(run, data / "particles.star", tmp_path / "usual", proposals="grid").poses
    mixed, sign = tmp_path / "mixed", torch.ones(COUNT)
    shutil.copytree(data, mixed)
    sign[dark] = -1
    with mrcfile.mmap(mixed / "particles.mrcs", mode="r+") as handle:
        handle.data[:] *= sign.numpy()[:, None, None]
    load = ParticleSet.load

    def with_signs(*arguments):
        particles = load(*arguments)
        return replace(particles, table=replace(particles.table, sign=sign).without_sign_of_all())

    monkeypatch.setattr(ParticleSet, "load", with_signs)
    signed = tmp_path / "signed"
    shutil.copytree(run, signed)
    (signed / "config.toml").write_text((run / "config.toml").read_text() + "signed = true\n")
    found = assign(signed, mixed / "particles.star", tmp_path / "out", proposals="grid").poses
    torch.testing.assert_close(torch.from_numpy(found.rotation), torch.from_numpy(usual.rotation), rtol=0, atol=1e-3)


def test_the_same_particles_at_another_pixel_size_are_posed_alike(run, data, particle, tmp_path):
    """Images twice as finely sampled, of the same physical size."""
    fine = tmp_path / "fine"
    simulate(particle.density(2 * BOX), PIXEL / 2, COUNT, fine, ImagingConditions(snr=0.05, shift_sd=2.0), seed=4)
    assign(run, fine / "particles.star", tmp_path / "out", proposals="grid")
    own, true = read_poses(tmp_path / "out" / "particles.star"), read_poses(fine / "truth.star")
    errors = pose_errors(own.rotation, own.shift, true.rotation, true.shift)
    assert float((errors.rotation_deg < 10).double().mean()) > 0.9
    assert float(errors.shift.median()) < 0.5 * PIXEL


def test_particles_are_centred_first_where_that_is_asked_for(run, data, tmp_path):
    """The shifts that come out are those of the images as they are."""
    plain, centred = (
        assign(run, data / "truth.star", tmp_path / str(recentre), proposals="grid", recentre=recentre).poses
        for recentre in (False, True)
    )
    difference = np.linalg.norm(plain.shift_A - centred.shift_A, axis=1)
    assert float(np.median(difference)) < 0.05 * PIXEL
    assert float(np.median(np.linalg.norm(plain.shift_A, axis=1))) > PIXEL / 2
