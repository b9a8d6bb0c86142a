from __future__ import annotations

import pytest
import torch

from cryospin.kernels import cpu
from cryospin.kernels.threads import PRIVATE_BYTES, for_each_part, parts


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def everything(problem) -> list[torch.Tensor]:
    """Results of every kernel, in one list."""
    p, o = problem, problem.observations
    volume, rotations = p.volume.clone().requires_grad_(), p.rotations.clone().requires_grad_()
    cut = cpu.slices(volume, p.grid, rotations, p.disc)
    cut.abs().sum().backward()
    numerator, denominator = torch.zeros(p.grid.shape, dtype=torch.complex64), torch.zeros(p.grid.shape)
    cpu.insert(numerator, denominator, p.grid, o, p.poses, p.responsibility)
    grid = 0.3 * cut.detach(), o, p.shifts, p.log_prior
    expectation = cpu.grid_expectation(*grid, 0.1)
    return [
        cut.detach(),
        volume.grad,
        rotations.grad,
        numerator,
        denominator,
        *cpu.normal_equations(p.volume, p.grid, o, p.poses),
        *cpu.fits(p.volume, p.grid, o, p.poses),
        cpu.grid_scores(*grid).best,
        cpu.grid_entropies(*grid, torch.tensor([0.1, 0.5])),
        expectation.numerator,
        expectation.denominator,
    ]


def test_one_thread_equals_two(problem, set_threads):
    set_threads(1)
    one = everything(problem)
    set_threads(2)
    for a, b in zip(one, everything(problem), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5 * float(a.abs().max()))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_number_of_threads_repeats_to_the_last_bit(problem, set_threads, threads):
    set_threads(threads)
    first = everything(problem)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, everything(problem), strict=True))


def test_parts_cover_everything_once(set_threads):
    set_threads(2)
    for count in (1, 2, 3, 7):
        ranges = parts(count)
        assert [i for a, b in ranges for i in range(a, b)] == list(range(count))
        assert len(ranges) == min(2, count)


def test_a_failure_in_a_thread_is_not_lost(set_threads):
    set_threads(2)

    def work(part: int, start: int, stop: int) -> None:
        if part == 1:
            raise RuntimeError("part 1 failed")

    with pytest.raises(RuntimeError, match="part 1 failed"):
        for_each_part(work, 4)


def test_fewer_parts_are_made_where_each_needs_much_memory(set_threads):
    set_threads(8)
    assert len(parts(100)) == 8
    assert len(parts(100, PRIVATE_BYTES // 3)) == 3
    assert parts(100, 2 * PRIVATE_BYTES) == [(0, 100)]
