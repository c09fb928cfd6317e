"""The constructor is the config: the settings of a part (a loss, a network, ...) from its constructor's signature."""

import functools
import importlib
import inspect
import operator
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, cast

from pydantic import BaseModel, ConfigDict, create_model, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler

from gankit.registry.messages import NONE, optional_settings, reword_errors
from gankit.registry.plugins import PART_KINDS

CONFIG = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Settings(BaseModel):
    """Frozen settings without unknown keys, whose errors are in gankit's words."""

    model_config = CONFIG

    @model_validator(mode="wrap")
    @classmethod
    def _reworded(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        return cast(Self, reword_errors(cls, value, handler, hint_for=cls._hint_for))

    @classmethod
    def _hint_for(cls, name: str) -> str:
        """A hint that names the tables within this one that have a setting of this name; "" where none has."""
        name = name.lstrip("-").replace("-", "_")  # it may have been written as an option
        fields = cls.model_fields.items()
        tables = [table for table, field in fields if name in getattr(field.annotation, "model_fields", ())]
        return f"did you mean {' or '.join(f'{table}.{name}' for table in tables)}?" if tables else ""


def interface(name: str) -> type:
    """A class of `gankit.interfaces`, imported at the call because it loads torch."""
    return cast(type, getattr(importlib.import_module("gankit.interfaces"), name))


def _parameters(part: type) -> list[inspect.Parameter]:
    """The constructor's parameters except *args and **kwargs; none for a class that has no constructor of its own."""
    if inspect.getattr_static(part, "__init__") is object.__init__:
        return []
    catch_all = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [parameter for parameter in inspect.signature(part).parameters.values() if parameter.kind not in catch_all]


def takes_positional(part: type) -> bool:
    """Whether the constructor has a positional parameter."""
    return any(parameter.kind is not parameter.KEYWORD_ONLY for parameter in _parameters(part))


def derive_settings(
    part: type,
    positional: str,
    reserved: Collection[str],
    nested_type: Callable[[str], Any],
    hint_for: Callable[[str], str],
) -> type[BaseModel]:
    """A frozen pydantic model of a part's settings, which refuses unknown keys.

    It is derived from the class `Settings` within the part's class if there is one, else from the constructor.

    Args:
        part: the class.
        positional: the name of the one positional parameter that the constructor may have.
        reserved: gankit's own keys in the part's table of an experiment, such as `name`; errors suggest them too. It is
            read at each validation, so keys may still be added to it.
        nested_type: maps a kind to the type annotation of a setting that holds a part of that kind.
        hint_for: maps the name of an unknown setting to a hint that names other parts with it, or to "".

    Raises:
        TypeError: a setting has no annotation or is not keyword-only, or `Settings` is no pydantic model.
        NameError: an annotation that cannot be resolved.
    """
    names = [parameter.name for parameter in _parameters(part) if parameter.kind is not parameter.KEYWORD_ONLY]
    if names not in ([], [positional]):
        wrong = next(name for name in names if name != positional)
        raise TypeError(f"the parameter {wrong} is positional; settings come after *, and only {positional} before it")

    def reword(cls: type[BaseModel], value: object, handler: ModelWrapValidatorHandler[Any]) -> Any:
        return reword_errors(cls, value, handler, reserved, hint_for)

    name = f"{part.__name__}Settings"
    validators: dict[str, Any] = {"_reworded": model_validator(mode="wrap")(classmethod(reword))}  # type: ignore[arg-type]
    base: Any = getattr(part, "Settings", None)
    if base is not None:
        if not issubclass(base, BaseModel):
            raise TypeError("its Settings is not a pydantic.BaseModel")
        # A subclass, with gankit's validator and without unknown keys.
        body = {"model_config": ConfigDict(**CONFIG), "__module__": base.__module__, **validators}
        return cast(type[BaseModel], type(name, (base,), body))
    fields = _constructor_fields(part, nested_type)
    config = ConfigDict(**CONFIG, arbitrary_types_allowed=True, protected_namespaces=(), validate_default=True)
    return cast(type[BaseModel], create_model(name, __config__=config, __validators__=validators, **fields))


def _constructor_fields(part: type, nested_type: Callable[[str], Any]) -> dict[str, Any]:
    """The type and default of each keyword-only parameter, as `pydantic.create_model` takes them."""
    hints = typing.get_type_hints(inspect.getattr_static(part, "__init__"), include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in _parameters(part):
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.name not in hints:
                raise TypeError(f"the setting {parameter.name} has no annotation")
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (_with_nested_parts(hints[parameter.name], nested_type), default)
    return fields


def as_table(settings: BaseModel, exclude: set[str] | None = None) -> dict[str, Any]:
    """Settings as a table of a file. As TOML has no null, a None that is not the default is written as "none"."""
    fields = type(settings).model_fields
    nones = [name for name in optional_settings(type(settings)) if getattr(settings, name) is None]
    table = settings.model_dump(mode="json", exclude_none=True, exclude=exclude)
    return table | {name: NONE for name in nones if fields[name].default is not None}


def _with_nested_parts(annotation: Any, nested_type: Callable[[str], Any]) -> Any:
    """The annotation with every interface in it (`Loss`, `Metric`, ...) replaced by the type of a nested part."""
    if isinstance(annotation, type):
        kinds = [kind for kind in PART_KINDS if issubclass(annotation, interface(kind.capitalize()))]
        return nested_type(kinds[0]) if kinds else annotation
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return Annotated[(_with_nested_parts(arguments[0], nested_type), *arguments[1:])]
    if origin is Literal or not arguments:
        return annotation
    inner = tuple(argument if argument is ... else _with_nested_parts(argument, nested_type) for argument in arguments)
    if origin in (Union, UnionType):
        return functools.reduce(operator.or_, inner)
    if origin is Sequence:  # a list from a file must equal a default that is a tuple
        return tuple[inner[0], ...]  # type: ignore[valid-type]
    return origin[inner] if origin in (list, tuple, dict, Mapping) else annotation
