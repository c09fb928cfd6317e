"""The registry of studies: whole experiments over many trainings. One study a folder, imported when first asked for."""

from gankit.registry import registry

_registry = registry("study")
names, get, settings, register = _registry.names, _registry.get, _registry.settings, _registry.register
