"""A data set made of arrays, of pictures, or of another library's data set."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from gankit.errors import DataError, blame, cause, counted, first_of, is_fault_of_machine
from gankit.images.columns import complete, means, shares, whole
from gankit.images.decoding import Decoder
from gankit.images.grey_levels import check_range, valid_range
from gankit.images.labels_csv import number_classes
from gankit.images.names import escaped, two_spellings
from gankit.interfaces import Dataset, Images, ImageSpec, Known
from gankit.interfaces.dataset import flip_left_right
from gankit.registry.messages import shown

_MOST_CLASSES = 100_000
_LABELS = ("target", "targets", "y")
"""Keys under which items of other libraries hold labels, besides the usual words of tables."""
_NO_LABELS = '; labels = "none" leaves out those that images come with'


def as_array(values: Any, name: str) -> NDArray[Any]:
    """Values of any shape as an array of that shape.

    Raises:
        DataError: some are masked out, or NumPy cannot hold them; the error calls the values `name`.
    """
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.is_masked(values):
            raise DataError(f"{name} has values that are masked out: fill them, or leave such images out")
        values = values.data
    try:
        if isinstance(values, (Tensor, np.memmap)):  # a memory map stays one
            return values.numpy(force=True) if isinstance(values, Tensor) else values
        return np.asarray(list(map(as_text, values)) if isinstance(values, (list, tuple)) else as_text(values))
    except Exception as error:  # NumPy has not all types and layouts that tensors can have
        if is_fault_of_machine(error):
            raise
        reason = "its rows have several lengths" if isinstance(error, ValueError) else cause(error)
        raise DataError(f"{name} cannot be an array: {reason}") from None


def as_text(value: Any) -> Any:
    """A text as a plain `str`; of an enum's member, NumPy would cut off what the member prints."""
    return str.__str__(value) if isinstance(value, str) else value


def _unpack(items: Any) -> tuple[NDArray[Any], list[Any] | None, list[str]]:
    """The images of an array, a list of pictures, or a data set of another library; its labels; and keys not read."""
    if isinstance(items, (np.ndarray, Tensor)):
        return as_array(items, "images"), None, []
    kind = type(items)  # `len` and brackets look there, too
    if isinstance(items, (str, Mapping)) or not (hasattr(kind, "__len__") and hasattr(kind, "__getitem__")):
        raise DataError(f"images are of type {kind.__name__}; an array, a list or a data set with len() is needed")
    with blame(DataError, f"len() of the images, a {kind.__name__}, failed:"):
        count = len(items)
    images: list[NDArray[Any]] = []
    labels: list[Any] = []
    not_read: dict[str, None] = {}
    for number in range(count):
        with blame(DataError, f"item {number} cannot be read:"):  # a data set of another library may raise anything
            item = items[number]
        image, label, others = _image_and_label(item, number)
        images.append(_channels_first(image, f"image {number}"))
        labels.append(label)
        not_read |= dict.fromkeys(others)
    if not images:
        raise DataError("there are no images")
    forms = sorted({f"{image.shape} {image.dtype}" for image in images})
    if len(forms) > 1:
        raise DataError(
            f"images have several shapes or types, such as {forms[0]} and {forms[-1]}: give them one size, one number "
            "of channels and one type"
        )
    has_labels = any(label is not None for label in labels)
    return np.stack(images), labels if has_labels else None, list(not_read)


def _image_and_label(item: Any, number: int) -> tuple[Any, Any, list[str]]:
    """The image that an item is or holds; its label, or None where it has none; and the keys that are neither."""
    if isinstance(item, Mapping):
        key = next((key for key in ("image", "img") if key in item), None)
        if key is None:
            raise DataError(f'item {number} has the keys {", ".join(map(str, item))}; "image" is needed')
        others = [other for other in item if other != key]
        found = [other for other in others if means(str(other), "label") or str(other).casefold() in _LABELS]
        label_key = "label" if "label" in found else found[0] if len(found) == 1 else None
        return item[key], item.get(label_key), [str(other) for other in others if other != label_key]
    is_pair = isinstance(item, tuple) and bool(item)
    if isinstance(item, list) and len(item) == 2:
        # An image, or a pair? Two numbers, rows or channels of an image are alike; an image and its label are not.
        first, second = (getattr(part, "shape", ()) for part in item)
        is_pair = isinstance(item[0], (Image.Image, str, Path)) or (len(first) > 1 and first != second)
    return (item[0], item[1] if len(item) > 1 else None, []) if is_pair else (item, None, [])


def _channels_first(item: Any, where: str) -> NDArray[Any]:
    """A picture, or an array of two or three axes, as an array whose first axis is that of channels."""
    if isinstance(item, Image.Image):
        return Decoder().stored(item, where)
    if isinstance(item, (str, Path)):
        raise DataError(
            f"{where} is the name of a file: open it with Pillow, or train on its folder (data.name=folder)"
        )
    array = as_array(item, where)
    return array[None] if array.ndim == 2 else array


