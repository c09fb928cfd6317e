"""Finds parts by name, derives their settings from their constructors, and loads plug-ins."""

from gankit.registry.parts import Part, build, construct, nested_part, read_part, registry, valid_part
from gankit.registry.registry import Listing, Registry
from gankit.registry.schedule import Schedule, Scheduled, fill_at, value_at

__all__ = [
    "Listing", "Part", "Registry", "Schedule", "Scheduled", "build", "construct", "fill_at", "nested_part", "read_part",
    "registry", "valid_part", "value_at",
]  # fmt: skip
