"""Every Triton kernel against the definition, values and gradients."""

from __future__ import annotations

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc
from cryospin.geometry.rotations import from_relion_angles, random_rotations, turn
from cryospin.kernels import reference
from cryospin.kernels.types import Observations, Poses

pytest.importorskip("triton", reason="Triton is not installed")
from cryospin.kernels import cuda
from cryospin.kernels.cuda import scoring

# torch's forward differentiation compiles its own formulas in a way it has come to warn of.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


def near(got, want, rtol=1e-4, atol=1e-4):
    """Equal but for rounding, relative to the largest value."""
    torch.testing.assert_close(got.cpu().to(want.dtype), want, rtol=rtol, atol=atol * float(want.abs().max()))


def sums(grid, device):
    return torch.zeros(grid.shape, dtype=torch.complex64, device=device), torch.zeros(grid.shape, device=device)


def hermitian(volume):
    """On the plane x = 0 a rounding error decides which of two mates is read; in a real map's volume they agree."""
    plane = volume[:, :, 0]
    volume[:, :, 0] = (plane + plane.flip(0, 1).conj()) / 2
    return volume


def test_slices(problem, there):
    got = cuda.slices(there.volume, there.grid, there.rotations, there.disc)
    near(got, reference.slices(problem.volume, problem.grid, problem.rotations, problem.disc))
    assert got.device == there.volume.device


@pytest.mark.parametrize("padding", [1, 2, 3])
def test_slices_along_the_seam_up_to_the_last_shell(padding, generator, device):
    # More coefficients than a block, and no multiple of it; views along axes put whole lines on the plane x = 0.
    grid, disc = FourierGrid(10, padding), HalfDisc.build(10)
    assert len(disc) > 128
    assert len(disc) % 128
    axes = torch.tensor([[0.0, 0.0, 0.0], [90.0, 90.0, 0.0], [0.0, 180.0, 0.0], [45.0, 90.0, 45.0]])
    rotations = torch.cat([random_rotations(2, generator), from_relion_angles(axes).float()])
    volume = hermitian(torch.randn(grid.shape, generator=generator, dtype=torch.complex64))
    got = cuda.slices(volume.to(device), grid, rotations.to(device), HalfDisc.build(10, device))
    near(got, reference.slices(volume, grid, rotations, disc))


def test_gradients_of_slices(problem, there, generator):
    upstream = torch.randn(len(problem.rotations), len(problem.disc), generator=generator, dtype=torch.complex64)
    found = []
    for kernels, p in ((reference, problem), (cuda, there)):
        volume, rotations = p.volume.clone().requires_grad_(), p.rotations.clone().requires_grad_()
        out = kernels.slices(volume, p.grid, rotations, p.disc)
        (out * upstream.to(out.device).conj()).real.sum().backward()
        found.append((volume.grad, rotations.grad))
    near(found[1][0], found[0][0])
    near(found[1][1], found[0][1], atol=1e-5)
    assert (found[1][1][:, 2] == 0).all()


def test_only_the_gradients_asked_for_are_computed(there):
    rotations = there.rotations.clone().requires_grad_()
    cuda.slices(there.volume, there.grid, rotations, there.disc).abs().sum().backward()
    assert there.volume.grad is None
    assert rotations.grad.abs().sum() > 0


def test_fits(problem, there):
    want = reference.fits(problem.volume, problem.grid, problem.observations, problem.poses)
    got = cuda.fits(there.volume, there.grid, there.observations, there.poses)
    near(got.cross, want.cross)
    near(got.power, want.power)


def test_normal_equations(problem, there):
    want = reference.normal_equations(problem.volume, problem.grid, problem.observations, problem.poses)
    got = cuda.normal_equations(there.volume, there.grid, there.observations, there.poses)
    for name in want._fields:
        near(getattr(got, name), getattr(want, name))
        assert getattr(got, name).dtype == torch.float64
    assert torch.equal(got.matrix, got.matrix.mT)


def test_a_lower_frequency_limit_is_read_in_place(problem, there):
    low, low_there = problem.observations.up_to(3), there.observations.up_to(3)
    assert low_there.images.data_ptr() == there.observations.images.data_ptr()
    want = reference.normal_equations(problem.volume, problem.grid, low, problem.poses)
    got = cuda.normal_equations(there.volume, there.grid, low_there, there.poses)
    near(got.gradient, want.gradient)
    near(cuda.fits(there.volume, there.grid, low_there, there.poses).cross, want.cross)
    wanted, found = sums(problem.grid, "cpu"), sums(there.grid, there.volume.device)
    reference.insert(*wanted, problem.grid, low, problem.poses, problem.responsibility)
    cuda.insert(*found, there.grid, low_there, there.poses, there.responsibility)
    for a, b in zip(found, wanted, strict=True):
        near(a, b)


def test_insertion(problem, there):
    wanted, found = sums(problem.grid, "cpu"), sums(there.grid, there.volume.device)
    # Twice, since insertion adds to what is there.
    for _ in range(2):
        reference.insert(*wanted, problem.grid, problem.observations, problem.poses, problem.responsibility)
        cuda.insert(*found, there.grid, there.observations, there.poses, there.responsibility)
    for a, b in zip(found, wanted, strict=True):
        near(a, b)


def test_inserting_values_is_the_adjoint_of_slicing(there, generator):
    shape, device = (len(there.rotations), len(there.disc)), there.volume.device
    values = torch.randn(shape, generator=generator, dtype=torch.complex64).to(device)
    weights = torch.rand(shape, generator=generator).to(device)
    numerator, denominator = sums(there.grid, device)
    cuda.insert_values(numerator, denominator, there.grid, there.rotations, there.disc, values, weights)
    cut = cuda.slices(there.volume, there.grid, there.rotations, there.disc)
    left = (cut.conj() * values).real.double().sum()
    right = (there.volume.conj() * numerator).real.double().sum()
    assert float(left) == pytest.approx(float(right), rel=1e-4)
    assert float(denominator.double().sum()) == pytest.approx(float(weights.double().sum()), rel=1e-5)


