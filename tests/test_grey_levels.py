"""Grey levels from one range to another, in arrays, tensors and 8-bit pictures."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gankit.errors import DataError
from gankit.images.grey_levels import check_range, rescale, valid_range
from gankit.images.pictures import grid, grid_png, to_8bit, to_pixels


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", [float, np.float64])
def test_black_and_white_go_to_black_and_white_in_place(dtype: Any, number: Any) -> None:
    images = np.array([-1000, -300, 400, 1100], dtype)
    result = rescale(images, (number(-1000), number(400)), (number(-1), number(1)))
    assert result is images
    assert result.dtype == dtype
    assert result.tolist() == [-1, 0, 1, 2]  # nothing is clipped
    tensor = torch.tensor([-1000.0, -300.0, 400.0, 1100.0])
    assert rescale(tensor, (-1000, 400), (-1, 1)) is tensor
    assert tensor.tolist() == [-1, 0, 1, 2]


def test_every_16_bit_level_has_its_nearest_8_bit_level() -> None:
    levels = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(to_8bit(levels, (0, 65535)), (levels.astype(int) + 128) // 257)
    assert to_8bit(np.array([-5.0, 0.5, 7.0]), (0, 1)).tolist() == [0, 128, 255]


@pytest.mark.parametrize(("dtype", "high"), [(np.uint8, 255), (np.uint16, 65535), (np.uint16, 4095)])
def test_every_level_comes_back_from_the_range_of_networks(dtype: Any, high: int) -> None:
    levels = np.arange(high + 1, dtype=dtype)
    images = rescale(torch.from_numpy(levels.astype(np.float32)), (0, high), (-1, 1))
    np.testing.assert_array_equal(to_pixels(images, np.dtype(dtype).name, (0, high)), levels)
    assert to_pixels(torch.tensor([-3.0, 3.0]), np.dtype(dtype).name, (0, high)).tolist() == [0, high]


@pytest.mark.parametrize("value_range", [(-1e308, 1e308), (0, 5e-324), (2**24, 2**24 + 1), (0, 1e38), (1e30, 2e30)])
def test_a_range_whose_levels_float32_cannot_tell_apart_is_refused(value_range: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="leaves float32 too few levels between black and white"):
        valid_range(value_range)
    with pytest.raises(DataError, match="too few levels"):  # as arrays of a program are checked
        check_range(np.full(3, value_range[0], np.float64), value_range, "images")


def test_windows_of_measured_values_are_valid() -> None:
    for value_range in ((-1024, 3071), (30_000, 30_100), (0, 1e-6), (-1e9, 1e9)):
        assert valid_range(value_range) == value_range


def test_a_grid_has_every_pixel_and_is_smaller_than_as_pillow_writes_it() -> None:
    images, plain = np.random.default_rng(0).integers(0, 256, (9, 3, 16, 16), dtype=np.uint8), io.BytesIO()
    expected, png = grid(images, 3, 8), grid_png(images, (0, 255), 3)
    expected.save(plain, "PNG")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), np.asarray(expected))
    assert len(png) <= len(plain.getvalue())
    assert grid(images[:0]).size == (18, 1), "of no images"
