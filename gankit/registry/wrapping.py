"""Parts made of modules, functions and arrays that were written without gankit."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict, Unpack, final, overload

from torch import Tensor, nn

from gankit.errors import PartError
from gankit.interfaces import Augment, Critic, Dataset, Features, Generator, ImageSpec, Loss, Turn
from gankit.registry.arrays import Arrays as Arrays
from gankit.registry.messages import shown
from gankit.registry.settings import interface

ABILITIES = ("features", "score", "class_logits", "mapping", "synthesis", "style_layers", "after_step")
"""Methods and attributes that a module may have, which the part made of it then has too.

`before_step` is not among them: training calls it on every submodule, and so on the module itself.
"""
ImageFunction = Callable[[Tensor], Tensor]


class _NetworkOptions(TypedDict, total=False):
    """Properties of critics and generators that `wrap` takes."""

    labels: bool
    channels_last: bool
    capturable: bool


class _GeneratorOptions(_NetworkOptions):
    """Properties of generators that `wrap` takes."""

    latent_dim: int


@overload
def wrap(
    kind: Literal["generator"], module: type[nn.Module], **properties: Unpack[_GeneratorOptions]
) -> type[Generator]: ...
@overload
def wrap(kind: Literal["generator"], module: nn.Module, **properties: Unpack[_GeneratorOptions]) -> Generator: ...
@overload
def wrap(kind: Literal["critic"], module: type[nn.Module], **properties: Unpack[_NetworkOptions]) -> type[Critic]: ...
@overload
def wrap(kind: Literal["critic"], module: nn.Module, **properties: Unpack[_NetworkOptions]) -> Critic: ...
@overload
def wrap(kind: Literal["augment"], module: type[nn.Module], *, capturable: bool = ...) -> type[Augment]: ...
@overload
def wrap(kind: Literal["augment"], module: ImageFunction, *, capturable: bool = ...) -> Augment: ...
@overload
def wrap(kind: Literal["features"], module: type[nn.Module], *, dim: int) -> type[Features]: ...
@overload
def wrap(kind: Literal["features"], module: ImageFunction, *, dim: int) -> Features: ...
@overload
def wrap(kind: Literal["loss"], **properties: Any) -> Loss: ...
@overload
def wrap(kind: Literal["dataset"], module: Any, **properties: Any) -> Dataset: ...


def wrap(kind: str, module: Any = None, **properties: Any) -> Any:
    """Make a part of something that was written without gankit.

    A class becomes the class of a part: its arguments become settings, and a parameter `image` gets the image
    specification. Anything else becomes a part. `gankit.generators.register("mine")` takes both; every training gets a
    copy of a registered part.

    Args:
        kind: "generator", "critic", "augment", "features", "loss" or "dataset".
        module: a module or function, or a class of modules. Networks are called with labels only where `labels=True`.
            These methods of a module become the part's: `before_step` of a network or an augment; `mapping`,
            `synthesis` and `style_layers` of a generator; `score`, `features` and `class_logits` of a critic;
            `after_step` of an augment. For a data set an array, a list of pictures, or a data set of torchvision or
            Hugging Face. Leave it out for a loss.
        properties: what gankit cannot find out itself.

            - Generator: `latent_dim`. Features: `dim`.
            - Generator and critic: `labels`, whether the network takes labels (default False: a conditional training is
              refused), and `channels_last`, as in `gankit.Generator`.
            - Generator, critic, augment and loss: `capturable`, as in `gankit.Generator`.
            - Loss: `critic` and `generator`, each a function that computes that network's scalar loss from a `Turn`
              (one update: its images, scores and networks); `per_sample`; `before_step` and `after_step`, functions
              too. The state of each function that has a `state_dict` is saved.
            - Data set: `labels` (the array), `class_names`, `groups`, `agreement`, `facts`, `value_range`, `mirror` (a
              function, or None where mirroring changes the label); `gankit.registry.arrays.Arrays` describes each.

    Raises:
        PartError: the kind cannot be wrapped, or a property is missing or unknown.
        DataError: of a data set, as `gankit.registry.arrays.Arrays`.
    """
    makers: dict[str, Callable[..., Any]] = {
        "generator": _Generator, "critic": _Critic, "augment": _Augment, "features": _Features, "loss": _Loss,
        "dataset": Arrays,
    }  # fmt: skip
    if kind not in makers:
        raise PartError(f"kind {kind!r} cannot be wrapped; these can: {', '.join(makers)}")
    if kind == "loss" and module is not None:
        raise PartError("wrap('loss') takes functions by name: critic=..., generator=...")
    if kind not in ("loss", "dataset") and not callable(module):
        raise PartError(f"wrap({kind!r}): a module, a function or a class of modules is needed, not {shown(module)}")
    arguments = () if kind == "loss" else (module,)
    try:
        inspect.signature(makers[kind]).bind(*arguments, **properties)
    except TypeError as error:
        raise PartError(f"wrap({kind!r}): {error}") from None
    if isinstance(module, type) and kind in ("generator", "critic", "augment", "features"):
        return _part_class(kind, module, makers[kind], properties)
    return makers[kind](*arguments, **properties)


def _part_class(kind: str, module: type, make: Callable[..., Any], properties: dict[str, Any]) -> type:
    """The class of a part that holds a module of the given class; its settings are the arguments of that class."""
    parameters = inspect.signature(module).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    takes_image = any(p.name == "image" for p in named)
    keywords = [_as_setting(p) for p in named if p.name != "image"]

    def construct(self: Any, image: ImageSpec | None = None, **settings: Any) -> None:
        nn.Module.__init__(self)
        if takes_image:
            settings["image"] = image
        self.part = make(module(**settings), **properties)
        for name in ("latent_dim", "dim", "channels_last", "capturable"):
            if hasattr(self.part, name):
                setattr(self, name, getattr(self.part, name))
        # Only what `self.part` got from its module, which is in the `vars` of `self.part`; its class's methods are not.
        _expose(self, self.part, *(name for name in ABILITIES if name in vars(self.part)))

    def forward(self: Any, *inputs: Any) -> Tensor:
        result: Tensor = self.part(*inputs)
        return result

    # The registry reads the settings from this signature and these annotations, which are those of the given class.
    leading = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    if takes_image:
        leading.append(inspect.Parameter("image", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=ImageSpec))
    construct.__signature__ = inspect.Signature([*leading, *keywords])  # type: ignore[attr-defined]
    construct.__annotations__ = {p.name: p.annotation for p in keywords if p.annotation is not p.empty}
    # Through __wrapped__, typing resolves string annotations by the names in the given class's own module.
    construct.__wrapped__ = inspect.getattr_static(module, "__init__")  # type: ignore[attr-defined]
    body = {"__init__": construct, "forward": forward, "__doc__": module.__doc__, "__module__": module.__module__}
    return type(module.__name__, (interface(kind.capitalize()),), body)


def _as_setting(parameter: inspect.Parameter) -> inspect.Parameter:
    """A parameter as a keyword-only one; where it has no annotation, its default tells its type."""
    keyword = parameter.replace(kind=parameter.KEYWORD_ONLY)
    if keyword.annotation is keyword.empty and keyword.default not in (keyword.empty, None):
        keyword = keyword.replace(annotation=type(keyword.default))
    return keyword


@final
class _Generator(Generator):
    def __init__(
        self,
        module: nn.Module,
        *,
        latent_dim: int,
        labels: bool = False,
        channels_last: bool = False,
        capturable: bool = False,
    ) -> None:
        super().__init__()
        self.module, self.latent_dim, self.takes_labels = module, latent_dim, labels
        # Class variables in the interface; here they differ between networks.
        self.channels_last, self.capturable = channels_last, capturable  # type: ignore[misc]
        _expose(self, module, "synthesis", "style_layers")
        if callable(getattr(module, "mapping", None)):
            vars(self)["mapping"] = self._mapping

    def _mapping(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return _call(self, self.module.mapping, z, labels)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return _call(self, self.module, z, labels)


@final
class _Critic(Critic):
    def __init__(
        self, module: nn.Module, *, labels: bool = False, channels_last: bool = False, capturable: bool = False
    ) -> None:
        super().__init__()
        self.module, self.takes_labels = module, labels
        self.channels_last, self.capturable = channels_last, capturable  # type: ignore[misc]
        # Without `score`, the attribute `features` may be layers, as in torchvision's networks.
        if callable(getattr(module, "score", None)):
            _expose(self, module, "features", "class_logits")
            vars(self)["score"] = self._score

    def _score(self, features: Any, labels: Tensor | None = None) -> Tensor:
        return _call(self, self.module.score, features, labels)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return _call(self, self.module, images, labels)


def _expose(part: nn.Module, module: Any, *names: str) -> None:
    """Give a part the named attributes that its module has, since protocols look for them on the part itself.

    `setattr` would register an attribute that is a module a second time, so they go into `vars`.
    """
    vars(part).update({name: getattr(module, name) for name in names if hasattr(module, name)})


def _call(network: _Generator | _Critic, function: Any, inputs: Any, labels: Tensor | None) -> Tensor:
    if labels is not None and not network.takes_labels:
        raise PartError("this network was wrapped as one without labels: wrap it with labels=True, or train without")
    outputs: Tensor = function(inputs, labels) if network.takes_labels else function(inputs)
    return outputs


@final
class _Augment(Augment):
    def __init__(self, module: Callable[[Tensor], Tensor], *, capturable: bool = False) -> None:
        super().__init__()
        self.module, self.capturable = module, capturable
        _expose(self, module, "after_step")

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
        capturable: bool = False,
        before_step: Callable[[int], Mapping[str, float] | None] | None = None,
        after_step: Callable[[Turn], None] | None = None,
    ) -> None:
        given = {"critic": critic, "generator": generator, "before_step": before_step, "after_step": after_step}
        functions = {name: function for name, function in given.items() if function is not None}
        for name, function in functions.items():
            if not callable(function):
                raise PartError(f"wrap('loss'): {name} must be a function, not {shown(function)}")
        # Attributes of this instance, which replace the methods and defaults of its class.
        vars(self).update(functions, per_sample=per_sample, capturable=capturable)
        self._stateful: dict[str, Any] = {
            name: function for name, function in functions.items() if hasattr(function, "state_dict")
        }
        if self._stateful:
            self.state_dict, self.load_state_dict = self._save, self._load

    def _save(self) -> dict[str, Any]:
        return {name: function.state_dict() for name, function in self._stateful.items()}

    def _load(self, state: Mapping[str, Any]) -> None:
        for name, function in self._stateful.items():
            function.load_state_dict(state[name])
