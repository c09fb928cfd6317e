"""Data sets made of a stranger's arrays, labels and data sets."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
import torch
from PIL import Image

import gankit
from gankit.errors import DataError, GankitError
from gankit.experiments.tables import DataTable
from gankit.training.data import prepare
from gankit.training.description import summarise

Small = Callable[..., list[str]]


def images(n: int = 12, dtype: Any = np.uint8) -> Any:
    draw = np.random.default_rng(0)
    return (
        draw.random((n, 3, 8, 8), dtype=np.float32)
        if dtype == np.float32
        else draw.integers(0, 255, (n, 3, 8, 8), dtype)
    )


def test_arrays_with_all_that_is_known_train(small: Small, tmp_path: Path) -> None:
    data = gankit.wrap(
        "dataset", images(), labels=[0, 1, 2] * 4, class_names=("a", "b", "c"), groups=np.arange(12) // 3,
        agreement=np.linspace(0.5, 1, 12), facts={"severity": np.arange(12.0)}, mirror=None,
    )  # fmt: skip
    assert (len(data), data.image.classes, data.value_range) == (12, 3, (0.0, 255.0))
    assert data.mirror(data.images) is None
    assert [data.class_names[k] for k in data.subset([4]).labels] == ["b"]
    overrides = [text for text in small("training.steps=2") if not text.startswith("data.")]
    experiment = gankit.load("wgan-gp", *overrides, "data.flip=false", "data.size=8", 'data.conditional=["severity"]')
    run = gankit.train(experiment, tmp_path / "run", data=data)
    assert run.image.conditions == 1
    assert run.sample(2, labels=[4.5]).dtype == np.uint8


def test_arrays_mirror_by_default() -> None:
    data = gankit.wrap("dataset", images())
    assert np.array_equal(data.mirror(data.images), data.images[..., ::-1])
    tensor = torch.from_numpy(data.images)
    assert torch.equal(data.mirror(tensor), tensor.flip(-1))
    assert data.labels is None
    assert data.image == gankit.ImageSpec(3, 8, 8)


class Unreadable:
    """A data set of another library, one of whose files is missing."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        raise OSError("no such file")


