from __future__ import annotations

import math

import pytest
import torch

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid, pack, unpack
from cryospin.geometry.rotations import exponential, from_relion_angles, random_rotations, with_half_turns
from cryospin.kernels import cpu, reference

BOTH = pytest.mark.parametrize("kernels", [reference, cpu], ids=["reference", "cpu"])


@BOTH
def test_a_slice_is_read_at_the_transposed_rotation(kernels, rotations):
    # A volume that is linear in frequency is interpolated without error, so each coefficient tells where it was read.
    grid, disc = FourierGrid(6), HalfDisc.build(6)
    points = grid.points()
    for axis in range(3):
        volume = 1j * points[..., axis].contiguous()
        got = kernels.slices(volume.to(torch.complex64), grid, rotations, disc)
        in_plane = torch.stack([disc.kx, disc.ky, torch.zeros(len(disc))])
        want = (rotations.mT @ in_plane)[:, axis]
        torch.testing.assert_close(got.imag, want, rtol=0, atol=2e-5)
        torch.testing.assert_close(got.real, torch.zeros_like(want), rtol=0, atol=1e-6)


@BOTH
def test_zero_frequency_is_the_same_in_every_direction(kernels, rotations):
    grid, disc = FourierGrid(4), HalfDisc.build(4)
    volume = torch.zeros(grid.shape, dtype=torch.complex64)
    volume[grid.half, grid.half, 0] = 3.0
    got = kernels.slices(volume, grid, rotations, disc)
    torch.testing.assert_close(got[:, 0], torch.full((len(rotations),), 3.0 + 0j))
    assert (got[:, 1:].abs() == 0).all(), "a point at frequency 0 reached a cycle per box"


@BOTH
def test_unturned_slice_is_the_projection_along_z(kernels, blobs):
    box, disc = 24, HalfDisc.build(11)
    density, grid = blobs.density(box), FourierGrid(11)
    packed = kernels.slices(map_to_grid(density, grid), grid, torch.eye(3)[None], disc)
    image = unpack(packed, disc, box)[0]
    # On lattice points nothing is interpolated away, and the envelope's division shows.
    torch.testing.assert_close(image, density.sum(0), rtol=0, atol=0.03 * float(image.max()))


@BOTH
def test_a_known_pose_gives_the_closed_form_projection(kernels, blobs):
    box, disc, grid = 32, HalfDisc.build(15), FourierGrid(15)
    rotation = from_relion_angles(torch.tensor([[37.0, 62.0, -111.0], [-80.0, 130.0, 15.0]])).float()
    shift = torch.tensor([[2.5, -1.0], [-3.0, 4.25]])
    packed = kernels.slices(map_to_grid(blobs.density(box), grid), grid, rotation, disc)
    images = unpack(packed * disc.shift_phase(shift, box), disc, box)
    for image, r, t in zip(images, rotation, shift, strict=True):
        want = blobs.image(box, r, t)
        torch.testing.assert_close(image, want, rtol=0, atol=0.02 * float(want.max()))


def test_a_quarter_turn_about_the_beam_turns_the_image(blobs):
    box, disc, grid = 25, HalfDisc.build(11), FourierGrid(11)
    quarter = exponential(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, math.pi / 2]]))
    packed = cpu.slices(map_to_grid(blobs.density(box), grid), grid, quarter, disc)
    plain, turned = unpack(packed, disc, box)
    # x goes to y, as rows count downwards: numpy's rot90 the other way round.
    torch.testing.assert_close(turned, torch.rot90(plain, -1), rtol=0, atol=1e-3 * float(plain.max()))


def test_agrees_with_torch_fourier_slice(blobs, rotations):
    oracle = pytest.importorskip("torch_fourier_slice")
    box, disc, grid = 32, HalfDisc.build(10), FourierGrid(15)
    density = blobs.density(box)
    theirs = pack(oracle.project_3d_to_2d(density, rotations.mT, pad_factor=3.0), disc)
    ours = cpu.slices(map_to_grid(density, grid), grid, rotations, disc)
    transposed = cpu.slices(map_to_grid(density, grid), grid, rotations.mT.contiguous(), disc)

    def error(packed):
        return torch.linalg.vector_norm((packed - theirs)[:, 1:], dim=1) / torch.linalg.vector_norm(theirs[:, 1:], dim=1)

    assert float(error(ours).max()) < 0.05
    assert float(error(transposed).median()) > 0.3


