"""Plug-ins: the parts that installed distributions register as entry points; no other file reads entry points."""

import contextlib
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

from gankit.errors import PartError, meant_by, one_line

PART_KINDS = ("generator", "critic", "loss", "augment", "metric", "features", "dataset")
"""Kinds of parts that an experiment names. Their interfaces are in `gankit.interfaces`; each part is one file."""
FILE_KINDS = (*PART_KINDS, "recipe")
"""Kinds whose built-in parts are one file each. The interface of recipes is in `gankit.recipes`."""
KINDS = (*FILE_KINDS, "study")
"""Every kind that is found by name. A study is a folder; its interface is in `gankit.studies.study`."""


def plural(kind: str) -> str:
    """The name of a kind's folder and, after `gankit.`, of its entry point group."""
    return {"loss": "losses", "features": "features", "study": "studies"}.get(kind, kind + "s")


GROUPS = {f"gankit.{plural(kind)}": kind for kind in KINDS}
"""The kind of each entry point group."""
SHIPPED: dict[str, dict[str, tuple[str, ...]]] = {
    "gankit-adaptive-augment": {"augment": ("adaptive", "transforms"), "recipe": ("r3gan-ada",)},
    "gankit-dicom": {"dataset": ("dicom",)},
    "gankit-fastgan": {
        "generator": ("fastgan",), "critic": ("fastgan",), "loss": ("fastgan-hinge", "fastgan-reconstruction"),
        "recipe": ("fastgan",),
    },
    "gankit-stylegan2": {
        "generator": ("stylegan2",), "critic": ("stylegan2",), "loss": ("stylegan2-path-length",),
        "recipe": ("stylegan2",),
    },
    "gankit-timm": {"features": ("timm",)},
}  # fmt: skip
"""The names that each plug-in in the folder `plugins` of gankit's repository registers, by kind."""


def shipped_hint(kind: str, name: str) -> str:
    """Which plug-in of gankit's repository has a part that was not found, and how to install it; "" if none has."""
    owner, _, part = name.casefold().rpartition(":")
    installed = {plugin.distribution for plugin in scan().plugins}
    for distribution, names in SHIPPED.items():
        if distribution not in installed and owner in ("", distribution) and meant_by(part, names.get(kind, ())):
            return (
                f"the plug-in {distribution} has it, and is not installed (or GANKIT_DISABLE_PLUGINS switches it off): "
                f"pip install ./plugins/{distribution} in a clone of gankit's repository"
            )
    return ""


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
        """Import the module and return the object; what the import raises, even `SystemExit`, becomes a PartError."""
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


_Entry = tuple[str, str, str, str]
"""Kind, name, distribution and specification of an entry point of one of gankit's groups, as it is written."""


@lru_cache(maxsize=8)
def _scan(path: tuple[str, ...], modified: tuple[int, ...]) -> tuple[tuple[PlugIn, ...], tuple[tuple[str, str], ...]]:
    """Plug-ins, and (distribution, sentence) of each fault. `modified` is only part of the cache's key."""
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


def _read_together(path: tuple[str, ...]) -> Iterator[_Entry]:
    """Every entry point, read fast by the library `entrypoints`, which raises at the first malformed distribution."""
    for config, distribution in entrypoints.iter_files_distros(list(path)):
        # entrypoints splits the name of a folder at its first hyphen: "my-part-1.0" into "my" and "part-1.0". Join
        # both again, and cut off the version.
        owner = re.sub(r"-\d.*", "", f"{distribution.name}-{distribution.version or ''}").rstrip("-")
        for group, kind in GROUPS.items():
            if group in config:
                for name, specification in config[group].items():
                    yield kind, name, owner, specification


def _read_one_by_one(path: tuple[str, ...], faults: dict[str, str]) -> Iterator[_Entry]:
    """Every entry point that importlib.metadata can read, slowly; `faults` gets what is malformed, by distribution."""
    distributions: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions(path=list(path)):
        if name := _name_of(distribution):
            distributions.setdefault(name, distribution)  # the first on the path is the one that Python imports
    for name, distribution in distributions.items():
        try:
            _parse_strictly(distribution.read_text("entry_points.txt") or "")
        except (ConfigParserError, UnicodeError, OSError) as error:
            faults[name] = f"distribution {name} has a malformed entry_points.txt: {one_line(error)}"
        entries: list[importlib.metadata.EntryPoint] = []
        with contextlib.suppress(Exception):  # a malformed file has been recorded above
            entries = list(distribution.entry_points)
        for entry in entries:
            if entry.group in GROUPS:
                yield GROUPS[entry.group], entry.name, name, entry.value


def _name_of(distribution: importlib.metadata.Distribution) -> str | None:
    """The normalised name in a distribution's metadata; None where they cannot be read."""
    try:
        # The metadata is an email.message.Message, which has items() though its declared type has not.
        name = dict(distribution.metadata.items()).get("Name")  # type: ignore[attr-defined]
    except (UnicodeError, OSError):
        return None
    return name and normalise_name(name)


def _parse_strictly(text: str) -> None:
    """Parse an entry_points.txt as `entrypoints` does, in the locale's encoding, and raise at what is malformed."""
    parser = entrypoints.CaseSensitiveConfigParser(delimiters=("=",))
    # `entrypoints` opens the file in this encoding; decoding the text again gives the same errors.
    parser.read_string(text.encode().decode(locale.getpreferredencoding(False)))
    for section in parser.sections():
        parser.items(section)