def _column(values: Any, name: str, n: int, names: tuple[str, ...] = ()) -> NDArray[Any]:
    """(n,) or (n, 1) values of n images as (n,), none missing; texts such as "nan" may be among `names`, of classes."""
    array = as_array(values, name)
    if array.shape not in ((n,), (n, 1)):
        raise DataError(f"{name} has the shape {array.shape}; there are {n} images: {name} must be (n,)")
    return complete(array.reshape(n), name, groups=name == "groups", names=names)


def _classes(labels: NDArray[Any], names: tuple[str, ...]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The class number of each image, from (n,) labels that are numbers or names; and the name of each class."""
    if labels.dtype.kind == "O" and all(isinstance(label, (int, np.integer, np.bool_)) for label in labels):
        labels = np.array(labels.tolist())
    if labels.dtype.kind in "OUS":
        if odd := [label for label in labels if not isinstance(label, (str, bytes, int, np.integer, np.bool_))]:
            raise DataError(f"labels has a {type(odd[0]).__name__}; whole numbers from 0, or names, are needed")
        texts = [
            label.decode(errors="replace") if isinstance(label, bytes) else str(as_text(label)) for label in labels
        ]
        if not names:
            return number_classes(texts)
        if unknown := sorted(set(texts) - set(names)):
            raise DataError(f"labels has {escaped(unknown[0])}, which class_names lacks")
        numbers = {name: number for number, name in enumerate(names)}
        return np.array([numbers[text] for text in texts], dtype=np.int64), names
    labels = whole(labels)
    if labels.dtype.kind not in "iub":
        raise DataError(f"labels must be (n,) whole numbers from 0, not {labels.shape} of {labels.dtype}")
    if labels.min() < 0:
        raise DataError(f"labels has {labels.min()}; they must be whole numbers from 0")
    count = int(labels.max()) + 1
    if count > _MOST_CLASSES:
        raise DataError(f"labels has the class {count - 1}: number classes 0, 1, ... without gaps, or give their names")
    names = names or tuple(map(str, range(count)))
    if len(names) < count:
        raise DataError(f"class_names has {counted(len(names), 'name')} for {count} classes in labels")
    return labels.astype(np.int64), names


def _read_labels(n: int, labels: Any, names: tuple[str, ...]) -> Known:
    """The (n,) classes and their names; facts where an image can have several labels."""
    if labels is None:
        if names:
            raise DataError(f"class_names has {counted(len(names), 'name')} for 0 classes in labels")
        return Known()
    labels = as_array(labels, "labels")
    if labels.ndim == 2 and labels.shape[1] > 1 and np.isin(labels, (0, 1)).all():
        columns = labels.shape[1]
        if len(names) not in (0, columns):
            raise DataError(f"class_names has {counted(len(names), 'name')} for {columns} columns of labels")
        titles = names or [f"label-{column}" for column in range(columns)]
        return Known(facts={title: labels[:, column].astype(np.float64) for column, title in enumerate(titles)})
    classes, names = _classes(_column(labels, "labels", n, names), names)
    return Known(labels=classes, class_names=names)


def _check_class_names(names: Sequence[str] | None) -> tuple[str, ...]:
    """The names of classes, which must be distinct; () for None."""
    if isinstance(names, (str, Mapping, set, frozenset)):  # letters would become names, and sets have no order
        raise DataError(f"class_names is of type {type(names).__name__}: give a list with one name per class")
    texts = () if names is None else tuple(str(as_text(name)) for name in names)
    if alike := two_spellings(texts):
        raise DataError(f"class_names has {alike}: give each class a name of its own")
    return texts


def _read_others(n: int, known: Known, groups: Any, agreement: Any, facts: Mapping[str, ArrayLike]) -> Known:
    """What is known of n images by their labels and by these arrays, every one of which is checked."""
    if not isinstance(facts, Mapping) or not all(isinstance(name, str) for name in facts):
        raise DataError(f"facts is {shown(facts)}: give a dict of arrays by name")
    arrays = {name: as_array(values, name) for name, values in facts.items()}
    if taken := known.facts.keys() & arrays.keys():
        raise DataError(f"facts has {min(taken)!r}, and so have the labels: give the fact another name")
    arrays = {**known.facts, **arrays}
    for name, values in arrays.items():
        if values.shape[:1] != (n,):
            raise DataError(f"{name} has the shape {values.shape}; there are {n} images")
    return dataclasses.replace(
        known,
        groups=None if groups is None else _column(groups, "groups", n),
        agreement=None if agreement is None else shares(_column(agreement, "agreement", n), "agreement"),
        facts=arrays,
    )


@final
class Arrays(Dataset):
    """A data set of arrays in memory; see `gankit.wrap`.

    Args:
        images: (n, channels, height, width) uint8, uint16 or float32; (n, height, width, channels) is recognised where
            1, 3 or 4 channels come last. Or a list of pictures or arrays of one size, or a data set with `len` whose
            items are pictures, pairs of picture and label, or dictionaries with the key "image" or "img", and
            "label" or one usual word for it, such as "class", "diagnosis" or "target"; of several such words none is
            read. Pictures are read as those of a folder: palettes become colours. A memory-mapped array stays on disk.
        labels: (n,) whole numbers from 0, (n,) names, or None for those of the items. "none" leaves these out, as
            is necessary where they are masks or boxes. Or (n, k) zeros and ones where an image can have several of k
            labels: these become facts, which can condition a training.
        class_names: one per class; by default the names in `labels`, or the numbers. Where labels are (n, k), one per
            column; by default "label-0" and so on.
        groups: (n,) group of each image, or None.
        agreement: (n,) share of the raters who chose the image's label, in [0, 1], or None.
        facts: further values of each image, such as its patient's age: (n, ...) arrays by name.
        value_range: the values of black and white; needed for float32.
        mirror: mirrors (n, c, h, w) arrays and tensors such that labels stay true; None where that is impossible.

    Raises:
        DataError: shapes or types do not fit, values are missing, two classes have one name, or a picture cannot be
            read without loss.
    """

    def __init__(
        self, images: Any, *, labels: ArrayLike | None = None, class_names: Sequence[str] | None = None,
        groups: ArrayLike | None = None, agreement: ArrayLike | None = None,
        facts: Mapping[str, ArrayLike] | None = None, value_range: tuple[float, float] | None = None,
        mirror: Callable[[Any], Any] | None = flip_left_right,
    ) -> None:  # fmt: skip
        images, item_labels, other_keys = _unpack(images)
        self._not_read = other_keys if labels is None and item_labels is None else []
        if images.ndim == 4 and images.shape[3] in (1, 3, 4) and images.shape[1] > 4:
            images = np.moveaxis(images, 3, 1)
        if images.ndim != 4 or images.dtype not in (np.uint8, np.uint16, np.float32):
            raise DataError(
                f"images have the shape {images.shape} and type {images.dtype}; "
                "(n, channels, height, width) uint8, uint16 or float32 is needed"
            )
        if not images.size:
            raise DataError(f"there are no images in an array of shape {images.shape}")
        if images.shape[1] > max(3, min(images.shape[2:])):
            raise DataError(f"images of shape {images.shape} have more channels than pixels across; put channels first")
        if mirror is not None and not callable(mirror):
            raise DataError(f"mirror is {shown(mirror)}: give a function, or None")
        if value_range is None and images.dtype == np.float32:
            raise DataError("float32 images need a value_range: the values that stand for black and white")
        self._images: NDArray[Any] = images
        self._range, self._mirror = valid_range(value_range), mirror
        check_range(images, self._range, "images")  # reads a memory-mapped array, but only if a range is given
        names = _check_class_names(class_names)
        chosen: Any = None if isinstance(labels, str) and labels == "none" else labels
        try:
            if labels is None and item_labels is not None:
                chosen = [x if x is None else as_array(x, f"label {k}")[()] for k, x in enumerate(item_labels)]
            known = _read_labels(len(images), chosen, names)
        except DataError as error:
            raise DataError(f"{error}{_NO_LABELS if item_labels is not None else ''}") from None
        self._known = _read_others(len(images), known, groups, agreement, facts or {})

    @property
    def image(self) -> ImageSpec:
        """Channels, height, width, and as many classes as there are class names."""
        channels, height, width = self._images.shape[1:]
        return ImageSpec(channels, height, width, classes=len(self._known.class_names))

    @property
    def images(self) -> NDArray[Any]:
        """(n, channels, height, width), as given."""
        return self._images

    @property
    def known(self) -> Known:
        """The labels, class names, groups, agreement and facts; class names are by default those in the labels."""
        return self._known

    @property
    def remarks(self) -> list[str]:
        """Which keys of the items are not read, where none of them was read as a label."""
        keys = first_of(list(map(escaped, self._not_read)), 5)
        return [f"no label is read from the items, whose other keys are {keys}: give labels"] if keys else []

    @property
    def value_range(self) -> tuple[float, float]:
        """As given, or the type's whole range."""
        return super().value_range if self._range is None else self._range

    def mirror(self, images: Images) -> Images | None:
        """(n, c, h, w) images mirrored by the function given; None where there is none."""
        return self._mirror(images) if self._mirror else None
