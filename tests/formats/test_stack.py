from __future__ import annotations

import mrcfile
import numpy as np
import pytest
import torch

from cryospin.errors import InputError
from cryospin.formats.stack import ImageLocation, check_locations, create_stack, open_stack, read_images, write_stack


def write_raw(path, data):
    with mrcfile.new(path) as handle:
        handle.set_data(data)
    return path


@pytest.fixture
def located(tmp_path, generator):
    """Two stacks and rows that hop between them."""
    images = [torch.randn(n, 16, 16, generator=generator) for n in (4, 3)]
    files = [tmp_path / "a.mrcs", tmp_path / "b.mrcs"]
    for path, stack in zip(files, images, strict=True):
        write_stack(path, stack, 2.5)
    stack, position = np.array([1, 0, 0, 1, 0]), np.array([2, 3, 0, 0, 3])
    want = torch.stack([images[s][p] for s, p in zip(stack, position, strict=True)])
    return ImageLocation(files, stack, position), want


def test_images_come_in_the_order_asked_for(located):
    where, want = located
    assert torch.equal(read_images(where, np.arange(5)), want)
    assert torch.equal(read_images(where, np.array([4, 0, 4])), want[[4, 0, 4]])


def test_the_common_box_is_found(located, tmp_path):
    assert check_locations(located[0], tmp_path / "t.star") == 16


def test_a_slice_out_of_range_is_named(located, tmp_path):
    where, _ = located
    where.slice[3] = 3
    with pytest.raises(InputError, match=r"t\.star: row 4 asks for image 4 of b\.mrcs, which holds 3\. Check rlnImageName"):
        check_locations(where, tmp_path / "t.star")


def test_stacks_of_different_boxes_are_named(located, tmp_path):
    write_stack(located[0].files[1], torch.zeros(3, 20, 20), 1.0)
    with pytest.raises(InputError, match=r"b\.mrcs has images of 20 pixels, a\.mrcs of 16.*one box size"):
        check_locations(located[0], tmp_path / "t.star")


def test_stacks_keep_pixels_and_pixel_size(tmp_path, generator):
    images = torch.randn(3, 12, 12, generator=generator)
    write_stack(tmp_path / "s.mrcs", images, 1.25)
    with mrcfile.open(tmp_path / "s.mrcs") as handle:
        assert handle.is_image_stack()
        assert float(handle.voxel_size.x) == pytest.approx(1.25)
        assert np.array_equal(handle.data, images.numpy())
    assert torch.equal(torch.from_numpy(open_stack(tmp_path / "s.mrcs").copy()), images)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float16])
def test_other_number_types_are_read_as_floats(tmp_path, dtype):
    data = np.arange(2 * 8 * 8).reshape(2, 8, 8).astype(dtype)
    path = write_raw(tmp_path / "s.mrcs", data)
    got = read_images(ImageLocation([path], np.zeros(2, int), np.arange(2)), np.arange(2))
    assert got.dtype == torch.float32
    assert np.array_equal(got.numpy(), data.astype(np.float32))


def test_a_single_image_is_a_stack_of_one(tmp_path):
    path = write_raw(tmp_path / "one.mrc", np.ones((16, 16), np.float32))
    assert open_stack(path).shape == (1, 16, 16)


def test_images_that_are_not_square_are_refused(tmp_path):
    path = write_raw(tmp_path / "s.mrcs", np.ones((2, 16, 20), np.float32))
    with pytest.raises(InputError, match=r"s\.mrcs: images are 20 x 16 pixels, not square\. Extract .*square boxes"):
        open_stack(path)


@pytest.mark.parametrize("content", [b"", b"short", b"no image " * 10 + bytes(2000)])
def test_what_is_no_stack_is_refused(tmp_path, content):
    path = tmp_path / "s.mrcs"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        open_stack(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_truncated_stack_is_refused(tmp_path):
    path = tmp_path / "s.mrcs"
    write_stack(path, torch.ones(4, 16, 16), 1.0)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(InputError, match=r"s\.mrcs: "):
        open_stack(path)


def test_transforms_are_no_images(tmp_path):
    path = write_raw(tmp_path / "s.mrcs", np.ones((2, 8, 8), np.complex64))
    with pytest.raises(InputError, match="holds no stack of real images"):
        open_stack(path)


def test_a_stack_can_be_filled_piece_by_piece(tmp_path):
    with create_stack(tmp_path / "s.mrcs", (3, 8, 8), 2.0) as handle:
        for i in range(3):
            handle.data[i] = i
    assert open_stack(tmp_path / "s.mrcs").mean((1, 2)).tolist() == [0, 1, 2]


def test_a_failed_write_leaves_no_trace(tmp_path):
    # Numbers that need a gradient cannot become an array, which shows only once the file is open.
    with pytest.raises(RuntimeError):
        write_stack(tmp_path / "s.mrcs", torch.ones(2, 8, 8).requires_grad_(), 1.0)
    assert list(tmp_path.iterdir()) == []