@pytest.mark.parametrize(
    ("array", "facts", "message"),
    [
        (np.zeros((4, 8, 8), np.uint8), {}, r"images have the shape \(4, 8, 8\)"),
        (np.zeros((4, 3, 8, 8)), {}, "type float64"),
        (np.zeros((0, 3, 8, 8), np.uint8), {}, "there are no images"),
        (images(dtype=np.float32), {}, "float32 images need a value_range"),
        (images(dtype=np.float32) * 3, {"value_range": (0.0, 1.0)}, r"outside value_range = \[0, 1\]; widen"),
        (images(dtype=np.float32) * np.nan, {"value_range": (0.0, 1.0)}, "some values are NaN, outside value_range"),
        (images(), {"labels": [0, 1]}, r"labels has the shape \(2,\); there are 12 images"),
        (images(), {"labels": np.arange(12) / 2}, r"labels must be \(n,\) whole numbers from 0, not .* float64"),
        (images(), {"labels": np.arange(12) - 1}, "labels has -1; they must be whole numbers from 0"),
        (images(), {"labels": ["exotrop\u00eda", "exotropi\u0301a"] * 6}, r"exotropi\\u0301a' and .* two spellings"),
        (images(), {"labels": ["a b", "a\u00a0b"] * 6}, "one name in two spellings"),
        (images(), {"labels": ["1", "01"] * 6}, "one name in two spellings"),
        (images(), {"labels": ["a", " "] * 6}, "labels has no value for image 1"),
        ([(image, {"boxes": [1]}) for image in images()], {}, "labels has a dict; .* or names, .*; labels = .none."),
        ([(image, image[0]) for image in images()], {}, r"labels has the shape \(12, 8, 8\); .*; labels = .none."),
        ([(image, [[1], [1, 2]]) for image in images()], {}, "label 0 cannot be an array: .*; labels = .none."),
        ([(image, [1] * (2 + k)) for k, image in enumerate(images())], {}, "several lengths; labels = .none."),
        ([(image, k / 2) for k, image in enumerate(images())], {}, "not .* float64; labels = .none. leaves out"),
        ([["a.png", 0], ["b.png", 1]], {}, "image 0 is the name of a file"),
        (images(), {"groups": np.array(["2020-01-01", "NaT"] * 6, "M8[D]")}, "groups has no value for image 1"),
        (images(), {"facts": [1, 2]}, r"facts is \[1, 2\]: give a dict of arrays by name"),
        (images(), {"mirror": True}, "mirror is True: give a function, or None"),
        (np.ma.masked_greater(images(), 200), {}, "images has values that are masked out"),
        (images(), {"labels": np.ma.masked_equal([0, 1] * 6, 1)}, "labels has values that are masked out"),
        (images(), {"facts": {"age": np.ma.masked_equal([0, 1] * 6, 1)}}, "age has values that are masked out"),
        (np.zeros((4, 16, 16, 2), np.uint8), {}, "have more channels than pixels across; put channels first"),
        (np.zeros((16, 16, 3, 9), np.uint8), {}, "have more channels than pixels across; put channels first"),
        (np.zeros((4, 3, 0, 8), np.uint8), {}, r"there are no images in an array of shape \(4, 3, 0, 8\)"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.bfloat16), {}, "images cannot be an array: .* BFloat16"),
        (torch.zeros(4, 3, 8, 8, device="meta"), {}, "images cannot be an array: .* no data"),
        (Unreadable, {}, "images are of type type"),
        (images(), {"labels": 2 * np.eye(12, dtype=int)}, r"labels must be \(n,\)"),
        (images(), {"labels": [0, 10**9] * 6}, "labels has the class 1000000000: number classes 0, 1"),
        (images(), {"labels": ["a", None] * 6}, "labels has no value for image 1"),
        (images(), {"labels": [[0]] * 11 + [[0, 1]]}, "labels cannot be an array: its rows have several lengths"),
        (images(), {"labels": np.eye(12, dtype=int), "class_names": ("a", "b")}, "2 names for 12 columns of labels"),
        (
            images(),
            {"labels": np.eye(12, dtype=int)[:, :2], "facts": {"label-1": range(12)}},
            "facts has 'label-1', and so have the labels",
        ),
        (images(), {"labels": [0, 1] * 6, "class_names": ("a", "a")}, "class_names has 'a' twice"),
        (images(), {"labels": [0, 1] * 6, "class_names": ("a", "A")}, "class_names has 'A' and 'a'"),
        (images(), {"groups": [1.0, np.nan] * 6}, r"groups has no value for image 1 \(nan\)"),
        (images(), {"groups": ["a", "nan"] * 6}, r"groups has no value for image 1 \(nan\)"),
        (images(), {"groups": np.array(["a", None] * 6, object)}, r"groups has no value for image 1 \(None\)"),
        (images(), {"labels": np.array(["a", np.nan] * 6, object), "class_names": ("a", "nan")}, "no value for"),
        (images(), {"groups": ["a", "a\u200b"] * 6}, r"groups: 'a' and 'a\\u200b' look alike"),
        (images(), {"agreement": ["high"] * 12}, r"agreement has values outside \[0, 1\]"),
        (images(), {"facts": {"age": None}}, r"age has the shape \(\)"),
        (images(), {"value_range": (1.0, 0.0)}, r"value_range = \[1, 0\] must be two finite numbers"),
        (images(), {"value_range": (0.0, 1.0, 2.0)}, r"value_range = \(0.0, 1.0, 2.0\) must be two finite numbers"),
        ([Image.new("RGBA", (8, 8))], {}, "image 0 is partly transparent"),
        ([np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint16)], {}, "several shapes or types, such as .* uint16"),
        ([], {}, "there are no images"),
        ("photos", {}, "images are of type str"),
        ([Path("a.png"), "b.png"], {}, "image 0 is the name of a file: open it with Pillow"),
        (images(), {"labels": ["a", "b"] * 6, "class_names": ("a",)}, "labels has 'b', which class_names lacks"),
        ([np.zeros((3, 8, 8), np.uint8), np.zeros((3, 9, 8), np.uint8)], {}, "images have several shapes"),
        ([{"picture": 1}], {}, 'item 0 has the keys picture; "image" is needed'),
        (iter([]), {}, r"a data set with len\(\) is needed"),
        ({"train": images()}, {}, r"images are of type dict; an array, a list or a data set with len\(\) is needed"),
        (Unreadable(), {}, r"item 0 cannot be read: OSError: no such file"),
        ([(), ()], {}, r"images have the shape \(2, 0\)"),
        ([(images()[0], None), (images()[1], 1)], {}, "labels has no value for image 0"),
        ([(images()[0], 1), (images()[1],)], {}, "labels has no value for image 1"),
        (images(), {"labels": [0, 1, 2] * 4, "class_names": "cat"}, "class_names is of type str: give a list"),
        (images(), {"labels": [0, 1] * 6, "class_names": {"a", "b"}}, "class_names is of type set: give a list"),
        (images(), {"labels": [0, 1] * 6, "class_names": {1: "a", 0: "b"}}, "class_names is of type dict"),
        (images(), {"labels": [0, 2] * 6, "class_names": ("a", "b")}, "class_names has 2 names for 3 classes"),
        (images(), {"class_names": ("a", "b")}, "class_names has 2 names for 0 classes"),
        (images(), {"agreement": np.full(12, 80)}, r"agreement has values outside \[0, 1\]"),
        (images(), {"facts": {"age": [1]}}, r"age has the shape \(1,\)"),
        (images(), {"groups": 3}, r"groups has the shape \(\)"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(array: Any, facts: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        gankit.wrap("dataset", array, **facts)
    assert isinstance(caught.value, GankitError)
    assert "\n" not in str(caught.value)


def test_memory_maps_stay_on_the_disk_and_channels_may_come_last(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", images().transpose(0, 2, 3, 1))
    data = gankit.wrap("dataset", np.load(tmp_path / "images.npy", mmap_mode="r"))
    assert isinstance(data.images, np.memmap)
    assert data.image == gankit.ImageSpec(3, 8, 8)
    assert np.array_equal(data.images, images())


def test_labels_of_every_form() -> None:
    numbers = np.arange(12) % 3
    assert np.array_equal(gankit.wrap("dataset", images(), labels=numbers[:, None]).labels, numbers)
    texts = gankit.wrap("dataset", images(), labels=np.array(["cat", "ape", "dog"])[numbers])
    assert [texts.class_names[k] for k in texts.labels[:3]] == ["cat", "ape", "dog"]  # type: ignore[index]
    assert texts.class_names == ("ape", "cat", "dog")
    keys = gankit.wrap("dataset", images(), labels=[0, 1] * 6, class_names={"left": 0, "right": 1}.keys())
    assert keys.class_names == ("left", "right")
    several = gankit.wrap("dataset", images(), labels=np.eye(12, dtype=int)[:, :2], class_names=["left", "right"])
    assert several.labels is None
    assert several.facts["right"].tolist()[:3] == [0, 1, 0]


class Items:
    """A map-style data set."""

    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return 12

    def __getitem__(self, number: int) -> Any:
        return self.item(number)


@pytest.mark.parametrize(
    "item",
    [
        lambda k: (Image.fromarray(images()[k].transpose(1, 2, 0)), k % 3),
        lambda k: {"image": Image.fromarray(images()[k].transpose(1, 2, 0)), "label": k % 3},
        lambda k: (torch.from_numpy(images()[k]), torch.tensor(k % 3)),
        lambda k: {"img": images()[k], "label": k % 3},
        lambda k: {"img": images()[k], "id": k, "Labels": k % 3},
        lambda k: {"image": images()[k], "target": np.array([k % 3])},
        lambda k: {"image": images()[k], "class": float(k % 3)},
        lambda k: {"image": images()[k], "y": torch.tensor(k % 3)},
        lambda k: [images()[k], k % 3],
        lambda k: [Image.fromarray(images()[k].transpose(1, 2, 0)), torch.tensor(k % 3)],
    ],
)
def test_data_sets_of_other_libraries(item: Callable[[int], Any]) -> None:
    data = gankit.wrap("dataset", Items(item))
    assert np.array_equal(data.images, images())
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2] * 4


def test_classes_with_numbers_for_names_are_in_the_order_of_numbers() -> None:
    for labels in (np.arange(12).astype(object), np.arange(12).astype(str)):
        data = gankit.wrap("dataset", images(), labels=labels)
        assert data.labels is not None
        assert data.labels.tolist() == list(range(12))
        assert data.class_names == tuple(map(str, range(12)))


def test_an_array_without_a_masked_value_is_a_plain_one() -> None:
    data = gankit.wrap("dataset", np.ma.masked_array(images()), labels=np.ma.masked_array(np.arange(12)))
    assert type(data.images) is np.ndarray
    assert np.array_equal(data.images, images())


def test_labels_may_be_bytes_and_a_fact_may_be_called_labels() -> None:
    data = gankit.wrap(
        "dataset", images(), labels=np.array([b"cat", b"dog"] * 6), class_names=np.array(["dog", "cat"]),
        groups=np.arange(12)[:, None], facts={"groups": np.ones(12)},
    )  # fmt: skip
    assert (data.class_names, data.labels.tolist()) == (("dog", "cat"), [1, 0] * 6)  # type: ignore[union-attr]
    assert data.groups.tolist() == list(range(12))  # type: ignore[union-attr]
    assert data.facts["groups"].tolist() == [1.0] * 12


class Animal(str, enum.Enum):  # noqa: UP042 - a StrEnum prints its text
    """Prints as `Animal.cat`; its text is short, to which NumPy would cut that."""

    cat, dog = "cat", "dog"


@pytest.mark.parametrize("form", [list, lambda labels: np.array(labels, object)])
def test_members_of_enums_are_their_texts(form: Callable[[Any], Any]) -> None:
    labels = [Animal.dog, Animal.cat] * 6
    for names in (None, [Animal.cat, "dog"]):
        data = gankit.wrap(
            "dataset", images(), labels=form(labels), groups=labels, facts={"f": labels}, class_names=names
        )
        assert (data.class_names, data.labels.tolist()) == (("cat", "dog"), [1, 0] * 6)  # type: ignore[union-attr]
        assert data.groups.tolist() == data.facts["f"].tolist() == ["dog", "cat"] * 6  # type: ignore[union-attr]
    assert gankit.wrap("dataset", list(zip(images(), labels, strict=True))).class_names == ("cat", "dog")


@pytest.mark.parametrize("length", [FileNotFoundError("no index.csv"), ValueError("__len__() should return >= 0")])
def test_a_data_set_whose_length_fails_is_refused_with_its_reason(length: Exception) -> None:
    items = MagicMock(__len__=Mock(side_effect=length))
    reason = f"len() of the images, a MagicMock, failed: {type(length).__name__}: {length}"
    with pytest.raises(DataError, match=f"^{re.escape(reason)}$"):
        gankit.wrap("dataset", items)


def test_a_data_set_without_a_length_is_refused() -> None:
    class Endless(torch.utils.data.Dataset[Any]):
        def __getitem__(self, index: int) -> Any:
            return images()[0]

    with pytest.raises(DataError, match=r"^images are of type Endless; an array, a list or a data set with len\(\)"):
        gankit.wrap("dataset", Endless())


def test_pictures_with_a_palette_are_read_in_colour() -> None:
    picture = Image.new("RGB", (8, 8), (200, 100, 0))
    data = gankit.wrap("dataset", [picture, picture.quantize()])
    assert data.image == gankit.ImageSpec(3, 8, 8)
    assert np.array_equal(data.images[0], data.images[1])


def test_small_arrays_with_channels_first_stay_as_they_are() -> None:
    data = gankit.wrap("dataset", [np.zeros((3, 4, 4), np.uint8)] * 2)
    assert data.image == gankit.ImageSpec(3, 4, 4)
    assert len(gankit.wrap("dataset", torch.utils.data.TensorDataset(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)))) == 5


@pytest.mark.parametrize("label", [np.zeros((8, 8)), {"boxes": [1]}, [[1], [1, 2]], 0.5])
def test_labels_of_items_that_are_no_classes_can_be_left_out(label: Any) -> None:
    items = [(image, label) for image in images()]
    assert gankit.wrap("dataset", items, labels="none").labels is None
    given = gankit.wrap("dataset", items, labels=np.arange(12.0) % 3).labels
    assert given is not None
    assert given.tolist() == [0, 1, 2] * 4


def test_words_for_missing_values_that_are_classes() -> None:
    assert gankit.wrap("dataset", images(), labels=["None", "Mild"] * 6).class_names == ("Mild", "None")
    for label in ("None", "nan"):
        data = gankit.wrap(
            "dataset", images(), labels=np.array([label, "Mild"] * 6, object), class_names=(label, "Mild")
        )
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1] * 6


