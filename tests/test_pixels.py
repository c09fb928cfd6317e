"""The features `pixels`: shape, range, antialiasing, protocol."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gankit import GankitError, ImageSpec, build
from gankit.features.pixels import Pixels


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (20, 48), (5, 3)])
def test_shape_and_range(channels: int, size: tuple[int, int]) -> None:
    pixels = Pixels(ImageSpec(channels, *size), side=6)
    features = pixels(images(4, channels, *size))
    assert features.shape == (4, pixels.dim) == (4, channels * 36)
    assert features.dtype == torch.float32
    assert features.min() >= 0
    assert features.max() <= 1


def test_a_flat_image_keeps_its_value_and_white_is_one() -> None:
    pixels = Pixels(ImageSpec(1, 17, 23))
    assert torch.allclose(pixels(torch.full((1, 1, 17, 23), 51.0)), torch.full((1, 64), 0.2))
    assert pixels(torch.full((1, 1, 17, 23), 255.0)).max() == pytest.approx(1)


def test_resize_is_antialiased() -> None:
    # A fine checkerboard becomes grey; without antialiasing a coarse grid picks pixels of one colour.
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255.0
    features = Pixels(ImageSpec(1, 64, 64))(board[None, None])
    assert (features - 0.5).abs().max() < 0.02


def test_agrees_with_pillow() -> None:
    image = images(1, 1, 40, 56)
    reference = Image.fromarray(image[0, 0].numpy()).resize((8, 8), Image.Resampling.BILINEAR)
    features = Pixels(ImageSpec(1, 40, 56))(image)
    np.testing.assert_allclose(features[0].reshape(8, 8).numpy() * 255, np.asarray(reference), atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_has_the_same_features_in_any_batch(channels: int) -> None:
    pixels = Pixels(ImageSpec(channels, 19, 31), side=5)
    batch = images(7, channels, 19, 31)
    whole = pixels(batch)
    assert torch.equal(whole, torch.cat([pixels(image[None]) for image in batch]))
    assert torch.equal(whole, torch.cat([pixels(batch[:3]), pixels(batch[3:])]))


def test_built_by_name_with_its_protocol() -> None:
    pixels = build("features", "pixels", ImageSpec(3, 16, 16), side=4)
    assert pixels.dim == 48
    assert pixels.protocol == {"resize": "antialiased bilinear", "side": 4}
    with pytest.raises(GankitError, match="side"):
        build("features", "pixels", ImageSpec(3, 16, 16), side=0)


def test_other_channels_are_refused() -> None:
    with pytest.raises(GankitError, match=r"3 channels.*\(2, 1, 8, 8\)"):
        Pixels(ImageSpec(3, 8, 8))(torch.zeros(2, 1, 8, 8))
