"""The registry of metrics: one metric per file, imported on first use."""

from gankit.registry import registry

_registry = registry("metric")
names, get, settings, register = _registry.names, _registry.get, _registry.settings, _registry.register
__getattr__ = _registry.attribute  # for gankit.metrics.kid, see PEP 562
