"""A symmetric particle's axes may stand anywhere in the truth."""

from __future__ import annotations

import numpy as np
import pytest
import tomli_w
import torch

from cryospin.errors import InputError
from cryospin.evaluation.evaluate import errors_of_each, evaluate
from cryospin.formats.table import AssignedPoses
from cryospin.formats.volume import write_map
from cryospin.geometry.rotations import flip_hand, from_relion_angles
from cryospin.geometry.symmetry import point_group
from cryospin.particles import ParticleSet
from cryospin.settings import Settings
from cryospin.simulation import ImagingConditions, simulate

COUNT, BOX, PIXEL = 160, 28, 7.0
GROUP = "D3"
TURN = from_relion_angles(torch.tensor([25.0, 60.0, -40.0]))


@pytest.fixture(scope="module")
def density(blobs):
    """A D3 particle whose axes are those of the group turned by TURN."""
    group = point_group(GROUP).double()
    position = torch.cat([(blobs.position * 1.2 + 0.07) @ g.T for g in group]) @ TURN.T
    return type(blobs)(position, blobs.width.repeat(6), blobs.weight.repeat(6) / 6).density(BOX)


@pytest.fixture(scope="module")
def imaged(tmp_path_factory, density):
    folder = tmp_path_factory.mktemp("imaged")
    simulate(density, PIXEL, COUNT, folder, ImagingConditions(snr=1.0), seed=1)
    return folder


@pytest.fixture
def finished(imaged, density, tmp_path):
    """Writes the folder of a run that found some mate of each true pose, in its own frame."""

    def write(frame, *, flipped=False, **options):
        settings = Settings(particles=imaged / "truth.star", out=tmp_path / "run", **options)
        table = ParticleSet.load(settings.particles).table
        mates = (TURN @ point_group(GROUP).double() @ TURN.T)[torch.arange(COUNT) % 6]
        rotation = table.poses.rotation @ mates @ frame
        settings.out.mkdir()
        found = AssignedPoses(
            flip_hand(rotation) if flipped else rotation,
            table.poses.shift,
            np.arange(COUNT) % 2 + 1,
            np.ones(COUNT),
            np.zeros(COUNT),
        )
        table.source.write(settings.out, table, found)
        write_map(settings.out / "map.mrc", density, PIXEL)
        resolved = {"box": BOX, "mask_diameter_A": 170.0, "max_resolution_A": 15.0, "invert": False}
        (settings.out / "config.toml").write_text(tomli_w.dumps(settings.table() | resolved))
        return settings.out

    return write


def test_axes_are_found_in_the_true_map(imaged, finished):
    run = finished(from_relion_angles(torch.tensor([110.0, 20.0, 5.0])))
    truth = {"truth_map": imaged / "truth.mrc", "truth_poses": imaged / "truth.star"}
    figures = evaluate(run, **truth, symmetry=GROUP)
    assert figures["rotation_error_deg"]["mean"] < 0.5
    assert figures["true_poses_A"]["fsc_0_5"] < 30
    plain = evaluate(run, **truth, ceiling=False)
    assert plain["rotation_error_deg"]["within_5"] < 50, "mates are no errors only modulo the group"
    each = errors_of_each(run, truth["truth_poses"], truth["truth_map"], GROUP)
    assert each.rotation_deg.shape == (COUNT,)
    assert float(each.rotation_deg.max()) < 1


@pytest.mark.parametrize("flipped", [False, True])
def test_a_run_that_imposed_the_group_has_it_along_its_own_axes(imaged, finished, flipped):
    run = finished(TURN, flipped=flipped, symmetry=GROUP)
    figures = evaluate(run, truth_map=imaged / "truth.mrc", truth_poses=imaged / "truth.star", symmetry=GROUP)
    assert figures["rotation_error_deg"]["mean"] < 0.5
    # The true poses are turned so that the group which the run imposed is that of the particle.
    assert figures["true_poses_A"]["fsc_0_5"] < 30


def test_a_group_that_the_truth_has_not_is_refused(imaged, finished):
    with pytest.raises(InputError, match=r"--symmetry O: the true map does not have it.*Give the point group"):
        evaluate(
            finished(TURN), truth_map=imaged / "truth.mrc", truth_poses=imaged / "truth.star", symmetry="O", ceiling=False
        )