def test_sums_that_could_not_be_added_to_are_refused(there):
    numerator, denominator = sums(there.grid, there.volume.device)
    arguments = there.grid, there.observations, there.poses, there.responsibility
    with pytest.raises(ValueError, match="contiguous"):
        cuda.insert(numerator.transpose(0, 1), denominator, *arguments)


@pytest.fixture(scope="module")
def cells(problem):
    cut = reference.slices(problem.volume, problem.grid, problem.rotations, problem.disc) * 0.3
    return cut, problem.observations, problem.shifts, problem.log_prior


@pytest.fixture(scope="module")
def cells_there(cells, device):
    return tuple(x.to(device) for x in cells)


@pytest.fixture(params=[1 << 23, 400], ids=["at once", "in parts"])
def at_once(request, monkeypatch):
    """All images' scores together, or two images at a time, which leaves one over; and blocks smaller than the grid."""
    monkeypatch.setattr(scoring, "_SCORES_AT_ONCE", request.param)
    monkeypatch.setattr(scoring, "_CELLS", 1024 if request.param > 400 else 16)


@pytest.mark.usefixtures("at_once")
def test_grid_scores(cells, cells_there):
    want, got = reference.grid_scores(*cells), cuda.grid_scores(*cells_there)
    near(got.best, want.best, *tolerance(cells_there))
    assert torch.equal(got.shift.cpu(), want.shift)
    assert len(want.shift.unique()) > 1


@pytest.mark.usefixtures("at_once")
def test_grid_entropies(cells, cells_there):
    sharpness = torch.tensor([1e-9, 0.02, 0.1, 1.0, 300.0])
    want = reference.grid_entropies(*cells, sharpness)
    got = cuda.grid_entropies(*cells_there, sharpness.to(cells_there[0].device))
    near(got[:, :4], want[:, :4], *tolerance(cells_there))
    assert (got[:, 4] < 0.5).all()
    assert torch.isfinite(got).all()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("sharpness", [0.05, 1.0])
def test_grid_expectation(cells, cells_there, sharpness):
    want = reference.grid_expectation(*cells, sharpness)
    got = cuda.grid_expectation(*cells_there, sharpness)
    near(got.numerator, want.numerator, *tolerance(cells_there))
    near(got.denominator, want.denominator, *tolerance(cells_there))
    assert torch.equal(got.best.cpu(), want.best)


def tolerance(cells):
    """On tensor cores factors have 11 bits."""
    return (1e-2, 5e-3) if cells[0].is_cuda else (1e-4, 1e-4)


def test_nothing_is_done_with_nothing(there):
    device = there.volume.device
    none = Poses(torch.empty(0, dtype=torch.long), torch.empty(0, 3, 3), torch.empty(0, 2)).to(device)
    o = there.observations.take(torch.empty(0, dtype=torch.long, device=device))
    assert cuda.slices(there.volume, there.grid, none.rotation, there.disc).shape == (0, len(there.disc))
    assert cuda.fits(there.volume, there.grid, there.observations, none).cross.shape == (0,)
    assert cuda.normal_equations(there.volume, there.grid, there.observations, none).matrix.shape == (0, 5, 5)
    numerator, denominator = sums(there.grid, device)
    cuda.insert(numerator, denominator, there.grid, there.observations, none, torch.empty(0, device=device))
    assert numerator.abs().sum() == denominator.sum() == 0
    cut = cuda.slices(there.volume, there.grid, there.rotations, there.disc)
    assert cuda.grid_scores(cut, o, there.shifts, there.log_prior).best.shape == (0, 2 * len(cut))
    assert cuda.grid_expectation(cut, o, there.shifts, there.log_prior, 1.0).numerator.abs().sum() == 0


def test_turning_and_moving_the_particle_turns_and_moves_what_fits(device, generator):
    # Images made at known poses: the misfit is lowest there, and a step along the normal equations leads back.
    grid, disc, box, count = FourierGrid(6), HalfDisc.build(6, device), 16, 8
    x, y, z = (grid.points() / grid.radius).unbind(-1)
    smooth = torch.exp(-2 * (x**2 + y**2 + z**2)) * torch.polar(torch.ones_like(x), x - 2 * y + 3 * z + 2 * x * y - z * z)
    volume = hermitian(smooth.to(torch.complex64)).to(device)
    true = Poses(torch.arange(count), random_rotations(count, generator), torch.randn(count, 2, generator=generator))
    true = true.to(device)
    images = cuda.slices(volume, grid, true.rotation, disc) * disc.shift_phase(true.shift, box)
    one = torch.ones(count, device=device)
    weight = torch.ones(1, len(disc), device=device)
    o = Observations(images, torch.ones_like(images.real), weight, true.image * 0, one, disc, box)
    tangent = 0.02 * torch.randn(count, 5, generator=generator).to(device)
    off = Poses(true.image, turn(true.rotation, tangent[:, :3]), true.shift + tangent[:, 3:])
    equations = cuda.normal_equations(volume, grid, o, off)
    step = -torch.linalg.solve(equations.matrix, equations.gradient)
    home = Poses(off.image, turn(off.rotation, step[:, :3]), off.shift + step[:, 3:].float())
    misfit = [cuda.fits(volume, grid, o, poses).misfit(one) for poses in (true, home, off)]
    assert (misfit[0] <= misfit[1] + 1e-4).all()
    assert ((misfit[1] - misfit[0]) < 0.2 * (misfit[2] - misfit[0])).all()
