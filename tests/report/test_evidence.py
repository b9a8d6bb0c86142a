"""What a run writes down for its report is what the images show."""

from __future__ import annotations

import pytest
import torch

from cryospin.errors import InputError
from cryospin.geometry.rotations import random_rotations
from cryospin.report.evidence import EVIDENCE, read_evidence
from cryospin.report.views import distant_views

JUNK = (3, 77, 150)


@pytest.fixture(scope="module")
def evidence(written):
    return read_evidence(written.folder)


def test_images_of_noise_are_the_most_doubtful(evidence):
    assert sorted(evidence["thumbnail_row"][: len(JUNK)].tolist()) == list(JUNK)
    shortfall = evidence["shortfall"]
    assert float(shortfall[list(JUNK)].min()) > 2 * float(shortfall.quantile(0.98))


def test_typical_thumbnails_look_like_their_prediction_and_junk_does_not(evidence):
    image, expected = (evidence[f"thumbnail_{kind}"].float().flatten(1) for kind in ("image", "expected"))
    # Both have mean 0 and variance 1.
    match = (image * expected).mean(1)
    assert float(match[-4:].min()) > 0.6
    assert float(match[: len(JUNK)].max()) < 0.5


def test_averages_match_their_projections_and_no_others(evidence):
    projection, average = (evidence[f"view_{kind}"].float().flatten(1) for kind in ("projection", "average"))
    match = projection @ average.T / projection.shape[1]
    assert float(match.diagonal().min()) > 0.85
    assert (match.argmax(1) == torch.arange(len(match))).all()
    assert torch.allclose(match.diagonal(), evidence["view_correlation"], atol=0.02)
    assert (evidence["view_count"] >= 10).all()


def test_views_are_far_from_each_other(generator):
    beams = random_rotations(500, generator)[:, 2]
    chosen = beams[distant_views(beams, 6)]
    near = (chosen @ chosen.T).abs().fill_diagonal_(0)
    # Six axes through the vertices of an icosahedron are 63 degrees from each other; no six are farther.
    assert 40 < float(torch.rad2deg(near.max().acos())) < 63.5


def test_there_are_no_more_views_than_particles(generator):
    assert len(distant_views(random_rotations(4, generator)[:, 2])) == 4


def test_errors_of_heads_are_angles_between_views(evidence, written):
    errors = evidence["head_error_deg"]
    assert errors.shape == (len(written.problem), 7)
    assert float(errors.min()) >= 0
    assert float(errors.max()) <= 180
    heads = written.refinement.proposers[0].heads
    seen = written.refinement.sets.observations(written.problem.last_shell)
    guess = heads.propose(seen).rotation.unflatten(0, (-1, 7))[:, 2]
    right = written.refinement.modes.best().poses.rotation
    angle = torch.rad2deg((guess[:, 2] * right[:, 2]).sum(-1).clamp(-1, 1).acos())
    assert torch.allclose(angle, errors[:, 2], atol=0.1)


def test_damaged_evidence_is_named(written, tmp_path):
    run = written.copy(tmp_path / "run")
    (run / EVIDENCE).write_bytes(b"not what it should be")
    with pytest.raises(InputError, match=r"evidence\.safetensors: cannot be read"):
        read_evidence(run)
