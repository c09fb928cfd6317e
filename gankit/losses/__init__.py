"""The registry of losses: one file per part, imported at its first use."""

from gankit.registry import registry

_registry = registry("loss")
names, get, settings, register = _registry.names, _registry.get, _registry.settings, _registry.register
__getattr__ = _registry.attribute  # for gankit.losses.hinge, see PEP 562
