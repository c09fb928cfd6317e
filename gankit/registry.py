"""Registries: parts by name, their settings from their constructors, and how they are built."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import typing
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, UnionType
from typing import Annotated, Any, ClassVar, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, create_model

from gankit.discovery import KINDS, PlugIn, normalised, plural, scan
from gankit.errors import PartError

RESERVED: dict[str, frozenset[str]] = {
    "dataset": frozenset(
        "name size conditional split held_out min_agreement subset flip balance".split()  # the experiment's own keys
    ),
    "loss": frozenset(["name", "weight", "every"]),
    "augment": frozenset(["name", "scope"]),
}
"""Keys of a part's table that belong to gankit, which a part of that kind may not declare."""

GIVEN = ("image", "size")
"""The positional parameters that a constructor may have; gankit fills them in."""


class Part(BaseModel):
    """A part that an experiment names: validated settings, nothing built yet."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    kind: str
    name: str
    settings: Any

    def build(self, given: object = None) -> Any:
        """The part itself; `given` is its image specification or, for data sets, its size."""
        return registry(self.kind).construct(self.name, given, self.settings)

    def table(self) -> dict[str, Any]:
        """The part as a table of an experiment file."""
        return {"name": self.name, **self.settings.model_dump(mode="json", exclude_none=True)}


@dataclass(frozen=True)
class Listing:
    """One line of `gankit list`."""

    name: str
    kind: str
    distribution: str


class Registry:
    """The parts of one kind: gankit's own (one a file), plug-ins (entry points), and those of this process.

    Listing imports nothing; `get` imports one file.
    """

    IN_PROCESS: ClassVar[str] = "this process"

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.package = f"gankit.{plural(kind)}"
        self._registered: dict[str, type] = {}
        self._settings: dict[type, type[BaseModel]] = {}

    def built_in(self) -> list[str]:
        """Names of gankit's own parts: the folder's file names."""
        path = importlib.import_module(self.package).__path__
        return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))

    def list(self) -> list[Listing]:
        """Every part with the distribution that it comes from; plug-ins that share a name are qualified."""
        own = self.built_in()
        plugins = [plugin for plugin in scan().plugins if plugin.kind == self.kind]
        names = [plugin.name for plugin in plugins]
        rows = [Listing(name, self.kind, "gankit") for name in own]
        for plugin in plugins:
            shared = plugin.name in own or names.count(plugin.name) > 1
            name = plugin.qualified_name if shared else plugin.name
            rows.append(Listing(name, self.kind, plugin.distribution))
        return rows + [Listing(name, self.kind, self.IN_PROCESS) for name in self._registered]

    def names(self) -> list[str]:
        """Every name that `get` takes, as `list` spells it."""
        return [row.name for row in self.list()]

    def register(self, name: str) -> Callable[[type], type]:
        """Class decorator: the part is known by this name in this process.

        Raises:
            PartError: the name is one of gankit's own, or the class is not a part of this kind.
        """

        def remember(part: type) -> type:
            if name in self.built_in() or ":" in name:
                raise PartError(f"{self.kind} {name!r} cannot be registered: the name is gankit's own; choose another")
            self._registered[name] = self._checked(part, name)
            return part

        return remember

    def find(self, name: str) -> str | PlugIn:
        """The plug-in of this name, or the plain name of a part that is gankit's own or of this process.

        Raises:
            PartError: no part, or more than one plug-in, has this name.
        """
        own = name.removeprefix("gankit:")
        if own in self.built_in() or name in self._registered:
            return own
        found = scan()
        plugins = [plugin for plugin in found.plugins if plugin.kind == self.kind]
        distribution, _, part = name.rpartition(":")
        matches = [
            plugin
            for plugin in plugins
            if plugin.name == part and distribution in ("", plugin.distribution) or plugin.qualified_name == name
        ] or [plugin for plugin in plugins if plugin.name == part and plugin.distribution == normalised(distribution)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            spellings = " or ".join(sorted(repr(plugin.qualified_name) for plugin in matches))
            raise PartError(f"{self.kind} {name!r} is registered by {len(matches)} plug-ins; write {spellings}")
        raise PartError(self._unknown(name, found.faults))

    def _unknown(self, name: str, faults: tuple[str, ...]) -> str:
        names = self.names()
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        text = f"there is no {self.kind} named {name!r}; {hint}known: {', '.join(names)}"
        text += f" (one that a script registers needs `@gankit.{plural(self.kind)}.register({name!r})` in this process)"
        return "; ".join([text, *faults])

    def qualified(self, name: str) -> str:
        """The spelling for the record: plain for gankit's own parts, "distribution:name" for plug-ins."""
        found = self.find(name)
        return found if isinstance(found, str) else found.qualified_name

    def get(self, name: str) -> type:
        """The part's class; imports one file.

        Raises:
            PartError: the name is unknown or ambiguous, the import fails, or what it gives is no part of this kind.
        """
        found = self.find(name)
        if isinstance(found, PlugIn):
            return self._checked(found.load(), found.qualified_name)
        if found in self._registered:
            return self._registered[found]
        module = self.module(found)
        interface = self.interface()
        classes = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, interface) and value.__module__ == module.__name__
        ]
        if len(classes) != 1:
            raise PartError(f"{module.__name__} must hold exactly one {interface.__name__}, it holds {len(classes)}")
        return self._checked(classes[0], found)

    def module(self, name: str) -> ModuleType:
        """The file of one of gankit's own parts."""
        return importlib.import_module(f"{self.package}.{name.replace('-', '_')}")

    def interface(self) -> type:
        """The abstract class of this kind."""
        interface: type = getattr(importlib.import_module("gankit.interfaces"), self.kind.capitalize())
        return interface

    def _checked(self, part: object, name: str) -> type:
        interface = self.interface()
        if not isinstance(part, type) or not issubclass(part, interface):
            raise PartError(f"{self.kind} {name!r} is {part!r}, which is no subclass of {interface.__name__}")
        if inspect.isabstract(part):
            missing = ", ".join(sorted(part.__abstractmethods__))
            raise PartError(f"{self.kind} {name!r} is abstract: {part.__name__} lacks {missing}")
        return part

    def settings(self, name: str) -> type[BaseModel]:
        """The frozen model of a part's settings: its own `Settings`, or derived from its constructor.

        Raises:
            PartError: as `get`, or the constructor cannot serve as a description of settings.
        """
        part = self.get(name)
        if part not in self._settings:
            self._settings[part] = self._derive(part, name)
        return self._settings[part]

    def _derive(self, part: type, name: str) -> type[BaseModel]:
        own = getattr(part, "Settings", None)
        try:
            if own is not None:
                config = ConfigDict(extra="forbid", frozen=True)
                strict = type(f"{part.__name__}Settings", (own,), {"model_config": config, "__module__": own.__module__})
                return self._unreserved(typing.cast(type[BaseModel], strict), name)
            hints = typing.get_type_hints(part.__init__, include_extras=True)
            fields: dict[str, Any] = {}
            for parameter in _parameters(part):
                if parameter.kind is parameter.KEYWORD_ONLY:
                    if parameter.name not in hints:
                        raise TypeError(f"the setting {parameter.name} has no annotation")
                    default = ... if parameter.default is parameter.empty else parameter.default
                    fields[parameter.name] = (_with_nested_parts(hints[parameter.name]), default)
                elif parameter.name not in GIVEN:
                    raise TypeError(f"the parameter {parameter.name} is neither keyword-only nor one of {GIVEN}")
            config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, protected_namespaces=())
            model: type[BaseModel] = create_model(f"{part.__name__}Settings", __config__=config, **fields)
            return self._unreserved(model, name)
        except PartError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise PartError(f"{self.kind} {name!r}: no settings can be read from {part.__name__}: {reason}") from error

    def _unreserved(self, model: type[BaseModel], name: str) -> type[BaseModel]:
        taken = RESERVED.get(self.kind, frozenset({"name"})) & set(model.model_fields)
        if taken:
            raise PartError(f"{self.kind} {name!r} declares {', '.join(sorted(taken))}, which gankit's own keys are")
        return model

    def part(self, name: str, settings: dict[str, Any]) -> Part:
        """A validated part.

        Raises:
            PartError: as `get` and `settings`.
            pydantic.ValidationError: a setting is unknown, missing or of the wrong type.
        """
        validated = self.settings(name).model_validate(settings)
        return Part(kind=self.kind, name=self.qualified(name), settings=validated)

    def construct(self, name: str, given: object, settings: BaseModel) -> Any:
        """Build a part from validated settings."""
        part = self.get(name)
        values = {key: _built(getattr(settings, key), given) for key in type(settings).model_fields}
        takes_given = any(parameter.kind is not parameter.KEYWORD_ONLY for parameter in _parameters(part))
        return part(given, **values) if takes_given else part(**values)