@pytest.mark.parametrize(
    ("groups", "read"),
    [
        ([2, "1", 2.0], ["2", "1", "2"]),
        ([2, "1", np.float32(2)], ["2", "1", "2"]),
        ([101, "102A", 101], ["101", "102A", "101"]),
        ([b"p1", "p1", b"p\xff"], ["p1", "p1", "p\\xff"]),
    ],
)
def test_groups_of_several_types_are_text(groups: list[Any], read: list[str]) -> None:
    data = gankit.wrap("dataset", images(), groups=np.array(groups * 4, object))
    assert data.groups is not None
    assert data.groups.tolist() == read * 4
    assert "12 images of 2 patients" in summarise(prepare(DataTable(name="eyes"), 0, data))
    assert "held out" in summarise(prepare(DataTable(name="eyes", held_out=0.5), 0, data))


def test_keys_that_may_be_labels_are_named() -> None:
    items = [{"image": image, "coarse_label": 1, "fine_label": 2} for image in images()]
    data = gankit.wrap("dataset", items)
    assert data.labels is None
    assert data.remarks == [
        "no label is read from the items, whose other keys are 'coarse_label', 'fine_label': give labels"
    ]
    for labels in ("none", [0, 1] * 6):
        assert gankit.wrap("dataset", items, labels=labels).remarks == []


def test_channels_and_rows_in_lists_stay_images() -> None:
    rows = images()[0]
    assert gankit.wrap("dataset", [list(rows[:2]), list(rows[1:])]).image == gankit.ImageSpec(2, 8, 8)
    assert gankit.wrap("dataset", [list(rows[0]), list(rows[1])]).image == gankit.ImageSpec(1, 8, 8)


def test_a_list_of_pictures() -> None:
    grey = [Image.fromarray(image[0]) for image in images()]
    assert gankit.wrap("dataset", grey).image == gankit.ImageSpec(1, 8, 8)
