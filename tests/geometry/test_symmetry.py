from __future__ import annotations

import pytest
import torch

from cryospin.errors import InputError
from cryospin.geometry.symmetry import point_group

ORDERS = {"C1": 1, "C2": 2, "c3": 3, "C13": 13, "D2": 4, "D7": 14, "T": 12, "O": 24, " I ": 60}


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


@pytest.mark.parametrize("name", ["", "C0", "X3", "I2", "C", "D-1", "C2v"])
def test_unknown_groups_are_refused_with_a_remedy(name):
    with pytest.raises(InputError, match=r"is not a point group.*Give C1") as error:
        point_group(name)
    assert f"--symmetry {name}" in str(error.value)
