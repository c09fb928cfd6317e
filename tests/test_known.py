"""What is known of images: as one record, or by single properties as plug-ins have it, seen through every view."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pytest

import gankit
from gankit.errors import DataError
from gankit.experiments.selection import Resized
from gankit.experiments.tables import DataTable
from gankit.images.known import Columns, Known
from gankit.interfaces import Dataset, ImageSpec
from gankit.training.data import prepare

N = 12
LABELS = np.arange(N) % 3
GROUPS = np.arange(N) // 2
AGREEMENT = np.linspace(0, 1, N)
FACTS = {"side": np.arange(N) % 2, "calls": np.arange(2 * N).reshape(N, 2)}
SPLITS = {"train": np.arange(8), "test": np.arange(8, N)}


class Pictures(Dataset):
    """Image i is filled with the grey level i."""

    @property
    def image(self) -> ImageSpec:
        return ImageSpec(1, 4, 6, classes=3)

    @cached_property
    def images(self) -> Any:
        return np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 1, 4, 6)).copy()

    @property
    def stored_sizes(self) -> set[tuple[int, int]]:
        return {(9, 12), (6, 8)}


class BySingleProperties(Pictures):
    """As plug-ins were written for 0.1.0."""

    @property
    def labels(self) -> Any:
        return LABELS

    @property
    def class_names(self) -> tuple[str, ...]:
        return "a", "b", "c"

    @property
    def groups(self) -> Any:
        return GROUPS

    @property
    def agreement(self) -> Any:
        return AGREEMENT

    @property
    def facts(self) -> Mapping[str, Any]:
        return {**super().facts, **FACTS}

    @property
    def splits(self) -> Mapping[str, Any]:
        return SPLITS

    @property
    def changed_by_mirror(self) -> frozenset[str]:
        return super().changed_by_mirror | {"side"}


class ByRecord(Pictures):
    @property
    def known(self) -> Known:
        return Known(
            labels=LABELS, class_names=("a", "b", "c"), groups=GROUPS, agreement=AGREEMENT, facts=FACTS, splits=SPLITS,
            changed_by_mirror=frozenset({"side"}),
        )  # fmt: skip


class OnlyLabels(Pictures):
    @property
    def labels(self) -> Any:
        return LABELS


def check(dataset: Dataset, indices: Any) -> None:
    """The data set shows the images with these indices, by properties and by its record."""
    for source in (dataset, dataset.known):
        np.testing.assert_array_equal(source.labels, LABELS[indices])
        np.testing.assert_array_equal(source.groups, GROUPS[indices])  # type: ignore[arg-type]
        np.testing.assert_array_equal(source.agreement, AGREEMENT[indices])  # type: ignore[arg-type]
        assert source.class_names == ("a", "b", "c")
        assert source.changed_by_mirror == {"side"}
        assert set(source.facts) == set(FACTS)
        for name, values in FACTS.items():
            np.testing.assert_array_equal(source.facts[name], values[indices])


@pytest.mark.parametrize("make", [BySingleProperties, ByRecord])
def test_records_and_single_properties_say_the_same_through_every_view(make: type[Dataset]) -> None:
    dataset, everything = make(), np.arange(N)
    check(dataset, everything)
    check(Resized(dataset, (8, 8)), everything)
    assert dataset.splits == dataset.known.splits == Resized(dataset, (8, 8)).splits == SPLITS
    some = np.array([7, 2, 11, 4])
    check(dataset.subset(some), some)
    check(Resized(dataset, (8, 8)).subset(some), some)
    check(dataset.subset(some).subset([3, 0]), some[[3, 0]])
    assert dataset.subset(some).splits == {}
    assert len(dataset.subset(some)) == 4
    assert Resized(dataset, (8, 8)).subset(some).stored_sizes == {(9, 12), (6, 8)}


@pytest.mark.parametrize("make", [BySingleProperties, ByRecord])
def test_they_train_alike(make: type[Dataset]) -> None:
    table = DataTable.model_validate({"name": "eyes", "conditional": ["side"], "weights": "agreement", "subset": 6})
    data, by_record = prepare(table, 0, make()), prepare(table, 0, ByRecord())
    np.testing.assert_array_equal(data.dataset.images, by_record.dataset.images)
    np.testing.assert_array_equal(data.labels, by_record.labels)  # type: ignore[arg-type]
    np.testing.assert_array_equal(data.probabilities, by_record.probabilities)  # type: ignore[arg-type]
    assert set(data.dataset.images[:, 0, 0, 0]) <= set(SPLITS["train"])
    with pytest.raises(gankit.GankitError, match=r"data\.flip: mirroring changes side"):
        prepare(table.model_copy(update={"flip": True}), 0, make())


def test_what_a_data_set_does_not_say_has_defaults() -> None:
    dataset = OnlyLabels()
    for view in (dataset, dataset.subset(np.arange(N)), Resized(dataset, (8, 8))):
        np.testing.assert_array_equal(view.labels, LABELS)
        assert view.class_names == ("0", "1", "2")
        assert view.groups is view.agreement is None
        assert (view.facts, view.splits, view.changed_by_mirror) == ({}, {}, frozenset())


def test_columns_are_read_at_first_use_and_once() -> None:
    reads: list[str] = []

    def read(name: str) -> Any:
        reads.append(name)
        return FACTS[name]

    files = [f"{i}.png" for i in range(N)]
    known = Known(labels=LABELS, files=files, facts=Columns(FACTS, read)).take(np.array([5, 1]))
    assert known.labels is not None
    assert (known.labels.tolist(), known.files, known.groups) == ([2, 1], ["5.png", "1.png"], None)
    assert reads == []
    assert [known.facts["side"].tolist() for _ in range(2)] == [[1, 1], [1, 1]]
    assert reads == ["side"]
    with pytest.raises(KeyError):
        known.facts["age"]


def test_plug_ins_find_the_record_by_its_old_name() -> None:
    from gankit.image_tables import Knowledge

    assert Knowledge is Known


def test_a_subset_is_chosen_by_indices_or_by_a_mask() -> None:
    data = Pictures()
    mask = np.arange(len(data)) % 3 == 1
    assert np.array_equal(data.subset(mask).images, data.images[mask])
    assert len(data.subset([])) == 0
    assert np.array_equal(data.subset([-1, 0]).images, data.images[[-1, 0]])
    for wrong in (mask[1:], [0.5], [[1]]):
        with pytest.raises(DataError, match=r"chosen by indices \(k,\), or by a mask of \d+ booleans; these are "):
            data.subset(wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"chosen by indices \(k,\); these are lists of several lengths"):
        data.subset([[0], [0, 1]])  # type: ignore[list-item]
    for index in (len(data), -len(data) - 1):
        with pytest.raises(DataError, match=f"there is no image {index}: the data set has {len(data)}"):
            data.subset([0, index])


@pytest.mark.parametrize("dtype", ["float64", ">u2"])
def test_pixels_of_other_types_are_refused_in_one_line(dtype: str) -> None:
    class Other(Pictures):
        value_range = 0.0, 1.0

        @property
        def images(self) -> Any:  # type: ignore[override]
            return np.zeros((N, 1, 4, 6), dtype)

    with pytest.raises(DataError, match=rf"images are {dtype}; the data set must give uint8, uint16 or float32"):
        prepare(DataTable(name="eyes"), 0, Other())


def test_a_notebook_shows_what_is_wrong_with_images_in_their_place() -> None:
    class Broken(Pictures):
        @property
        def images(self) -> Any:  # type: ignore[override]
            raise DataError("<1>.png cannot be read")

        def __len__(self) -> int:
            return N

    assert Broken()._repr_html_().endswith("<p>&lt;1&gt;.png cannot be read</p>")


def test_subsets_can_be_sent_to_other_processes() -> None:
    data = gankit.wrap("dataset", Pictures().images, labels=LABELS, facts=FACTS).subset([4, 9])
    copy = pickle.loads(pickle.dumps(data))
    assert copy.facts["side"].tolist() == data.facts["side"].tolist() == [0, 1]
