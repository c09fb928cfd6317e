"""Parts made of modules, functions and arrays that were written without gankit."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from gankit.errors import DataError, PartError
from gankit.interfaces import Augment, Critic, Dataset, Features, Generator, Images, ImageSpec, Known, Loss, Turn
from gankit.interfaces.dataset import flip_left_right
from gankit.registry.settings import interface


def wrap(kind: str, module: Any = None, **properties: Any) -> Any:
    """Make a part of something that was written without gankit.

    An instance becomes a part, and a class becomes a part's class, which takes the same arguments as keywords. If the
    given class has a parameter `image`, it gets the image specification. `gankit.generators.register("mine")` takes
    either. An experiment can set the arguments of a class; an instance is copied for every training.

    Args:
        kind: "generator", "critic", "augment", "features", "loss" or "dataset".
        module: a module or function, or a class of modules. Networks are called with labels only where `labels=True`.
            For a data set an (n, channels, height, width) array. Not used for a loss.
        properties: what gankit cannot see from outside. Generator: `latent_dim`. Features: `dim`. Generator and critic:
            `labels`, whether the network takes labels (default False: a conditional training is refused). Loss:
            `critic` and `generator`, each a function that computes that network's scalar loss from a `Turn` (one
            update: its images, scores and networks); `per_sample`. Data set: `labels` (the array), `class_names`,
            `groups`, `agreement`, `facts`, `value_range`, `mirror` (a function, or None where mirroring changes the
            label); `gankit.registry.wrapping.Arrays` describes each.

    Raises:
        PartError: the kind cannot be wrapped, or a property is missing or unknown.
    """
    makers: dict[str, Callable[..., Any]] = {
        "generator": _Generator, "critic": _Critic, "augment": _Augment, "features": _Features, "loss": _Loss,
        "dataset": Arrays,
    }  # fmt: skip
    if kind not in makers:
        raise PartError(f"kind {kind!r} cannot be wrapped; these can: {', '.join(makers)}")
    arguments = () if kind == "loss" else (module,)
    try:
        inspect.signature(makers[kind]).bind(*arguments, **properties)
    except TypeError as error:
        raise PartError(f"wrap({kind!r}): {error}") from None
    if isinstance(module, type) and kind in ("generator", "critic", "augment", "features"):
        return _part_class(kind, module, makers[kind], properties)
    return makers[kind](*arguments, **properties)


def _part_class(kind: str, module: type, make: Callable[..., Any], properties: dict[str, Any]) -> type:
    parameters = inspect.signature(module).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    takes_image = any(parameter.name == "image" for parameter in named)
    keywords = [p.replace(kind=p.KEYWORD_ONLY) for p in named if p.name != "image"]
    for i, p in enumerate(keywords):
        if p.annotation is p.empty and p.default not in (p.empty, None):
            keywords[i] = p.replace(annotation=type(p.default))  # the default tells the type

    def construct(self: Any, image: ImageSpec | None = None, **settings: Any) -> None:
        nn.Module.__init__(self)
        self.part = make(module(**settings, **({"image": image} if takes_image else {})), **properties)
        for name in ("latent_dim", "dim"):
            if hasattr(self.part, name):
                setattr(self, name, getattr(self.part, name))

    def forward(self: Any, *inputs: Any) -> Tensor:
        result: Tensor = self.part(*inputs)
        return result

    # The registry reads settings from the constructor's signature.
    first = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    if takes_image:
        first.append(inspect.Parameter("image", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=ImageSpec))
    construct.__signature__ = inspect.Signature([*first, *keywords])  # type: ignore[attr-defined]
    construct.__annotations__ = {p.name: p.annotation for p in keywords if p.annotation is not p.empty}
    # Through __wrapped__, inspect resolves string annotations by the names in the given class's own module.
    construct.__wrapped__ = inspect.getattr_static(module, "__init__")  # type: ignore[attr-defined]
    body = {"__init__": construct, "forward": forward, "__doc__": module.__doc__, "__module__": module.__module__}
    return type(module.__name__, (interface(kind.capitalize()),), body)


@final
class _Generator(Generator):
    def __init__(self, module: nn.Module, *, latent_dim: int, labels: bool = False) -> None:
        super().__init__()
        self.module, self.latent_dim, self.takes_labels = module, latent_dim, labels

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return _call(self, z, labels)


@final
class _Critic(Critic):
    def __init__(self, module: nn.Module, *, labels: bool = False) -> None:
        super().__init__()
        self.module, self.takes_labels = module, labels

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return _call(self, images, labels)


def _call(network: _Generator | _Critic, inputs: Tensor, labels: Tensor | None) -> Tensor:
    if labels is not None and not network.takes_labels:
        raise PartError("this network was wrapped as one without labels: wrap it with labels=True, or train without")
    outputs: Tensor = network.module(inputs, labels) if network.takes_labels else network.module(inputs)
    return outputs


@final
class _Augment(Augment):
    def __init__(self, module: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        return self.module(images)


@final
class _Features(Features):
    def __init__(self, module: Callable[[Tensor], Tensor], *, dim: int) -> None:
        super().__init__()
        self.module, self.dim = module, dim

    def forward(self, images: Tensor) -> Tensor:
        return self.module(images)


@final
class _Loss(Loss):
    def __init__(
        self,
        *,
        critic: Callable[[Turn], Tensor | None] | None = None,
        generator: Callable[[Turn], Tensor | None] | None = None,
        per_sample: bool = False,
    ) -> None:
        self._critic, self._generator = critic, generator
        self.per_sample = per_sample  # type: ignore[misc]  # a fact of this loss, not of its class

    def critic(self, turn: Turn) -> Tensor | None:
        return self._critic(turn) if self._critic else None

    def generator(self, turn: Turn) -> Tensor | None:
        return self._generator(turn) if self._generator else None


@final
class Arrays(Dataset):
    """A data set of arrays in memory; see `gankit.wrap`.

    Args:
        images: (n, channels, height, width) uint8, uint16 or float32.
        labels: (n,) integers from 0, or None.
        class_names: one per class; their numbers by default.
        groups: (n,) group of each image, or None.
        agreement: (n,) share of the raters who chose the image's label, in [0, 1], or None.
        facts: further values of each image, such as its patient's age: (n, ...) arrays by name.
        value_range: the values of black and white; needed for float32.
        mirror: mirrors (n, c, h, w) arrays and tensors such that labels stay true; None where that cannot be.

    Raises:
        DataError: shapes or types do not fit.
    """

    def __init__(
        self,
        images: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        class_names: tuple[str, ...] | None = None,
        groups: ArrayLike | None = None,
        agreement: ArrayLike | None = None,
        facts: Mapping[str, ArrayLike] | None = None,
        value_range: tuple[float, float] | None = None,
        mirror: Callable[[Any], Any] | None = flip_left_right,
    ) -> None:
        array = self._images = np.asarray(images)
        if array.ndim != 4 or array.dtype not in (np.uint8, np.uint16, np.float32):
            raise DataError(
                f"images have the shape {array.shape} and type {array.dtype}; "
                "(n, channels, height, width) uint8, uint16 or float32 is needed"
            )
        if not len(array):
            raise DataError("there are no images in the array")
        if value_range is None and array.dtype == np.float32:
            raise DataError("float32 images need a value_range: the values that stand for black and white")
        low, high = array.min(), array.max()
        if value_range is not None and not (value_range[0] <= low and high <= value_range[1]):
            raise DataError(f"images go from {low} to {high}, outside value_range {value_range}")
        columns = {"labels": labels, "groups": groups, "agreement": agreement, **(facts or {})}
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
            groups=arrays.get("groups"), facts={name: arrays[name] for name in facts or {}},
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
        return self._images

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
