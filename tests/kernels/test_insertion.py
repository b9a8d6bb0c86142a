from __future__ import annotations

import pytest
import torch

from cryospin.kernels import cpu, reference

BOTH = pytest.mark.parametrize("kernels", [reference, cpu], ids=["reference", "cpu"])


def sums(grid):
    return torch.zeros(grid.shape, dtype=torch.complex64), torch.zeros(grid.shape)


def random_slices(problem, seed=4):
    g = torch.Generator().manual_seed(seed)
    shape = len(problem.rotations), len(problem.disc)
    return torch.randn(shape, generator=g, dtype=torch.complex64), torch.rand(shape, generator=g)


@BOTH
def test_inserting_values_is_the_adjoint_of_slicing(kernels, problem):
    values, weights = random_slices(problem)
    numerator, denominator = sums(problem.grid)
    kernels.insert_values(numerator, denominator, problem.grid, problem.rotations, problem.disc, values, weights)
    cut = kernels.slices(problem.volume, problem.grid, problem.rotations, problem.disc)
    # The real inner product: slicing conjugates half of its points, which is linear over the reals only.
    left = (cut.conj() * values).real.double().sum()
    right = (problem.volume.conj() * numerator).real.double().sum()
    assert float(left) == pytest.approx(float(right), rel=1e-4)
    ones = kernels.slices(torch.ones_like(problem.volume), problem.grid, problem.rotations, problem.disc).real
    assert float(denominator.double().sum()) == pytest.approx(float((ones * weights).double().sum()), rel=1e-5)


@BOTH
def test_trilinear_weights_add_up_to_one(kernels, problem):
    values, weights = random_slices(problem)
    numerator, denominator = sums(problem.grid)
    kernels.insert_values(numerator, denominator, problem.grid, problem.rotations, problem.disc, values, weights)
    assert float(denominator.sum()) == pytest.approx(float(weights.sum()), rel=1e-5)
    assert (denominator >= 0).all()


def test_cpu_insert_values_equals_reference(problem):
    values, weights = random_slices(problem)
    (a, b), (c, d) = sums(problem.grid), sums(problem.grid)
    arguments = (problem.grid, problem.rotations, problem.disc, values, weights)
    reference.insert_values(a, b, *arguments)
    cpu.insert_values(c, d, *arguments)
    torch.testing.assert_close(c, a, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(d, b, rtol=1e-4, atol=1e-5)


def test_cpu_insert_equals_reference(problem):
    (a, b), (c, d) = sums(problem.grid), sums(problem.grid)
    arguments = (problem.grid, problem.observations, problem.poses, problem.responsibility)
    reference.insert(a, b, *arguments)
    cpu.insert(c, d, *arguments)
    torch.testing.assert_close(c, a, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(d, b, rtol=1e-4, atol=1e-5)
    assert a.abs().max() > 0.1


@BOTH
def test_insert_is_the_gradient_of_the_misfit(kernels, problem):
    # sum w |X - model|^2 has the gradient 2 (A^T W A V - A^T W X); at V = 0 the numerator is minus half of it.
    o, poses = problem.observations, problem.poses
    volume = torch.zeros(problem.grid.shape, dtype=torch.complex64, requires_grad=True)
    model = reference.slices(volume, problem.grid, poses.rotation, o.disc) * o.disc.shift_phase(poses.shift, o.box)
    model = model * o.ctf[poses.image] * o.scale[poses.image, None]
    weight = o.weight[o.group[poses.image]] * problem.responsibility[:, None]
    (weight * (o.images[poses.image] - model).abs() ** 2).sum().backward()
    numerator, denominator = sums(problem.grid)
    kernels.insert(numerator, denominator, problem.grid, o, poses, problem.responsibility)
    torch.testing.assert_close(numerator, -volume.grad / 2, rtol=1e-3, atol=1e-4)


@BOTH
def test_insertion_adds_to_what_is_there_and_respects_the_probability(kernels, problem):
    o, poses = problem.observations, problem.poses
    (a, b), (c, d) = sums(problem.grid), sums(problem.grid)
    kernels.insert(a, b, problem.grid, o, poses, problem.responsibility)
    kernels.insert(c, d, problem.grid, o, poses, problem.responsibility * 0.25)
    kernels.insert(c, d, problem.grid, o, poses, problem.responsibility * 0.75)
    torch.testing.assert_close(c, a, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(d, b, rtol=1e-4, atol=1e-4)


def test_lower_frequency_limits_work_on_views(problem):
    low = problem.observations.up_to(3)
    assert low.images.data_ptr() == problem.observations.images.data_ptr()
    assert len(low.disc) == low.images.shape[1] < len(problem.disc)
    (a, b), (c, d) = sums(problem.grid), sums(problem.grid)
    reference.insert(a, b, problem.grid, low, problem.poses, problem.responsibility)
    cpu.insert(c, d, problem.grid, low, problem.poses, problem.responsibility)
    torch.testing.assert_close(c, a, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(d, b, rtol=1e-4, atol=1e-5)
