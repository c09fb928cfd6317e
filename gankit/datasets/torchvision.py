"""Any image classification data set of torchvision.datasets, by the name of its class."""

import inspect
import operator
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torchvision.datasets
from numpy.typing import NDArray
from PIL import Image

from gankit.cache import fingerprint, user_path
from gankit.errors import DataError, cause, suggestion
from gankit.images.decoding import FORMAT, Decoder, Form, damage_as_data_error, decode_all
from gankit.images.grey_levels import check_range
from gankit.images.known import Known
from gankit.images.resizing import Fit
from gankit.images.room import too_many
from gankit.interfaces import DecodedDataset, ImageSpec
from gankit.registry.messages import shown

_TARGETS = ("targets", "labels", "_labels")  # where torchvision's classes keep all targets, if they do
_NO_OPTIONS = ("self", "root", "download", "transform", "target_transform", "transforms")


@final
class Torchvision(DecodedDataset):
    """Pictures and classes of a torchvision data set, such as MNIST, CIFAR10, ImageFolder or FakeData.

    Classes without an image are left out, so that labels count from 0 without gaps; `class_names` says which remain.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        *,
        dataset: str,
        root: str | Path | None = None,
        options: dict[str, Any] | None = None,
        download: bool = False,
        fit: Fit = "crop",
        grey: bool | None = None,
        value_range: tuple[float, float] | None = None,
        in_memory: bool = True,
        mirror_keeps_label: bool = True,
    ) -> None:
        """
        Args:
            size: (height, width) to resize to, or None where all pictures have one size.
            dataset: name of the class in torchvision.datasets.
            root: the folder that torchvision reads, or downloads to; a relative path starts at the current folder.
            options: the class's own further arguments, such as {"train": False} or {"split": "test"}.
            download: whether torchvision may fetch what is missing in `root`.
            fit: how to resize: "crop" fills the size, "pad" adds black bars, "stretch" distorts.
            grey: True reads all as grey, False all as colour, None as they are (all must be alike).
            value_range: the values of black and white; by default 0 and the largest of the depth.
            in_memory: False keeps the decoded pictures memory-mapped in the cache on disk.
            mirror_keeps_label: False where left and right matter to the label.

        Raises:
            DataError: an unknown data set or option, or a value_range that is none; all else is raised when first
                needed.
        """
        super().__init__(in_memory=in_memory, mirror_keeps_label=mirror_keeps_label, value_range=value_range)
        self.dataset = dataset
        self.root = None if root is None else user_path(root)
        self.options = dict(options or {})
        self.download = download
        self.decoder = Decoder(None if size is None else (size[0], size[1]), fit, grey)
        self._arguments = _arguments(_class(dataset), self.root, self.options, download)

    @cached_property
    def _source(self) -> Any:
        """The torchvision data set, which must hold pictures."""
        try:
            source = _class(self.dataset)(**self._arguments)
            count = len(source)
            first = source[0][0] if count else None
        except Exception as error:  # strangers' code, with errors of any type for a missing file or a lost connection
            reason = cause(error)
            fetch = ", or set download = true" if "download" in self._arguments else ""
            advice = "check the connection" if self.download else f"put it there{fetch}"
            where = "" if self.root is None else f" in {self.root}"
            raise DataError(f"torchvision {self.dataset} cannot be read{where}: {reason}; {advice}") from None
        if not count:
            raise DataError(f"torchvision {self.dataset} holds no images; check root and options")
        if not isinstance(first, Image.Image):
            raise DataError(
                f"torchvision {self.dataset} gives {type(first).__name__}, not pictures; choose an image data set"
            )
        if reason := too_many(count, self.decoder.form(first, self._name(0)).shape):
            raise DataError(f"torchvision {self.dataset}: {reason}")
        return source

    def _name(self, index: int) -> str:
        return f"{self.dataset} image {index}"

    def _item(self, index: int) -> Any:
        """A picture and its target."""
        with damage_as_data_error(self._name(index)):
            return self._source[index]

    @cached_property
    def _form(self) -> Form:
        return self.decoder.form(self._item(0)[0], self._name(0))

    @property
    def image(self) -> ImageSpec:
        """Channels, height and width of the first picture, and the number of classes; decodes nothing more."""
        return ImageSpec(*self._form.shape, classes=len(self.known.class_names))

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16, by the first picture."""
        return self._form.dtype

    def cache_key(self) -> str:
        """By the files below the root, their sizes and times of change, and how they are decoded."""
        files = [] if self.root is None else sorted(file for file in self.root.resolve().rglob("*") if file.is_file())
        options = (self.dataset, sorted(self.options.items()), self.decoder, self.declared_range, len(self))
        return fingerprint("torchvision", files, (FORMAT, torchvision.__version__, options))

    def decode(self) -> NDArray[Any]:
        """(n, channels, height, width) uint8 or uint16.

        Raises:
            DataError: a picture differs from the first in size, depth or colour.
        """
        names = [self._name(index) for index in range(len(self))]
        # One thread: nothing says that strangers' data sets can be read by several.
        images = decode_all(names, lambda index: self._item(index)[0], self.decoder, threads=1)
        check_range(images, self.declared_range, f"torchvision {self.dataset}")
        return images

    def _read_targets(self) -> NDArray[np.int64] | None:
        """torchvision's own class numbers, or None where it has none."""
        kept = (getattr(self._source, name, None) for name in _TARGETS)
        values = next((values for values in kept if values is not None and len(values) == len(self)), None)
        values = [self._item(index)[1] for index in range(len(self))] if values is None else values
        try:
            targets = np.array([-1 if value is None else operator.index(value) for value in values], dtype=np.int64)
        except TypeError:
            kind = type(values[0]).__name__
            raise DataError(
                f"torchvision {self.dataset} has targets of type {kind}, not one class per image; look for an option "
                "that gives classes"
            ) from None
        if (targets < 0).all():
            return None
        if (targets < 0).any():
            raise DataError(
                f"torchvision {self.dataset} has {(targets < 0).sum()} images without a class among {len(targets)}; "
                "choose a split that is wholly labelled"
            )
        return targets

    @cached_property
    def known(self) -> Known:
        """Labels and class names, which are the data set's `classes`, or else its numbers.

        Raises:
            DataError: targets that are not one class per image.
        """
        targets = self._read_targets()
        if targets is None:
            return Known()
        classes, labels = np.unique(targets, return_inverse=True)
        names = getattr(self._source, "classes", None) or ()
        # ImageNet has several words per class.
        words = [name if isinstance(name, str) else name[0] for name in names]
        class_names = [words[target] if classes[-1] < len(words) else str(target) for target in classes.tolist()]
        return Known(labels=labels.reshape(-1).astype(np.int64), class_names=tuple(class_names))

    def __len__(self) -> int:
        return len(self._source)


def _class(name: str) -> Any:
    base = torchvision.datasets.VisionDataset
    classes = {
        key: value for key, value in vars(torchvision.datasets).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base
    }  # fmt: skip
    if name not in classes:
        raise DataError(f"torchvision.datasets has no data set {shown(name)}; {suggestion(name, sorted(classes))}")
    return classes[name]


def _arguments(kind: Any, root: Path | None, options: dict[str, Any], download: bool) -> dict[str, Any]:
    parameters = inspect.signature(kind.__init__).parameters
    allowed = [name for name in parameters if name not in _NO_OPTIONS]
    any_other = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in options:
        if name in _NO_OPTIONS or (name not in allowed and not any_other):
            listed = ", ".join(allowed) or "none"
            raise DataError(f"torchvision {kind.__name__} takes no option {name!r} here; options: {listed}")
    arguments = dict(options)
    if "root" in parameters:
        if root is None:
            raise DataError(f"torchvision {kind.__name__} needs root, the folder that holds it")
        arguments["root"] = str(root)
    if "download" in parameters:
        arguments["download"] = download
    elif download:
        raise DataError(f"torchvision cannot download {kind.__name__}; put it in root and leave download out")
    return arguments
