"""Kernels give back what they were lent."""

from __future__ import annotations

import pytest
import torch
from numba.core.runtime import _nrt_python, rtsys

from cryospin.kernels import cpu
from cryospin.volume.accumulated import AccumulatedVolume


def fits(p):
    cpu.fits(p.volume, p.grid, p.observations, p.poses)


def normal_equations(p):
    cpu.normal_equations(p.volume, p.grid, p.observations, p.poses)


def slices_and_back(p):
    rotation = p.poses.rotation.clone().requires_grad_()
    cpu.slices(p.volume, p.grid, rotation, p.observations.disc).abs().sum().backward()


def insertion(p):
    sums = AccumulatedVolume(p.grid)
    sums.add(p.observations, p.poses, torch.ones(len(p.poses.image)))


def insertion_of_values(p):
    sums = AccumulatedVolume(p.grid)
    values = cpu.slices(p.volume, p.grid, p.poses.rotation, p.observations.disc)
    sums.add_slices(p.poses.rotation, p.observations.disc, values, values.abs())


@pytest.fixture
def counted():
    """Numba counts the arrays it holds."""
    _nrt_python.memsys_enable_stats()
    yield
    _nrt_python.memsys_disable_stats()


@pytest.mark.parametrize("use", [fits, normal_equations, slices_and_back, insertion, insertion_of_values])
def test_no_array_is_held_after_a_call(use, problem, counted):
    use(problem)
    before = rtsys.get_allocation_stats()
    use(problem)
    after = rtsys.get_allocation_stats()
    assert after.mi_alloc > before.mi_alloc
    assert after.mi_alloc - before.mi_alloc == after.mi_free - before.mi_free
