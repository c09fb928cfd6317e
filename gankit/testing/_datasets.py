"""The suite for data sets."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from gankit.errors import GankitError
from gankit.interfaces import Dataset, ImageSpec
from gankit.registry import registry
from gankit.registry.settings import takes_positional
from gankit.testing._suite import Suite, assert_one_line


class DatasetTests(Suite):
    """Tests of a data set: give its class, or its registered name, as `part`; `write` makes a small one.

    Attributes:
        size: (height, width) that it is asked for where it can make any.
    """

    kind = "dataset"
    cites = False
    size: ClassVar[tuple[int, int]] = (16, 24)

    def given(self, image: ImageSpec | None) -> Any:
        """No size: the part's own."""
        return None

    def test_its_image_is_known_and_true(self) -> None:
        """`image` says channels, height and width of `images`, and `conditions` is 0."""
        dataset: Dataset = self.build()
        image = dataset.image
        assert image.conditions == 0
        assert dataset.images.shape == (len(dataset), *image.shape), f"{dataset.images.shape} and {image}"
        assert len(dataset) > 0
        assert dataset.images.dtype == dataset.dtype
        assert dataset.dtype in (np.uint8, np.uint16, np.float32), f"images are {dataset.dtype}"

    def test_values_are_within_their_range(self) -> None:
        """`value_range` is black and white, and no value lies outside."""
        dataset: Dataset = self.build()
        low, high = dataset.value_range
        assert low < high
        assert low <= dataset.images.min() <= dataset.images.max() <= high
        assert dataset.images.min() < dataset.images.max(), "all pixels of all images have one value"

    def test_everything_known_has_one_row_an_image(self) -> None:
        """Labels, groups, agreement and facts have one row per image, and classes have names."""
        dataset: Dataset = self.build()
        n, classes = len(dataset), dataset.image.classes
        if dataset.labels is None:
            assert classes == 0, "image.classes counts classes, and there are no labels"
        else:
            assert dataset.labels.shape == (n,)
            assert dataset.labels.dtype == np.int64
            assert 0 <= dataset.labels.min() <= dataset.labels.max() < classes
        assert len(dataset.class_names) == classes
        assert len(set(dataset.class_names)) == classes, "two classes have one name"
        if dataset.groups is not None:
            assert len(dataset.groups) == n
        if dataset.agreement is not None:
            assert dataset.agreement.shape == (n,)
            shares = dataset.agreement[~np.isnan(dataset.agreement)]
            assert ((shares >= 0) & (shares <= 1)).all(), "agreement is a share, in [0, 1]"
        for name, values in dataset.facts.items():
            assert len(values) == n, f"{name} has {len(values)} values for {n} images"
        for name, indices in dataset.splits.items():
            assert len(np.unique(indices)) == len(indices), f"split {name} holds an image twice"
            assert len(indices) == 0 or (indices.min() >= 0 and indices.max() < n)

    def test_rows_are_the_images(self) -> None:
        """`rows` and `read` give copies of what `images` has, in the order of the indices."""
        dataset: Dataset = self.build()
        indices = np.array([len(dataset) - 1, 0, len(dataset) // 2])
        expected = np.asarray(self.build().images)[indices]
        for method in (dataset.rows, dataset.read):
            rows = method(indices)
            assert np.array_equal(rows, expected)
            rows[:] = 0
        assert np.array_equal(dataset.rows(indices), expected), "rows are not copies"

    def test_is_the_same_whenever_it_is_opened(self) -> None:
        """Two builds hold equal images in equal order, and one digest."""
        first, second = self.build(), self.build()
        assert np.array_equal(first.images, second.images)
        assert first.digest() == second.digest()
        for name in ("labels", "groups"):
            a, b = getattr(first, name), getattr(second, name)
            assert (a is None and b is None) or np.array_equal(a, b), f"{name} differ between two builds"

    def test_a_subset_keeps_what_is_known(self) -> None:
        """Some images in a given order, with their labels, groups, agreement and facts."""
        dataset: Dataset = self.build()
        indices = np.arange(len(dataset))[::-2]
        part = dataset.subset(indices)
        assert len(part) == len(indices)
        assert np.array_equal(part.images, dataset.images[indices])
        assert part.image == dataset.image
        assert part.digest() != dataset.digest()
        for name in ("labels", "groups", "agreement"):
            whole, some = getattr(dataset, name), getattr(part, name)
            equal = (whole is None and some is None) or np.array_equal(some, whole[indices])
            assert equal, f"{name} of a subset are others"
        assert part.class_names == dataset.class_names
        assert part.changed_by_mirror == dataset.changed_by_mirror
        assert part.facts.keys() == dataset.facts.keys()
        for name, values in dataset.facts.items():
            np.testing.assert_array_equal(part.facts[name], values[indices], f"{name} of a subset are others")

    def test_mirrors_arrays_and_tensors_alike(self) -> None:
        """Mirror images keep shape and type, and mirrored twice they are the images again; or there are none."""
        dataset: Dataset = self.build()
        images = dataset.rows(np.arange(min(4, len(dataset))))
        mirrored, tensors = dataset.mirror(images), dataset.mirror(torch.as_tensor(images.astype(np.float32)))
        if mirrored is None or tensors is None:
            assert (mirrored is None) == (tensors is None), "of an array and a tensor only one has a mirror image"
            return
        assert mirrored.shape == images.shape
        assert mirrored.dtype == images.dtype
        assert np.array_equal(tensors.numpy(), mirrored.astype(np.float32)), "a tensor is mirrored otherwise"
        again = dataset.mirror(mirrored)
        assert again is not None
        assert np.array_equal(again, images), "mirrored twice, an image is not itself"

    def test_makes_the_size_that_is_asked_for(self) -> None:
        """A data set whose constructor takes a size has it, or refuses in one line."""
        if not takes_positional(registry(self.kind).get(self.part)):
            pytest.skip("it takes no size")
        try:
            dataset = self._construct(self.size, {**self.settings, **self.files})
        except GankitError as error:
            assert_one_line(error)
            pytest.skip(f"refused: {error}")
        assert (dataset.image.height, dataset.image.width) == self.size
        assert dataset.images.shape[2:] == self.size
