"""A data set made of arrays, of pictures, or of another library's data set."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gankit.errors import DataError
from gankit.images.grey_levels import check_range
from gankit.interfaces import Dataset, Images, ImageSpec, Known
from gankit.interfaces.dataset import flip_left_right


def _classes_or_facts(
    labels: NDArray[Any], names: Sequence[str] | None
) -> tuple[NDArray[Any] | None, Sequence[str] | None, dict[str, NDArray[Any]]]:
    """Labels as (n,) classes with their names, or as facts where an image may have several."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 1 and labels.dtype.kind in "OUS":
        texts = [str(label) for label in labels]
        known = list(names) if names else sorted(set(texts))
        if unknown := sorted(set(texts) - set(known)):
            raise DataError(f"labels has {str(unknown[0])!r}, which class_names lacks")
        return np.asarray([known.index(text) for text in texts]), known, {}
    if labels.ndim == 2 and np.isin(labels, (0, 1)).all():
        titles = names if names and len(names) == labels.shape[1] else [f"label-{k}" for k in range(labels.shape[1])]
        return None, None, {title: labels[:, k].astype(np.float64) for k, title in enumerate(titles)}
    return labels, names, {}


def _unpack(items: Any) -> tuple[NDArray[Any], list[Any] | None]:
    """The images and labels of a list of pictures, or of a data set of another library."""
    if isinstance(items, Tensor):
        return items.numpy(force=True), None
    if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        raise DataError(
            f"images are of type {type(items).__name__}; an array, a list or a data set with len() is needed"
        )
    images, labels = [], []
    for number in range(len(items)):
        item = items[number]
        if isinstance(item, Mapping):
            key = next((key for key in ("image", "img") if key in item), None)
            if key is None:
                raise DataError(f'item {number} has {", ".join(map(str, item))}; a key "image" is needed')
            item = (item[key], item["label"]) if "label" in item else item[key]
        if isinstance(item, tuple):
            labels.append(np.asarray(item[1]).tolist())
            item = item[0]
        if isinstance(item, Tensor):
            images.append(item.numpy(force=True))
        else:
            picture = np.asarray(item)
            planes = picture[:, :, None] if picture.ndim == 2 else picture
            channels_last = planes.ndim == 3 and planes.shape[2] in (1, 3, 4)
            images.append(np.moveaxis(planes, 2, 0) if channels_last else planes)
    if len({image.shape for image in images}) > 1:
        shapes = sorted({image.shape for image in images})
        raise DataError(f"images have several shapes, such as {shapes[0]} and {shapes[-1]}: give them one size")
    array = np.stack(images) if images else np.zeros((0, 1, 1, 1), np.uint8)
    return array, labels if labels and labels[0] is not None else None


@final
class Arrays(Dataset):
    """A data set of arrays in memory; see `gankit.wrap`.

    Args:
        images: (n, channels, height, width) uint8, uint16 or float32; (n, height, width, channels) is recognised where
            1, 3 or 4 channels come last. Or a list of pictures or arrays of one size, or a data set with `len` whose
            items are pictures, pairs of picture and label, or tables with "image" and "label". A memory-mapped array
            is not read into memory.
        labels: (n,) integers from 0, (n,) names, or None. Or (n, k) zeros and ones where an image can have several of k
            labels: these become facts "label-0" and so on, which can condition a training.
        class_names: one per class; their numbers by default.
        groups: (n,) group of each image, or None.
        agreement: (n,) share of the raters who chose the image's label, in [0, 1], or None.
        facts: further values of each image, such as its patient's age: (n, ...) arrays by name.
        value_range: the values of black and white; needed for float32.
        mirror: mirrors (n, c, h, w) arrays and tensors such that labels stay true; None where that is impossible.

    Raises:
        DataError: shapes or types do not fit.
    """

    def __init__(
        self,
        images: Any,
        *,
        labels: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        groups: ArrayLike | None = None,
        agreement: ArrayLike | None = None,
        facts: Mapping[str, ArrayLike] | None = None,
        value_range: tuple[float, float] | None = None,
        mirror: Callable[[Any], Any] | None = flip_left_right,
    ) -> None:
        if not isinstance(images, np.ndarray):
            images, own_labels = _unpack(images)
            labels = own_labels if labels is None else labels
        array = np.asanyarray(images)
        if array.ndim == 4 and array.shape[3] in (1, 3, 4) and array.shape[1] > 4:
            array = np.moveaxis(array, 3, 1)
        self._images = array
        if array.ndim != 4 or array.dtype not in (np.uint8, np.uint16, np.float32):
            raise DataError(
                f"images have the shape {array.shape} and type {array.dtype}; "
                "(n, channels, height, width) uint8, uint16 or float32 is needed"
            )
        if not len(array):
            raise DataError("there are no images in the array")
        if value_range is None and array.dtype == np.float32:
            raise DataError("float32 images need a value_range: the values that stand for black and white")
        check_range(array, value_range, "images")  # reads nothing where there is no range
        facts = dict(facts or {})
        if labels is not None:
            labels, class_names, label_facts = _classes_or_facts(np.asarray(labels), class_names)
            facts = {**label_facts, **facts}
        columns = {"labels": labels, "groups": groups, "agreement": agreement, **facts}
        arrays = {name: np.asarray(values) for name, values in columns.items() if values is not None}
        for name, values in arrays.items():
            if values.shape[:1] != (len(array),):
                raise DataError(f"{name} has the shape {values.shape}; there are {len(array)} images")
        classes, shares = arrays.get("labels"), arrays.get("agreement")
        if classes is not None and (classes.ndim != 1 or classes.dtype.kind not in "iub" or classes.min() < 0):
            raise DataError(f"labels must be (n,) whole numbers from 0, not {classes.shape} of {classes.dtype}")
        if shares is not None and not ((shares >= 0) & (shares <= 1)).all():
            raise DataError("agreement has values outside [0, 1]: it is the share of raters who chose the label")
        count = 0 if classes is None else int(classes.max()) + 1
        names = tuple(class_names) if class_names else tuple(map(str, range(count)))
        if len(names) < count or (names and not count):
            raise DataError(f"class_names has {len(names)} names for {count} classes in labels")
        self._known = Known(
            labels=None if classes is None else classes.astype(np.int64), class_names=names, agreement=shares,
            groups=arrays.get("groups"), facts={name: arrays[name] for name in facts},
        )  # fmt: skip
        self._range, self._mirror = value_range, mirror

    @property
    def image(self) -> ImageSpec:
        """Channels, height, width, and as many classes as there are class names."""
        channels, height, width = self._images.shape[1:]
        return ImageSpec(channels, height, width, classes=len(self._known.class_names))

    @property
    def images(self) -> NDArray[Any]:
        """(n, channels, height, width), as given."""
        images: NDArray[Any] = self._images
        return images

    @property
    def known(self) -> Known:
        """The labels, class names, groups, agreement and facts as given; without class names, classes are numbered."""
        return self._known

    @property
    def value_range(self) -> tuple[float, float]:
        """As given, or the type's whole range."""
        return super().value_range if self._range is None else self._range

    def mirror(self, images: Images) -> Images | None:
        """(n, c, h, w) images mirrored by the function given; None where there is none."""
        return self._mirror(images) if self._mirror else None
