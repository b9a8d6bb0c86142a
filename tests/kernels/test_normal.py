from __future__ import annotations

import pytest
import torch

from cryospin.geometry.rotations import exponential
from cryospin.kernels import cpu, reference
from cryospin.kernels.types import Poses

# torch's forward differentiation compiles its own formulas in a way it has come to warn of.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
BOTH = pytest.mark.parametrize("kernels", [reference, cpu], ids=["reference", "cpu"])


def in_double(problem):
    o = problem.observations
    wide = o._replace(
        images=o.images.to(torch.complex128), ctf=o.ctf.double(), weight=o.weight.double(), scale=o.scale.double()
    )
    poses = problem.poses._replace(rotation=problem.poses.rotation.double(), shift=problem.poses.shift.double())
    return problem.volume.to(torch.complex128), problem.grid, wide, poses


def squared_residual(volume, grid, o, poses):
    model = reference.slices(volume, grid, poses.rotation, o.disc) * o.disc.shift_phase(poses.shift, o.box)
    model = model * o.ctf[poses.image] * o.scale[poses.image, None]
    return (o.weight[o.group[poses.image]] * (o.images[poses.image] - model).abs() ** 2).sum(1)


def test_cpu_equals_reference(problem):
    arguments = (problem.volume, problem.grid, problem.observations, problem.poses)
    want, got = reference.normal_equations(*arguments), cpu.normal_equations(*arguments)
    for name in want._fields:
        a, b = getattr(want, name).double(), getattr(got, name)
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4 * float(a.abs().max()), msg=lambda m, n=name: f"{n}: {m}")


@BOTH
def test_misfit_is_the_squared_residual_less_the_image_power(kernels, problem):
    o, poses = problem.observations, problem.poses
    got = kernels.normal_equations(problem.volume, problem.grid, o, poses).fit.misfit(o.scale[poses.image])
    own = (o.weight[o.group] * o.images.abs() ** 2).sum(1)[poses.image]
    want = squared_residual(problem.volume, problem.grid, o, poses) - own
    torch.testing.assert_close(got.double(), want.double(), rtol=1e-3, atol=1e-2)


@BOTH
def test_misfit_can_be_asked_at_another_contrast(kernels, problem):
    o, poses = problem.observations, problem.poses
    equations = kernels.normal_equations(problem.volume, problem.grid, o, poses)
    other = o._replace(scale=o.scale * 1.7)
    again = kernels.normal_equations(problem.volume, problem.grid, other, poses)
    torch.testing.assert_close(again.cross, equations.cross, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(again.power, equations.power, rtol=1e-4, atol=1e-3)


def test_gradient_is_half_the_finite_difference_of_the_residual(problem):
    volume, grid, o, poses = in_double(problem)
    equations = reference.normal_equations(volume, grid, o, poses)
    fast = cpu.normal_equations(problem.volume, problem.grid, problem.observations, problem.poses)
    step = 1e-7
    for axis in range(5):
        move = torch.zeros(5, dtype=torch.float64)
        move[axis] = step
        values = []
        for sign in (1, -1):
            turned = Poses(poses.image, exponential(sign * move[:3]) @ poses.rotation, poses.shift + sign * move[3:])
            values.append(squared_residual(volume, grid, o, turned))
        slope = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(equations.gradient[:, axis], slope / 2, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(fast.gradient[:, axis], slope / 2, rtol=1e-3, atol=2e-2)


@BOTH
def test_matrix_is_symmetric_and_positive(kernels, problem):
    matrix = kernels.normal_equations(problem.volume, problem.grid, problem.observations, problem.poses).matrix.double()
    torch.testing.assert_close(matrix, matrix.mT, rtol=1e-5, atol=1e-3)
    assert (torch.linalg.eigvalsh(matrix) > 0).all()


def test_matrix_is_the_curvature_where_the_residual_vanishes(problem):
    # With images that the model explains, half the Hessian of the misfit is the Gauss-Newton matrix.
    volume, grid, o, poses = in_double(problem)
    model = reference.slices(volume, grid, poses.rotation, o.disc) * o.disc.shift_phase(poses.shift, o.box)
    model = model * o.ctf[poses.image] * o.scale[poses.image, None]
    perfect = o._replace(images=model, ctf=o.ctf[poses.image], group=o.group[poses.image], scale=o.scale[poses.image])
    own = Poses(torch.arange(len(model)), poses.rotation, poses.shift)
    equations = reference.normal_equations(volume, grid, perfect, own)
    assert equations.gradient.abs().max() < 1e-8
    move = torch.tensor([0.3, -0.5, 0.7, 0.9, -0.4], dtype=torch.float64) * 1e-6
    turned = Poses(own.image, exponential(move[:3]) @ own.rotation, own.shift + move[3:])
    want = squared_residual(volume, grid, perfect, turned)
    torch.testing.assert_close(torch.einsum("i,nij,j->n", move, equations.matrix, move), want, rtol=1e-3, atol=0)
