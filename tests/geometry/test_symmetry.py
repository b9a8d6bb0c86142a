from __future__ import annotations

import shutil
import subprocess

import pytest
import torch

from cryospin.errors import InputError
from cryospin.geometry.rotations import distance_deg, exponential, random_rotations, to_relion_angles
from cryospin.geometry.symmetry import distance_modulo_deg, in_asymmetric_unit, nearest_mate, point_group

ORDERS = {"C1": 1, "C2": 2, "c3": 3, "C13": 13, "D2": 4, "D7": 14, "T": 12, "O": 24, " I ": 60, "I1": 60, "i3": 60, "I4": 60}


def apart(a, b):
    return torch.cdist(a.double().flatten(1), b.double().flatten(1))


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_point_groups_are_groups(name, order):
    group = point_group(name)
    assert group.shape == (order, 3, 3)
    assert group.dtype == torch.float32
    torch.testing.assert_close(group[0], torch.eye(3))
    torch.testing.assert_close(torch.linalg.det(group), torch.ones(order), rtol=0, atol=1e-5)
    products = (group[:, None] @ group).flatten(0, 1)
    assert float(apart(products, group).amin(1).max()) < 1e-4, "a product is not in the group"
    assert (apart(group, group) < 1e-3).sum() == order, "an element occurs twice"


@pytest.mark.parametrize("name", ["C4", "D3"])
def test_the_main_axis_is_z(name):
    z = torch.tensor([0.0, 0.0, 1.0])
    images = point_group(name) @ z
    torch.testing.assert_close(images[:, 2].abs(), torch.ones(len(images)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["", "C0", "X3", "I5", "C", "D-1", "C2v", "auto", "C1000"])
def test_unknown_groups_are_refused_with_a_remedy(name):
    with pytest.raises(InputError, match=r"is not a point group.*Give C1") as error:
        point_group(name)
    assert f"--symmetry {name}" in str(error.value)


def about(axis, degrees):
    direction = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    return exponential(torch.deg2rad(torch.tensor(float(degrees))) * direction).float()


GOLDEN = (1 + 5**0.5) / 2
AXES = [
    ("D5", (1, 0, 0), 180),
    ("T", (0, 0, 1), 120),
    ("T", (0, 2**0.5, 1), 180),
    ("O", (1, 0, 0), 90),
    ("O", (1, 1, 1), 120),
    ("I", (0, 1, 0), 180),
    ("I", (1, 0, GOLDEN), 72),
    ("I1", (GOLDEN, 0, -1), 72),
    ("I2", (0, 1, GOLDEN**2), 120),
    ("I3", (0, 0, 1), 72),
    ("I3", (-1, 0, GOLDEN), 180),
    ("I4", (1, 0, GOLDEN), 180),
]


@pytest.mark.parametrize(("name", "axis", "degrees"), AXES)
def test_axes_stand_where_they_are_said_to(name, axis, degrees):
    assert float(distance_deg(point_group(name), about(axis, degrees)).min()) < 0.05


@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="RELION is not installed")
@pytest.mark.parametrize("name", ["C3", "C7", "D2", "D3", "D7", "T", "O", "I", "I1", "I2", "I3", "I4"])
def test_relion_has_the_same_rotations(name):
    command = ["relion_refine", "--sym", name, "--print_symmetry_ops"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [[line.split() for line in part.splitlines()[1:4]] for part in said.split("R(")[1:]]
    theirs, ours = torch.tensor([[[float(x) for x in r] for r in m] for m in rows]), point_group(name)
    assert len(theirs) == len(ours)
    assert float(apart(theirs, ours).amin(1).max()) < 1e-3
    assert float(apart(theirs, ours).amin(0).max()) < 1e-3


@pytest.mark.parametrize("name", ["C1", "C5", "D2", "D7", "T", "O", "I", "I1", "I3", "I4"])
def test_mates_have_one_pose_in_the_asymmetric_unit(name, generator):
    group, poses = point_group(name), random_rotations(200, generator)
    mates = poses @ group[torch.randint(len(group), (200,), generator=generator)]
    unit = in_asymmetric_unit(poses, group)
    torch.testing.assert_close(in_asymmetric_unit(mates, group), unit, rtol=0, atol=1e-5)
    assert float(distance_modulo_deg(unit, poses, group).max()) < 0.1
    torch.testing.assert_close(in_asymmetric_unit(unit, group), unit)


@pytest.mark.parametrize(("name", "rot", "tilt"), [("C4", 45, 180), ("D3", 60, 90), ("D7", 180 / 7, 90)])
def test_the_asymmetric_unit_is_a_wedge(name, rot, tilt, generator):
    angles = to_relion_angles(in_asymmetric_unit(random_rotations(2000, generator), point_group(name)))
    assert float(angles[:, 0].abs().max()) == pytest.approx(rot, rel=0.02)
    assert float(angles[:, 1].max()) <= tilt + 0.01


def test_distances_are_taken_to_the_nearest_mate(generator):
    group, poses = point_group("O"), random_rotations(50, generator)
    near = poses @ about((1, 2, 3), 4)
    mates = near @ group[torch.randint(24, (50,), generator=generator)]
    torch.testing.assert_close(distance_modulo_deg(poses, mates, group), torch.full((50,), 4.0).double(), rtol=0, atol=0.05)
    torch.testing.assert_close(nearest_mate(mates, poses, group), near, rtol=0, atol=1e-5)