def _parameters(part: type) -> list[inspect.Parameter]:
    """The constructor's parameters; none where a class without one has `object`'s or a base class's catch-all."""
    if part.__init__ in (object.__init__, ABC.__init__):
        return []
    parameters = list(inspect.signature(part).parameters.values())
    catch_all = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [parameter for parameter in parameters if parameter.kind not in catch_all]


def _kind_of(annotation: object) -> str | None:
    if not isinstance(annotation, type):
        return None
    interfaces = importlib.import_module("gankit.interfaces")
    return next((kind for kind in KINDS if issubclass(annotation, getattr(interfaces, kind.capitalize()))), None)


def _with_nested_parts(annotation: Any) -> Any:
    """The annotation with every interface in it replaced by a table that names a part of that kind."""
    if kind := _kind_of(annotation):
        return nested_part(kind)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is None or origin is typing.Literal or not arguments:
        return annotation
    if origin is Annotated:
        return Annotated[(_with_nested_parts(arguments[0]), *arguments[1:])]
    inner = tuple(_with_nested_parts(argument) if argument is not ... else ... for argument in arguments)
    if origin in (Union, UnionType):
        return Union[inner]
    return origin[inner] if origin in (list, tuple, dict, set, frozenset) else annotation


def nested_part(kind: str) -> Any:
    """The type of a field that holds a validated `Part`, read from a name or a table with a name."""

    def read(value: object) -> Part:
        if isinstance(value, Part):
            return value
        table = {"name": value} if isinstance(value, str) else value
        if not isinstance(table, dict) or not isinstance(table.get("name"), str):
            raise ValueError(f"expected the name of a {kind}, or a table with a name")
        try:
            return registry(kind).part(table["name"], {key: item for key, item in table.items() if key != "name"})
        except PartError as error:
            raise ValueError(str(error)) from error

    schema = {"anyOf": [{"type": "string"}, {"type": "object", "required": ["name"]}], "description": f"a {kind}"}
    return Annotated[Part, BeforeValidator(read), PlainSerializer(Part.table), WithJsonSchema(schema)]


