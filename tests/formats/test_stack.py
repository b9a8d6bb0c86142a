from __future__ import annotations

import bz2
import gzip

import mrcfile
import numpy as np
import pytest
import torch

from cryospin.errors import InputError
from cryospin.formats.stack import ImageLocation, create_stack, read_header, read_images, write_stack

MODES = {np.int8: 0, np.int16: 1, np.float32: 2, np.uint16: 6, np.float16: 12}


def raw_stack(data, order="<", extended=b"", **fields) -> bytes:
    """An MRC file written out byte by byte."""
    header = np.zeros((), mrcfile.dtypes.HEADER_DTYPE.newbyteorder(order))
    header["nz"], header["ny"], header["nx"] = data.shape
    header["mz"], header["my"], header["mx"] = data.shape
    header["cella"] = tuple(2.5 * n for n in reversed(data.shape))
    header["mode"] = MODES.get(data.dtype.type, 2)
    header["map"] = b"MAP "
    header["machst"] = (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0)
    header["nsymbt"] = len(extended)
    for name, value in fields.items():
        header[name] = value
    return header.tobytes() + extended + data.astype(data.dtype.newbyteorder(order)).tobytes()


def all_images(path) -> torch.Tensor:
    stack = read_header(path)
    return read_images(ImageLocation([stack], np.zeros(stack.count, int), np.arange(stack.count)), np.arange(stack.count))


@pytest.fixture
def data() -> np.ndarray:
    return np.random.default_rng(4).integers(-100, 100, (3, 16, 16)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.mrcs"


@pytest.fixture
def located(tmp_path, generator):
    """Two stacks and rows that hop between them."""
    images = [torch.randn(n, 16, 16, generator=generator) for n in (4, 3)]
    files = [tmp_path / "a.mrcs", tmp_path / "b.mrcs"]
    for path, stack in zip(files, images, strict=True):
        write_stack(path, stack, 2.5)
    stack, position = np.array([1, 0, 0, 1, 0]), np.array([2, 3, 0, 0, 3])
    want = torch.stack([images[s][p] for s, p in zip(stack, position, strict=True)])
    return ImageLocation([read_header(f) for f in files], stack, position), want


def test_images_come_in_the_order_asked_for(located):
    where, want = located
    assert torch.equal(read_images(where, np.arange(5)), want)
    assert torch.equal(read_images(where, np.array([4, 0, 4])), want[[4, 0, 4]])
    assert torch.equal(read_images(where.take(np.array([3, 1])), np.arange(2)), want[[3, 1]])


def test_each_image_has_the_box_of_its_stack(located, tmp_path):
    where, _ = located
    write_stack(tmp_path / "b.mrcs", torch.zeros(3, 20, 20), 1.0)
    mixed = ImageLocation([where.stacks[0], read_header(tmp_path / "b.mrcs")], where.stack, where.slice)
    assert mixed.boxes.tolist() == [20, 16, 16, 20, 16]
    assert read_images(mixed, np.array([0, 3])).shape == (2, 20, 20)


def test_stacks_keep_pixels_and_pixel_size(path, generator):
    images = torch.randn(3, 12, 12, generator=generator)
    write_stack(path, images, 1.25)
    with mrcfile.open(path) as handle:
        assert handle.is_image_stack()
        assert float(handle.voxel_size.x) == pytest.approx(1.25)
        assert np.array_equal(handle.data, images.numpy())
    stack = read_header(path)
    assert (stack.count, stack.box, stack.voxel, stack.offset, stack.compressed) == (3, 12, 1.25, 1024, False)
    assert stack.image_bytes == 576
    assert np.array_equal(stack.images(), images)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", MODES)
@pytest.mark.parametrize("extended", [b"", bytes(range(160))])
def test_every_number_type_and_byte_order_is_read_as_floats(path, data, dtype, order, extended):
    data = np.abs(data).astype(dtype)
    path.write_bytes(raw_stack(data, order, extended))
    stack = read_header(path)
    assert (stack.count, stack.box, stack.voxel, stack.offset) == (3, 16, 2.5, 1024 + len(extended))
    got = all_images(path)
    assert got.dtype == torch.float32
    assert np.array_equal(got, data.astype(np.float32))


def test_negative_numbers_stay_negative(path, data):
    for dtype in (np.int8, np.int16, np.float16):
        path.write_bytes(raw_stack(data.astype(dtype)))
        assert np.array_equal(all_images(path), data)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float16, np.float32])
def test_stacks_that_mrcfile_writes_are_read(path, data, dtype):
    with mrcfile.new(path) as handle:
        handle.set_data(np.abs(data).astype(dtype))
        handle.set_extended_header(np.zeros(40, np.float32))
    assert np.array_equal(all_images(path), np.abs(data))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "fields",
    [
        {"map": b""},
        {"machst": (0, 0, 0, 0)},
        {"map": b"", "machst": (0, 0, 0, 0)},
        {"map": b"MAP", "machst": (68, 65, 0, 0)},
        {"machst": (17, 17, 0, 0)},
        {"machst": (68, 68, 0, 0)},
    ],
    ids=["no MAP", "no stamp", "neither", "MAP cut short", "big-endian stamp", "little-endian stamp"],
)
def test_old_or_wrong_marks_of_byte_order_do_not_matter(path, data, order, fields):
    path.write_bytes(raw_stack(data, order, **fields))
    assert np.array_equal(all_images(path), data)


