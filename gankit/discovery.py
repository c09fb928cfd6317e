"""Plug-ins: the parts that installed distributions register as entry points. The one file that knows entry points."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import warnings
from collections.abc import Iterable
from configparser import Error as ConfigParserError
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import entrypoints

from gankit.errors import PartError

KINDS = ("generator", "critic", "loss", "augment", "metric", "features", "dataset")
"""Every kind of part."""


def plural(kind: str) -> str:
    """The name of a kind's folder and, after `gankit.`, of its entry point group."""
    return {"loss": "losses", "features": "features"}.get(kind, kind + "s")


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
            raise PartError(
                f"plug-in {self.qualified_name} ({self.kind}) cannot be imported from {self.module}:{self.attribute}: "
                f"{type(error).__name__}: {error}; mend or uninstall {self.distribution}, or set "
                f"GANKIT_DISABLE_PLUGINS={self.distribution}"
            ) from error


@dataclass(frozen=True)
class Scan:
    """What is registered, and one sentence for each distribution whose registration is malformed."""

    plugins: tuple[PlugIn, ...]
    faults: tuple[str, ...]


def normalised(distribution: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def scan() -> Scan:
    """The registered plug-ins of every kind, less those that `GANKIT_DISABLE_PLUGINS` names."""
    disabled = {normalised(name.strip()) for name in os.environ.get("GANKIT_DISABLE_PLUGINS", "").split(",")}
    if "*" in disabled:
        return Scan((), ())
    found = _scan(tuple(sys.path))
    return Scan(tuple(plugin for plugin in found.plugins if plugin.distribution not in disabled), found.faults)


@lru_cache(maxsize=8)
def _scan(path: tuple[str, ...]) -> Scan:
    faults: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            entries = [
                (kind, entry.name, entry.distro.name, entry.module_name, entry.object_name)
                for kind in KINDS
                for entry in entrypoints.get_group_all(f"gankit.{plural(kind)}", path=list(path))
            ]
        faults += [str(warning.message) for warning in caught]
    except (ConfigParserError, UnicodeError, OSError):
        entries = list(_read_one_by_one(path, faults))
    unique = dict.fromkeys(PlugIn(kind, name, normalised(dist), module, attribute or "")
                           for kind, name, dist, module, attribute in entries)  # fmt: skip
    return Scan(tuple(sorted(unique, key=lambda plugin: (plugin.kind, plugin.name))), tuple(faults))


def _read_one_by_one(path: tuple[str, ...], faults: list[str]) -> Iterable[tuple[str, str, str, str, str | None]]:
    """The same entries through importlib.metadata, which reads each distribution by itself; faults are added."""
    kinds = {f"gankit.{plural(kind)}": kind for kind in KINDS}
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions(path=list(path)):
        name = distribution.metadata["Name"] or "unknown"
        if normalised(name) in seen:  # the first on the path is the one that Python imports
            continue
        seen.add(normalised(name))
        try:
            text = distribution.read_text("entry_points.txt") or ""
            parser = entrypoints.CaseSensitiveConfigParser(delimiters=("=",))
            parser.read_string(text)
            for section in parser.sections():
                parser.items(section)
            text.encode("ascii")
        except (ConfigParserError, UnicodeError, OSError) as error:
            reason = " ".join(str(error).split())
            faults.append(f"distribution {normalised(name)} has a malformed entry_points.txt: {reason}")
        try:
            entries = list(distribution.entry_points)
        except Exception:  # named above; its parts are out of reach
            continue
        for entry in entries:
            if entry.group in kinds and (match := re.fullmatch(r"([\w.]+)\s*(?::\s*([\w.]+))?.*", entry.value)):
                yield kinds[entry.group], entry.name, name, match[1], match[2]