def _built(value: Any, given: object) -> Any:
    if isinstance(value, Part):
        return value.build(given)
    if isinstance(value, (list, tuple)):
        return type(value)(_built(item, given) for item in value)
    if isinstance(value, dict):
        return {key: _built(item, given) for key, item in value.items()}
    return value


_REGISTRIES: dict[str, Registry] = {}


def registry(kind: str) -> Registry:
    """The registry of a kind, one a process.

    Raises:
        PartError: there is no such kind.
    """
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, KINDS, n=1)
        raise PartError(f"there is no kind of part named {kind!r}; known: {', '.join(KINDS)}" + (
            f"; did you mean {close[0]!r}?" if close else ""))  # fmt: skip
    return _REGISTRIES.setdefault(kind, Registry(kind))


def build(kind: str, name: str, image: Any = None, **settings: Any) -> Any:
    """Build one part by name.

    Args:
        kind: "generator", "critic", "loss", "augment", "metric", "features" or "dataset".
        name: as in `gankit list`.
        image: the `ImageSpec` for parts that ask for one; for a data set its (height, width), or None.
        settings: the part's settings, validated as in an experiment.

    Raises:
        PartError: an unknown name, settings that are not valid, or an image that the part cannot make.
    """
    # Errors name the setting alone: there is no file to point at.
    from pydantic import ValidationError

    try:
        return registry(kind).part(name, settings).build(image)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise PartError(f"{kind} {name!r}: {details}") from None