@pytest.mark.parametrize("group", [0, 1])
def test_a_stack_that_calls_itself_a_volume_is_read(path, data, group):
    path.write_bytes(raw_stack(data, ispg=group))
    assert np.array_equal(all_images(path), data)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress], ids=["gzip", "bzip2"])
@pytest.mark.parametrize("name", ["s.mrcs", "s.mrcs.gz"])
def test_compressed_stacks_are_read(tmp_path, data, pack, name):
    (tmp_path / name).write_bytes(pack(raw_stack(data, extended=bytes(80))))
    stack = read_header(tmp_path / name)
    assert (stack.count, stack.box, stack.compressed) == (3, 16, True)
    assert np.array_equal(all_images(tmp_path / name), data)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress], ids=["gzip", "bzip2"])
def test_a_compressed_stack_cut_short_is_refused(path, data, pack):
    noise = np.random.default_rng(0).normal(size=(300, 32, 32)).astype(np.float32)
    for content in (pack(raw_stack(data)[:-1500]), pack(raw_stack(noise))[:-800_000]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"s\.mrcs: (cut short: .* promises 3 images, it holds 1|cannot be)"):
            read_header(path).images()


@pytest.mark.parametrize("start", [b"\x1f\x8b", b"BZh"])
def test_what_only_looks_compressed_is_refused(path, start):
    path.write_bytes(start + b"no compression" * 100)
    with pytest.raises(InputError, match=r"s\.mrcs: cannot be read .*Copy the file again"):
        read_header(path)


def test_a_single_image_is_a_stack_of_one(tmp_path):
    with mrcfile.new(tmp_path / "one.mrc") as handle:
        handle.set_data(np.ones((16, 16), np.float32))
    assert read_header(tmp_path / "one.mrc").count == 1
    assert all_images(tmp_path / "one.mrc").shape == (1, 16, 16)


def test_images_that_are_not_square_are_refused(path):
    path.write_bytes(raw_stack(np.ones((2, 16, 20), np.float32)))
    with pytest.raises(InputError, match=r"s\.mrcs: images are 20 x 16 pixels, not square\. Extract .*square boxes"):
        read_header(path)


def test_transforms_are_no_images(path):
    with mrcfile.new(path) as handle:
        handle.set_data(np.ones((2, 8, 8), np.complex64))
    with pytest.raises(InputError, match=r"holds complex numbers, not images\. Give a stack of particle images"):
        read_header(path)


@pytest.mark.parametrize("mode", [3, 5, 7, 16, 101])
def test_modes_that_nobody_reads_are_named(path, data, mode):
    path.write_bytes(raw_stack(data, mode=mode))
    with pytest.raises(InputError, match=rf"pixels are of MRC mode {mode}, which is not supported\. Convert"):
        read_header(path)


def test_stacks_of_volumes_are_refused(path, data):
    path.write_bytes(raw_stack(data, ispg=401))
    with pytest.raises(InputError, match="holds volumes, not images"):
        read_header(path)


@pytest.mark.parametrize(("cut", "held"), [(1, 3), (1500, 2), (4 * 1024, 0), (4 * 1024 + 60, 0)])
def test_a_stack_cut_short_says_how_many_it_holds(path, cut, held):
    path.write_bytes(raw_stack(np.ones((4, 16, 16), np.float32), extended=bytes(80))[:-cut])
    with pytest.raises(InputError, match=rf"s\.mrcs: cut short: its header promises 4 images, it holds {held}\. Copy"):
        read_header(path)


def test_more_than_the_header_promises_is_left_alone(path, data):
    path.write_bytes(raw_stack(data) + bytes(5000))
    assert np.array_equal(all_images(path), data)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        bytes(1023),
        bytes(3000),
        b"no image " * 300,
        raw_stack(np.ones((1, 8, 8), np.float32), nz=-1),
        b"\xff" * 2000,
    ],
)
def test_what_is_no_stack_is_refused_in_one_line(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_header(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fields", [{"nsymbt": -1}, {"mode": -2}, {"nx": 0}, {"ny": 1 << 24}])
def test_a_header_that_makes_no_sense_is_refused(path, data, fields):
    path.write_bytes(raw_stack(data, **fields))
    with pytest.raises(InputError, match="not an MRC stack: its header makes no sense in either byte order"):
        read_header(path)


@pytest.mark.parametrize("fields", [{"mx": 0}, {"cella": (0, 0, 0)}, {"cella": (-8, 0, 0)}, {"cella": (np.nan, 1, 1)}])
def test_a_header_without_pixel_size_says_nothing_of_it(path, data, fields):
    path.write_bytes(raw_stack(data, **fields))
    assert read_header(path).voxel == 0.0


def test_a_missing_stack_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "gone.mrcs", tmp_path):
        with pytest.raises(InputError, match="cannot be read") as error:
            read_header(path)
        assert str(error.value).startswith(f"{path}: ")


def test_a_stack_can_be_filled_piece_by_piece(path):
    with create_stack(path, (3, 8, 8), 2.0) as handle:
        for i in range(3):
            handle.data[i] = i
    assert all_images(path).mean((1, 2)).tolist() == [0, 1, 2]


def test_a_failed_write_leaves_no_trace(tmp_path):
    # Numbers that need a gradient cannot become an array, which shows only once the file is open.
    with pytest.raises(RuntimeError):
        write_stack(tmp_path / "s.mrcs", torch.ones(2, 8, 8).requires_grad_(), 1.0)
    assert list(tmp_path.iterdir()) == []
