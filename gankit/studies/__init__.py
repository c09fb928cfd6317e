"""The registry of studies, experiments over many trainings: one folder per study, imported at its first use."""

from gankit.registry import registry

_registry = registry("study")
names, get, settings, register = _registry.names, _registry.get, _registry.settings, _registry.register
