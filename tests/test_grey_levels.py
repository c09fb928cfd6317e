"""Grey levels from one range to another, in arrays, tensors and 8-bit pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gankit.images.grey_levels import rescale
from gankit.images.pictures import to_8bit, to_pixels


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
