"""The registry of one kind of part (generators, critics, losses, ...): names, classes and their settings."""

import builtins  # in `Registry`, `list` is a method
import contextlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, ClassVar, TypeVar, cast

from pydantic import BaseModel

from gankit.errors import PartError, meant_by, one_line, suggestion
from gankit.registry.messages import shown
from gankit.registry.plugins import FILE_KINDS, PART_KINDS, PlugIn, normalise_name, plural, scan, shipped_hint
from gankit.registry.settings import derive_settings
from gankit.registry.settings import interface as interface_class

PartOrClass = TypeVar("PartOrClass")
POSITIONAL = {"dataset": "size", "study": "experiment"}
"""The name of a constructor's one positional parameter, for each kind; `image` for the kinds that are not listed.
Its value comes from gankit, not from the user."""

ALIASES = {"metric": {"fid": "frechet"}}
"""Other names of gankit's own parts, by kind. A part that is registered under such a name takes precedence."""
TABLES = {"generator": "generator", "critic": "critic", "augment": "augment", "dataset": "data"}
"""The table of an experiment that names a part, by the part's kind, for kinds that have one table."""


@dataclass(frozen=True)
class Listing:
    """One line of `gankit list`."""

    name: str
    kind: str
    distribution: str
    also: tuple[str, ...] = ()
    """Other names that gankit knows the part by."""