def test_cpu_equals_reference(problem):
    for rotations in (problem.rotations, problem.rotations[:1]):
        got = cpu.slices(problem.volume, problem.grid, rotations, problem.disc)
        want = reference.slices(problem.volume, problem.grid, rotations, problem.disc)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", [1, 2, 3])
def test_cpu_equals_reference_on_every_lattice_up_to_the_last_shell(padding, generator, rotations):
    grid = FourierGrid(5, padding)
    disc = HalfDisc.build(5)
    axes = torch.tensor([[0.0, 0.0, 0.0], [90.0, 90.0, 0.0], [0.0, 180.0, 0.0], [45.0, 90.0, 45.0]])
    rotations = torch.cat([rotations, from_relion_angles(axes).float()])
    volume = torch.randn(grid.shape, generator=generator, dtype=torch.complex64)
    # On the plane x = 0 a rounding error decides which of two mates is read; they agree in a volume of a real map.
    plane = volume[:, :, 0]
    volume[:, :, 0] = (plane + plane.flip(0, 1).conj()) / 2
    got = cpu.slices(volume, grid, rotations, disc)
    torch.testing.assert_close(got, reference.slices(volume, grid, rotations, disc), rtol=1e-4, atol=2e-4)


def test_cpu_gradients_equal_reference(problem):
    g = torch.Generator().manual_seed(8)
    upstream = torch.randn(len(problem.rotations), len(problem.disc), generator=g, dtype=torch.complex64)
    gradients = []
    for kernels in (reference, cpu):
        volume = problem.volume.clone().requires_grad_()
        rotations = problem.rotations.clone().requires_grad_()
        out = kernels.slices(volume, problem.grid, rotations, problem.disc)
        (out * upstream.conj()).real.sum().backward()
        gradients.append((volume.grad, rotations.grad))
    torch.testing.assert_close(gradients[1][0], gradients[0][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients[1][1], gradients[0][1], rtol=1e-3, atol=1e-2)
    assert gradients[0][1][:, :2].abs().min() > 0


def test_gradient_to_the_rotation_matches_a_finite_difference(problem):
    g = torch.Generator().manual_seed(9)
    rotation = random_rotations(3, g).double().requires_grad_()
    volume = problem.volume.to(torch.complex128)
    upstream = torch.randn(3, len(problem.disc), generator=g, dtype=torch.complex128)

    def value(r):
        return (reference.slices(volume, problem.grid, r, problem.disc) * upstream.conj()).real.sum()

    value(rotation).backward()
    step = torch.randn(3, 3, 3, generator=g, dtype=torch.float64) * 1e-7
    with torch.no_grad():
        difference = value(rotation + step) - value(rotation - step)
    assert float(difference) == pytest.approx(2 * float((rotation.grad * step).sum()), rel=1e-4)


def test_only_the_gradients_asked_for_are_computed(problem):
    rotations = problem.rotations.clone().requires_grad_()
    cpu.slices(problem.volume, problem.grid, rotations, problem.disc).abs().sum().backward()
    assert problem.volume.grad is None
    assert rotations.grad.abs().sum() > 0
    volume = problem.volume.clone().requires_grad_()
    cpu.slices(volume, problem.grid, problem.rotations, problem.disc).abs().sum().backward()
    assert volume.grad.abs().sum() > 0


@BOTH
def test_half_a_turn_in_the_plane_conjugates_a_slice(kernels, problem):
    cut = kernels.slices(problem.volume, problem.grid, with_half_turns(problem.rotations), problem.disc)
    own, turned = cut.chunk(2)
    # Frequency 0 is real in a map, but not in this one.
    torch.testing.assert_close(turned[:, 1:], own.conj().resolve_conj()[:, 1:], rtol=1e-4, atol=1e-4)
    assert float((turned - own).abs().max()) > 0.1
