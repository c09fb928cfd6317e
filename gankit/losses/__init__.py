"""The registry of losses; one part a file, imported when first asked for."""

from types import ModuleType

from gankit.registry import registry

_registry = registry("loss")
names = _registry.names
get = _registry.get
settings = _registry.settings
register = _registry.register


def __getattr__(name: str) -> ModuleType:
    if name.startswith("__") or name.replace("_", "-") not in _registry.built_in():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _registry.module(name)
