"""Registries: parts by name, their settings from their constructors, and how they are built."""

from __future__ import annotations

import builtins
import copy
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from gankit.errors import GankitError, PartError
from gankit.registry.messages import unknown
from gankit.registry.plugins import KINDS, PART_KINDS, PlugIn, normalised, plural, scan
from gankit.registry.settings import derived_settings, interface, takes_given

Registered = TypeVar("Registered")

RESERVED: dict[str, tuple[str, ...]] = {
    "dataset": (
        "name", "size", "conditional", "split", "held_out", "min_agreement", "subset", "split_seed", "subset_seed",
        "flip", "balance", "weights",
    ),
    "loss": ("name", "weight", "every"),
    "augment": ("name", "scope"),
    "study": (),
}  # fmt: skip
"""Keys of a part's table that belong to gankit, which a part of that kind may not declare; for others it is `name`."""
GIVEN = {"dataset": "size", "study": "experiment"}
"""The positional parameter that gankit fills in; `image` for other kinds."""


class Part(BaseModel):
    """A part that an experiment names: validated settings, nothing built yet."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    kind: str
    name: str
    settings: Any

    def build(self, given: object = None) -> Any:
        """The part itself; `given` is its image specification or, for data sets, its size."""
        return registry(self.kind).construct(self.name, given, self.settings)

    def names(self) -> list[str]:
        """Its own qualified name and those of the parts within its settings."""
        within = [getattr(self.settings, key) for key in type(self.settings).model_fields]
        return [self.name, *(name for part in _parts_in(within) for name in part.names())]

    def table(self) -> dict[str, Any]:
        """The part as a table of an experiment file.

        Raises:
            PartError: a setting is None where that is not its default: TOML has no null.
        """
        for name, field in type(self.settings).model_fields.items():
            if getattr(self.settings, name) is None and field.default is not None:
                raise PartError(f"{self.kind} {self.name}: {name} is None, which no TOML file can hold; leave it out")
        return {"name": self.name, **self.settings.model_dump(mode="json", exclude_none=True)}


@dataclass(frozen=True)
class Listing:
    """One line of `gankit list`."""

    name: str
    kind: str
    distribution: str


class Registry:
    """The parts of one kind: gankit's own (one file each; studies one folder), plug-ins, and those of this process.

    Listing imports nothing; `get` imports one file.
    """

    IN_PROCESS: ClassVar[str] = "this process"

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.package = f"gankit.{plural(kind)}"
        self._registered: dict[str, type] = {}
        self._settings: dict[type, type[BaseModel]] = {}

    def built_in(self) -> list[str]:
        """Names of gankit's own parts: the folder's file names, or its sub-folders where parts are folders."""
        path = importlib.import_module(self.package).__path__
        public = [m for m in pkgutil.iter_modules(path) if not m.name.startswith("_")]
        return sorted(m.name.replace("_", "-") for m in public if m.ispkg or self.kind in PART_KINDS)

    def list(self) -> builtins.list[Listing]:
        """Every part with the distribution that it comes from; plug-ins that share a name are qualified."""
        own = self.built_in()
        plugins = [plugin for plugin in scan().plugins if plugin.kind == self.kind]
        names = [plugin.name for plugin in plugins]
        rows = [Listing(name, self.kind, "gankit") for name in own]
        for plugin in plugins:
            shared = plugin.name in own or plugin.name in self._registered or names.count(plugin.name) > 1
            name = plugin.qualified_name if shared else plugin.name
            rows.append(Listing(name, self.kind, plugin.distribution))
        return rows + [Listing(name, self.kind, self.IN_PROCESS) for name in self._registered]

    def names(self) -> builtins.list[str]:
        """Every name that `get` takes, as `list` spells it."""
        return [row.name for row in self.list()]

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """Class decorator: the part is known by this name in this process, before any plug-in of that name.

        A finished part can be registered too; every training then gets a copy of it.

        Raises:
            PartError: the name is one of gankit's own, or what is registered is not a part of this kind.
        """

        def remember(part: Registered) -> Registered:
            if name in self.built_in():
                raise PartError(f"{self.kind} {name!r} cannot be registered: the name is gankit's own; choose another")
            if ":" in name:
                raise PartError(f"{self.kind} {name!r} cannot be registered: leave out the colon, which names plug-ins")
            finished = isinstance(part, self.interface())
            self._registered[name] = _copies_of(part) if finished else self._checked(part, name)
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
            if (plugin.name == part and distribution in ("", plugin.distribution)) or plugin.qualified_name == name
        ] or [plugin for plugin in plugins if plugin.name == part and plugin.distribution == normalised(distribution)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            spellings = " or ".join(sorted(repr(plugin.qualified_name) for plugin in matches))
            raise PartError(f"{self.kind} {name!r} is registered by {len(matches)} plug-ins; write {spellings}")
        raise PartError(self._unknown(name, found.faults))

    def _unknown(self, name: str, faults: tuple[str, ...]) -> str:
        names = self.names()
        text = f"there is no {self.kind} named {name!r}; {unknown(name, names)}"
        if "did you mean" in text:
            text += f" known: {', '.join(names)}"
        distribution = name.rpartition(":")[0]
        if not distribution:
            call = f"@gankit.{plural(self.kind)}.register({name!r})"
            text += f" (one that a script registers needs `{call}` in this process)"
        elif (owner := normalised(distribution)) not in {plugin.distribution for plugin in scan().plugins}:
            text += f" (distribution {owner} is not installed, or GANKIT_DISABLE_PLUGINS switches it off)"
        return "; ".join([text, *faults])

    def qualified(self, name: str) -> str:
        """The spelling for the record: plain for gankit's own parts, "distribution:name" for plug-ins."""
        found = self.find(name)
        return found if isinstance(found, str) else found.qualified_name

    def get(self, name: str | type) -> type:
        """The part's class; imports one file. A class stands for itself, registered or not.

        Raises:
            PartError: the name is unknown or ambiguous, the import fails, or what it gives is no part of this kind.
        """
        if isinstance(name, type):
            return self._checked(name, name.__name__)
        found = self.find(name)
        if isinstance(found, PlugIn):
            return self._checked(found.load(), found.qualified_name)
        if found in self._registered:
            return self._registered[found]
        try:
            module = self.module(found)
        except ImportError as error:
            raise PartError(f"{self.kind} {found!r} cannot be imported: {error}") from error
        base = self.interface()
        classes = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
        ]
        if len(classes) != 1:
            raise PartError(f"{module.__name__} must hold exactly one {base.__name__}, it holds {len(classes)}")
        return self._checked(classes[0], found)

    def attribute(self, name: str) -> ModuleType:
        """The file of one of gankit's own parts as an attribute of its folder, imported only then (PEP 562).

        Raises:
            AttributeError: there is none.
        """
        if name.startswith("__") or name.replace("_", "-") not in self.built_in():
            raise AttributeError(f"module {self.package!r} has no attribute {name!r}")
        return self.module(name)

    def module(self, name: str) -> ModuleType:
        """The file of one of gankit's own parts; where parts are folders, the file of the kind's name in it."""
        file = "" if self.kind in PART_KINDS else f".{self.kind}"
        return importlib.import_module(f"{self.package}.{name.replace('-', '_')}{file}")

    def interface(self) -> type:
        """The abstract class of this kind."""
        name = self.kind.capitalize()
        if self.kind in PART_KINDS:
            return interface(name)
        found: type = getattr(importlib.import_module(f"{self.package}.{self.kind}"), name)
        return found

    def _checked(self, part: object, name: str) -> type:
        base = self.interface()
        if not isinstance(part, type) or not issubclass(part, base):
            raise PartError(f"{self.kind} {name!r} is {part!r}, which is no subclass of {base.__name__}")
        if inspect.isabstract(part):
            missing = ", ".join(sorted(vars(part)["__abstractmethods__"]))
            raise PartError(f"{self.kind} {name!r} is abstract: {part.__name__} lacks {missing}")
        return part

    def settings(self, name: str | type) -> type[BaseModel]:
        """The frozen model of a part's settings: its own `Settings`, or derived from its constructor.

        Raises:
            PartError: as `get`, or the constructor cannot serve as a description of settings.
        """
        part = self.get(name)
        if part not in self._settings:
            self._settings[part] = self._derive(part, name)
        return self._settings[part]

    def _derive(self, part: type, name: str | type) -> type[BaseModel]:
        try:
            model = derived_settings(part, self.given, self.reserved, nested_part)
            if not issubclass(model, BaseModel):
                raise TypeError("its Settings is no pydantic.BaseModel")
        except PartError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise PartError(f"{self.kind} {name!r}: no settings can be read from {part.__name__}: {reason}") from error
        if taken := set(self.reserved) & set(model.model_fields):
            raise PartError(
                f"{self.kind} {name!r} declares {', '.join(sorted(taken))}: gankit's own keys; choose other names"
            )
        return model

    @property
    def reserved(self) -> tuple[str, ...]:
        """Keys of a part's table that belong to gankit."""
        return RESERVED.get(self.kind, ("name",))

    @property
    def given(self) -> str:
        """The positional parameter that a constructor may have, which gankit fills in."""
        return GIVEN.get(self.kind, "image")

    def part(self, name: str, settings: dict[str, Any]) -> Part:
        """A validated part.

        Raises:
            PartError: as `get` and `settings`; a validator of the part's own fails with another error than ValueError.
            pydantic.ValidationError: a setting is unknown, missing or of the wrong type.
        """
        model = self.settings(name)
        try:
            validated = model.model_validate(settings)
        except (ValidationError, GankitError):
            raise
        except Exception as error:  # a validator of the part's own
            raise PartError(f"{self.kind} {name!r} cannot validate its settings: {_reason(error)}") from error
        return Part(kind=self.kind, name=self.qualified(name), settings=validated)

    def construct(self, name: str | type, given: object, settings: BaseModel) -> Any:
        """Build a part from validated settings.

        Raises:
            PartError: as `get`; it needs an image specification and got none; its constructor raises.
        """
        part = self.get(name)
        positional = takes_given(part)
        if positional and self.given == "image" and not isinstance(given, interface("ImageSpec")):
            raise PartError(f"{self.kind} {name!r} needs image, an ImageSpec, not {given!r}")
        values = {key: _built(getattr(settings, key), given) for key in type(settings).model_fields}
        try:
            return part(given, **values) if positional else part(**values)
        except GankitError:
            raise
        except (Exception, SystemExit) as error:
            raise PartError(f"{self.kind} {name!r} cannot be built: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _copies_of(part: object) -> type:
    """A class without settings whose every instance is a copy of a finished part."""

    def new(cls: type) -> object:
        return copy.deepcopy(part)

    def init(self: object) -> None:
        pass

    return type(type(part).__name__, (type(part),), {"__new__": new, "__init__": init})


def read_part(kind: str, value: object) -> Part:
    """A validated part from its name or from a table with a name, for pydantic's validators.

    Raises:
        PydanticCustomError: of the type "part": no name, or a name that cannot be used.
        pydantic.ValidationError: a setting is not valid.
    """
    if isinstance(value, Part):
        return value
    table = {"name": value} if isinstance(value, str) else value
    try:
        if not isinstance(table, Mapping):
            raise PartError(f"a name, or a table with a name, is needed, not {value!r}")
        if not isinstance(table.get("name"), str):
            raise PartError(f"the table needs a name; known: {', '.join(registry(kind).names())}")
        return registry(kind).part(table["name"], {key: item for key, item in table.items() if key != "name"})
    except PartError as error:
        raise PydanticCustomError("part", "{reason}", {"reason": str(error)}) from error


def nested_part(kind: str) -> Any:
    """The type of a field that holds a validated `Part`, read from a name or a table with a name."""
    table = {"type": "object", "required": ["name"]}
    schema = {"description": f"one of {plural(kind)}", "anyOf": [{"type": "string"}, table]}
    read = BeforeValidator(lambda value: read_part(kind, value))
    return Annotated[Part, read, PlainSerializer(Part.table), WithJsonSchema(schema)]


def _parts_in(value: Any) -> list[Part]:
    if isinstance(value, Part):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [part for item in items for part in _parts_in(item)]


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
        raise PartError(f"there is no kind of part named {kind!r}; {unknown(kind, KINDS)}")
    return _REGISTRIES.setdefault(kind, Registry(kind))


def valid_part(kind: str, name: str, settings: Mapping[str, Any]) -> Part:
    """A part whose settings come from a program rather than a file.

    Raises:
        PartError: an unknown name, or settings that are not valid.
    """
    try:
        return registry(kind).part(name, dict(settings))
    except ValidationError as error:
        details = [f"{'.'.join([name, *map(str, e['loc'])])}: {e['msg']}" for e in error.errors(include_url=False)]
        raise PartError(f"{kind} {'; '.join(details)}") from None


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
    return valid_part(kind, name, settings).build(image)
