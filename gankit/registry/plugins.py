"""Plug-ins: the parts that installed distributions register as entry points; no other file reads entry points."""

import importlib.metadata
import locale
import os
import re
import sys
from collections.abc import Iterator
from configparser import Error as ConfigParserError
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import entrypoints

from gankit.errors import PartError, one_line

PART_KINDS = ("generator", "critic", "loss", "augment", "metric", "features", "dataset")
"""Kinds of parts that an experiment names. Their interfaces are in `gankit.interfaces`; each part is one file."""
FILE_KINDS = (*PART_KINDS, "recipe")
"""Kinds of which gankit's own are one file each. The interface of recipes is in `gankit.recipes`."""
KINDS = (*FILE_KINDS, "study")
"""Every kind that is found by name. A study is a folder; its interface is in `gankit.studies.study`."""


def plural(kind: str) -> str:
    """The name of a kind's folder and, after `gankit.`, of its entry point group."""
    return {"loss": "losses", "features": "features", "study": "studies"}.get(kind, kind + "s")


GROUPS = {f"gankit.{plural(kind)}": kind for kind in KINDS}
"""The kind of each entry point group."""


@dataclass(frozen=True)
class PlugIn:
    """A part that a distribution registers; nothing of it is imported yet."""

    kind: str
    name: str
    distribution: str
    module: str
    attribute: str

    @property
    def qualified_name(self) -> str:
        """The spelling that no other distribution can take: "distribution:name"."""
        return f"{self.distribution}:{self.name}"

    def load(self) -> Any:
        """Import the module and return the object.

        Raises:
            PartError: whatever the import raises, `SystemExit` included.
        """
        entry = entrypoints.EntryPoint(self.name, self.module, self.attribute)
        try:
            return entry.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            place = f"{self.module}:{self.attribute}" if self.attribute else self.module
            raise PartError(
                f"plug-in {self.qualified_name} ({self.kind}) cannot be imported from {place}: {type(error).__name__}: "
                f"{one_line(error)}; fix or uninstall {self.distribution}, or set "
                f"GANKIT_DISABLE_PLUGINS={self.distribution}"
            ) from error


@dataclass(frozen=True)
class Scan:
    """The registered plug-ins, and one sentence for each distribution whose registration is malformed."""

    plugins: tuple[PlugIn, ...]
    faults: tuple[str, ...]


def normalise_name(distribution: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def scan() -> Scan:
    """The registered plug-ins of every kind, without those that `GANKIT_DISABLE_PLUGINS` names; "*" stands for all."""
    disabled = {normalise_name(name.strip()) for name in os.environ.get("GANKIT_DISABLE_PLUGINS", "").split(",")}
    if "*" in disabled:
        return Scan((), ())
    path = tuple(folder for folder in sys.path if isinstance(folder, str))
    plugins, faults = _scan(path, tuple(map(_modified_ns, path)))
    return Scan(
        tuple(plugin for plugin in plugins if plugin.distribution not in disabled),
        tuple(sentence for distribution, sentence in faults if distribution not in disabled),
    )


def _modified_ns(folder: str) -> int:
    """When a folder of sys.path last changed, as by an installation; 0 where there is no such folder."""
    try:
        return os.stat(folder or os.curdir).st_mtime_ns
    except (OSError, ValueError):
        return 0


@lru_cache(maxsize=8)
def _scan(path: tuple[str, ...], modified: tuple[int, ...]) -> tuple[tuple[PlugIn, ...], tuple[tuple[str, str], ...]]:
    """Plug-ins, and (distribution, sentence) of each fault; `modified` makes the cache miss after an installation."""
    faults: dict[str, str] = {}
    try:
        entries = list(_read_together(path))
    except (ConfigParserError, UnicodeError, OSError):  # find the malformed distribution, and read the others
        entries = list(_read_one_by_one(path, faults))
    plugins: dict[tuple[str, str, str], PlugIn] = {}
    for kind, name, distribution, specification in entries:
        owner = normalise_name(distribution)
        try:
            entry = entrypoints.EntryPoint.from_string(specification, name)
        except entrypoints.BadEntryPoint:
            fault = f"distribution {owner} registers {kind} {name} as {specification!r}: write module:class"
            faults.setdefault(owner, fault)
            continue
        # The first on the path is the one that Python imports.
        plugin = PlugIn(kind, name, owner, entry.module_name, entry.object_name or "")
        plugins.setdefault((kind, name, owner), plugin)
    return tuple(plugins[key] for key in sorted(plugins)), tuple(faults.items())


def _read_together(path: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    """(kind, name, distribution, specification) of every entry point; raises at the first malformed distribution."""
    for config, distribution in entrypoints.iter_files_distros(list(path)):
        # entrypoints splits the name of a folder at its first hyphen: "my-part-1.0" into "my" and "part-1.0". Join
        # both again, and cut off the version.
        owner = re.sub(r"-\d.*", "", f"{distribution.name}-{distribution.version or ''}").rstrip("-")
        for group, kind in GROUPS.items():
            if group in config:
                for name, specification in config[group].items():
                    yield kind, name, owner, specification


def _read_one_by_one(path: tuple[str, ...], faults: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """As `_read_together`, by importlib.metadata: records malformed distributions in `faults`, and reads the rest."""
    names: set[str] = set()
    for distribution in importlib.metadata.distributions(path=list(path)):
        try:
            # The metadata is an email.message.Message, which has items() though its declared type has not.
            name = dict(distribution.metadata.items()).get("Name")  # type: ignore[attr-defined]
        except (UnicodeError, OSError):
            name = None
        if name is None or normalise_name(name) in names:  # the first on the path is the one that Python imports
            continue
        names.add(normalise_name(name))
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except (UnicodeError, OSError) as error:
            faults[normalise_name(name)] = _fault(name, error)
            continue
        try:
            # Parsed as entrypoints does, strictly and in the locale's encoding, only to record what is malformed.
            parser = entrypoints.CaseSensitiveConfigParser(delimiters=("=",))
            parser.read_string(text.encode().decode(locale.getpreferredencoding(False)))
            for section in parser.sections():
                parser.items(section)
        except (ConfigParserError, UnicodeError) as error:
            faults[normalise_name(name)] = _fault(name, error)
        try:
            entries = list(distribution.entry_points)
        except Exception:  # its fault is recorded already; its parts cannot be read
            continue
        for entry in entries:
            if entry.group in GROUPS:
                yield GROUPS[entry.group], entry.name, name, entry.value


def _fault(distribution: str, error: Exception) -> str:
    reason = one_line(error)
    return f"distribution {normalise_name(distribution)} has a malformed entry_points.txt: {reason}"