class Registry:
    """The parts of one kind: gankit's own (a file or folder each), plug-ins, and those registered in this process.

    Listing imports nothing; `get` imports one file.
    """

    IN_PROCESS: ClassVar[str] = "this process"

    def __init__(self, kind: str, nested_type: Callable[[str], Any]) -> None:
        """
        Args:
            kind: for example "loss".
            nested_type: maps a kind to the type annotation of a setting that holds a part of that kind, such as the
                augment within an adaptive augment.
        """
        self.kind = kind
        self.package = f"gankit.{plural(kind)}"
        # Only the tables of an experiment's parts have the key `name`; a study's table has none.
        self.reserved = ["name"] if kind in PART_KINDS else []
        self._nested_type = nested_type
        self._registered: dict[str, type] = {}
        self._settings: dict[type, type[BaseModel]] = {}

    @cache  # noqa: B019 - a registry lives as long as the program, and the folder does not change
    def built_in(self) -> list[str]:
        """Names of gankit's own parts: the folder's file names, or its sub-folders where parts are folders."""
        path = importlib.import_module(self.package).__path__
        modules = [module for module in pkgutil.iter_modules(path) if module.ispkg or self.kind in FILE_KINDS]
        return sorted(module.name.replace("_", "-") for module in modules if not module.name.startswith("_"))

    def list(self) -> builtins.list[Listing]:
        """Every part with the distribution that it comes from; plug-ins that share a name are qualified."""
        built_in = self.built_in()
        plugins = self._plugins()
        names = [plugin.name for plugin in plugins]
        # A name under which a part is registered is no alias.
        aliases = {alias: part for alias, part in ALIASES.get(self.kind, {}).items()
                   if alias not in names and alias not in self._registered}  # fmt: skip
        rows = [
            Listing(name, self.kind, "gankit", tuple(alias for alias, part in aliases.items() if part == name))
            for name in built_in
        ]
        for plugin in plugins:
            shared = plugin.name in built_in or plugin.name in self._registered or names.count(plugin.name) > 1
            name = plugin.qualified_name if shared else plugin.name
            rows.append(Listing(name, self.kind, plugin.distribution))
        return rows + [Listing(name, self.kind, self.IN_PROCESS) for name in self._registered]

    def names(self) -> builtins.list[str]:
        """The name of every part, as `list` spells it."""
        return [row.name for row in self.list()]

    def register(self, name: str) -> Callable[[PartOrClass], PartOrClass]:
        """Class decorator: registers a part in this process; it takes precedence over plug-ins of the same name.

        It replaces an earlier part of this name. An instance can be registered too; each training gets a copy of it.

        Raises:
            PartError: the name is built in, holds a colon or is not a text; or what is registered is not a part of
                this kind.
        """
        if not isinstance(name, str):  # `@register` alone, which gets the class in place of a name
            raise PartError(f'register takes a name: write @gankit.{plural(self.kind)}.register("name")')

        def remember(part: PartOrClass) -> PartOrClass:
            if name in self.built_in():
                raise PartError(f"{self.kind} {name!r} cannot be registered: the name is gankit's own; choose another")
            if ":" in name:
                raise PartError(f"{self.kind} {name!r} cannot be registered: a colon is for plug-ins; leave it out")
            is_instance = isinstance(part, self.interface())
            self._registered[name] = _copies_of(part) if is_instance else self._check(part, name)
            return part

        return remember

    @contextlib.contextmanager
    def isolated(self) -> Iterator[None]:
        """When the `with` block ends, undo every registration made in it."""
        before = dict(self._registered)
        try:
            yield
        finally:
            self._registered = before

    def reserve(self, keys: Iterable[str]) -> None:
        """Reserve keys of a part's table for gankit itself; a part with a setting of such a name is refused."""
        self.reserved += [key for key in keys if key not in self.reserved]

    def find(self, name: str) -> str | PlugIn:
        """The plug-in of this name, or the plain name of a part that is gankit's own or of this process.

        Capitals, hyphens and underscores make no difference where no part has exactly this name.

        Raises:
            PartError: no part, or more than one, has this name.
        """
        plain = name.removeprefix("gankit:")
        if plain in self.built_in() or name in self._registered:
            return plain
        distribution, _, part = name.partition(":")
        qualified = (normalise_name(distribution), part)
        plugins = self._plugins()
        matches = [p for p in plugins if p.name == name or (p.distribution, p.name) == qualified]
        if len(matches) == 1:
            return matches[0]
        if matches:
            spellings = " or ".join(sorted(repr(plugin.qualified_name) for plugin in matches))
            raise PartError(f"{self.kind} {name!r} is registered by {len(matches)} plug-ins; write {spellings}")
        if plain in ALIASES.get(self.kind, {}):
            return ALIASES[self.kind][plain]
        known = {*self.built_in(), *ALIASES.get(self.kind, ())}
        if plain == name:  # after "gankit:" only gankit's own are meant
            known |= {*self.names(), *(part for p in plugins for part in (p.name, p.qualified_name))}
        meant = meant_by(plain, known)
        if len(meant) == 1:
            return self.find(meant[0])
        if meant:
            raise PartError(f"{self.kind} {shown(name)} may be {' or '.join(map(repr, sorted(meant)))}: write one")
        reason = shipped_hint(self.kind, name) or self._similar_names(name)
        none = f"there {'are' if self.kind == 'features' else 'is'} no {self.kind} named {shown(name)}"
        raise PartError("; ".join([f"{none}; {reason}", *scan().faults]))

    def __contains__(self, name: str) -> bool:
        """Whether `find` finds a part of this name."""
        try:
            self.find(name)
        except PartError:
            return False
        return True

    def _plugins(self) -> builtins.list[PlugIn]:
        """The plug-ins of this kind."""
        return [plugin for plugin in scan().plugins if plugin.kind == self.kind]

    def _similar_names(self, name: str) -> str:
        """The known names closest to an unknown one, and why a part of this name may be missing."""
        text = suggestion(name, [*self.names(), *ALIASES.get(self.kind, ())], list_all=True)
        distribution = name.rpartition(":")[0]
        if not distribution:
            call = f"@gankit.{plural(self.kind)}.register({shown(name)})"
            text += f" (if a script registers it, run its `{call}` in this process first)"
        elif (owner := normalise_name(distribution)) not in {plugin.distribution for plugin in scan().plugins}:
            text += f" (distribution {owner[:100]} is not installed, or GANKIT_DISABLE_PLUGINS switches it off)"
        return text

    def qualified_name(self, name: str) -> str:
        """The name as runs record it: plain for gankit's own parts, "distribution:name" for plug-ins."""
        name_or_plugin = self.find(name)
        return name_or_plugin if isinstance(name_or_plugin, str) else name_or_plugin.qualified_name

    def get(self, name: str | type) -> type:
        """The part's class; imports one file. Given a class, registered or not, returns it.

        Raises:
            PartError: the name is unknown or ambiguous, the import fails, or what it gives is no part of this kind.
        """
        if isinstance(name, type):
            return self._check(name, name.__name__)
        name_or_plugin = self.find(name)
        if isinstance(name_or_plugin, PlugIn):
            return self._check(name_or_plugin.load(), name_or_plugin.qualified_name)
        if name_or_plugin in self._registered:
            return self._registered[name_or_plugin]
        try:
            module = self.module(name_or_plugin)
        except ImportError as error:
            raise PartError(f"{self.kind} {name_or_plugin!r} cannot be imported: {error}") from error
        base = self.interface()
        candidates = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, base)]
        classes = [value for value in candidates if value.__module__ == module.__name__]
        if len(classes) != 1:
            raise PartError(f"{module.__name__} must hold exactly one {base.__name__}, it holds {len(classes)}")
        return self._check(classes[0], name_or_plugin)

    def attribute(self, name: str) -> ModuleType:
        """The package's `__getattr__` (PEP 562): imports the module of one of gankit's own parts at its first use.

        Raises:
            AttributeError: there is none.
        """
        if name.startswith("__") or name.replace("_", "-") not in self.built_in():
            raise AttributeError(f"module {self.package!r} has no attribute {name!r}")
        return self.module(name)

    def module(self, name: str) -> ModuleType:
        """The module of one of gankit's own parts; for a study, the module `study` in its folder."""
        file = "" if self.kind in FILE_KINDS else f".{self.kind}"
        return importlib.import_module(f"{self.package}.{name.replace('-', '_')}{file}")

    def interface(self) -> type:
        """The abstract class of this kind."""
        name = self.kind.capitalize()
        if self.kind in PART_KINDS:
            return interface_class(name)
        module = self.package if self.kind in FILE_KINDS else f"{self.package}.{self.kind}"
        return cast(type, getattr(importlib.import_module(module), name))

    def _check(self, part: object, name: str) -> type:
        """Return `part` if it is a class of this kind and defines all abstract methods; refuse anything else."""
        base = self.interface()
        if not isinstance(part, type) or not issubclass(part, base):
            raise PartError(f"{self.kind} {name!r} is {part!r}, which is not a subclass of {base.__name__}")
        if inspect.isabstract(part):
            missing = ", ".join(sorted(vars(part)["__abstractmethods__"]))
            raise PartError(f"{self.kind} {name!r} is abstract: {part.__name__} lacks {missing}")
        return part

    def settings(self, name: str | type) -> type[BaseModel]:
        """The frozen model of a part's settings: its own `Settings`, or derived from its constructor.

        Raises:
            PartError: as `get`; settings cannot be read from the constructor; a setting has the name of a reserved key.
        """
        part = self.get(name)
        if part not in self._settings:
            try:
                self._settings[part] = derive_settings(
                    part, self.positional, self.reserved, self._nested_type, self._hint_for
                )
            except PartError:
                raise
            except Exception as error:
                reason = f"no settings can be read from {part.__name__}: {one_line(error)}"
                raise PartError(f"{self.kind} {name!r}: {reason}") from error
        model = self._settings[part]
        if clashes := set(self.reserved) & set(model.model_fields):
            raise PartError(
                f"{self.kind} {name!r} declares {', '.join(sorted(clashes))}, which gankit reserves for itself; "
                "choose other names"
            )
        return model

    def _hint_for(self, setting: str) -> str:
        """A hint that names gankit's own parts with a setting of this name, and how to choose one; "" if none has."""
        owners = []
        for name in self.built_in():
            with contextlib.suppress(PartError):  # the library that it needs may not be installed
                if setting in self.settings(name).model_fields:
                    owners.append(name)
        if not owners:
            return ""
        hint = f"{' and '.join(owners)} {'have' if len(owners) > 1 else 'has'} it"
        return f"{hint}: set {TABLES[self.kind]}.name={owners[0]}" if self.kind in TABLES else hint

    @property
    def positional(self) -> str:
        """The name of the one positional parameter that a constructor may have, to which gankit gives the value."""
        return POSITIONAL.get(self.kind, "image")


def _copies_of(part: object) -> type:
    """A class that gives a copy of `part` when it is called; the registry holds only classes."""
    from gankit.nn.copies import copied  # imported here: `gankit list` need not load torch

    # `__init__` says that there are no settings. It never runs, since a copy is no instance of the new class.
    methods = {"__new__": lambda cls: copied(part), "__init__": lambda self: None}
    return type(type(part).__name__, (type(part),), methods)
