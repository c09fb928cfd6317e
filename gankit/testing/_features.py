"""The suite for features."""

import copy
import json

import pytest
import torch
from torch import Tensor

from gankit import seeds
from gankit.errors import PartError
from gankit.interfaces import Features, ImageSpec
from gankit.testing._suite import Suite, assert_one_line


class FeaturesTests(Suite):
    """Tests of features: give their class, or their registered name, as `part`; `write` may write a file of weights."""

    kind = "features"
    cites = False

    def images(self, n: int, image: ImageSpec | None = None) -> Tensor:
        """(n, channels, height, width) float32 in [0, 255]."""
        return torch.rand(n, *(image or self.image).shape) * 255

    def extract(self, network: Features, images: Tensor) -> Tensor:
        """Features in evaluation mode, without graph."""
        with torch.no_grad():
            return network.eval()(images)

    @pytest.mark.parametrize("size", [(32, 32), (28, 28), (33, 65), (300, 40)], ids=str)
    @pytest.mark.parametrize("channels", [3, 1])
    def test_takes_images_of_any_size(self, size: tuple[int, int], channels: int) -> None:
        """Grey and colour, square or not, of even or odd size: (n, dim) finite values."""
        image = ImageSpec(channels, *size)
        network: Features = self.build_or_skip(image)
        values = self.extract(network, self.images(3, image))
        assert values.shape == (3, network.dim), f"features have shape {tuple(values.shape)}, not {(3, network.dim)}"
        assert values.is_floating_point()
        assert torch.isfinite(values).all(), "features are not finite"

    def test_tells_images_apart_over_the_whole_range(self) -> None:
        """Values are in [0, 255]: a network that expects [0, 1] would saturate."""
        network = self.build()
        dark, bright = torch.full((1, *self.image.shape), 5.0), torch.full((1, *self.image.shape), 250.0)
        noise = self.images(1)
        values = self.extract(network, torch.cat([dark, bright, noise]))
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert not torch.allclose(values[a], values[b]), "black, white and noise have the same features"

    def test_features_of_an_image_are_its_own(self) -> None:
        """They do not depend on the other images of a batch."""
        network, images = self.build(), self.images(4)
        together = self.extract(network, images)
        alone = torch.cat([self.extract(network, image[None]) for image in images])
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3 * float(together.abs().max()))

    def test_is_deterministic(self) -> None:
        """Two builds give the same features: weights come from a file or a fixed seed."""
        images = self.images(2)
        seeds.manual_seed(1)
        first = self.extract(self.build(), images)
        seeds.manual_seed(2)
        assert torch.equal(first, self.extract(self.build(), images)), "two builds give different features"

    def test_keeps_its_input(self) -> None:
        """Other features read the same images."""
        images = self.images(2)
        before = images.clone()
        self.extract(self.build(), images)
        assert torch.equal(images, before), "forward changes the images in place"

    def test_protocol_is_text_and_numbers(self) -> None:
        """`protocol` goes into metrics files; it is the same for two builds."""
        protocol = self.build().protocol
        assert json.loads(json.dumps(protocol)) == protocol
        assert all(isinstance(value, (str, int)) for value in protocol.values())
        assert protocol == self.build().protocol

    def test_gives_class_logits_or_says_that_it_has_none(self) -> None:
        """(n, dim) features to (n, k) logits, or an error in one line."""
        network = self.build()
        values = self.extract(network, self.images(3))
        try:
            logits = network.logits(values)
        except PartError as error:
            assert_one_line(error)
        else:
            assert logits.dim() == 2
            assert len(logits) == 3

    def test_can_be_copied(self) -> None:
        """A copy gives the same features."""
        network, images = self.build(), self.images(2)
        assert torch.equal(self.extract(network, images), self.extract(copy.deepcopy(network), images))
