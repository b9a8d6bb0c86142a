from __future__ import annotations

import pytest
import torch

from cryospin.kernels import cpu, reference
from cryospin.kernels.types import Fit


def test_cpu_equals_reference(problem):
    arguments = (problem.volume, problem.grid, problem.observations, problem.poses)
    want, got = reference.fits(*arguments), cpu.fits(*arguments)
    for a, b in zip(want, got, strict=True):
        torch.testing.assert_close(b, a.double(), rtol=1e-3, atol=1e-4 * float(a.abs().max()))


def test_it_is_what_the_normal_equations_say(problem):
    arguments = (problem.volume, problem.grid, problem.observations, problem.poses)
    alone, along = cpu.fits(*arguments), cpu.normal_equations(*arguments).fit
    torch.testing.assert_close(alone.cross.double(), along.cross.double(), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(alone.power.double(), along.power.double(), rtol=1e-4, atol=1e-2)


def test_contrast_deviates_in_units_of_its_standard_error():
    power = torch.full((5,), 50.0, dtype=torch.float64)
    contrast = torch.tensor([1.0, 1.0, 1.0, 1.3, 0.8], dtype=torch.float64)
    got = Fit(contrast * power, power).contrast_deviation()
    assert got.tolist() == pytest.approx([0, 0, 0, 3, -2])
