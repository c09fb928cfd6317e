"""Parts by name, their settings from their constructors, and plug-ins."""

from __future__ import annotations

from gankit.registry.registry import (
    Listing,
    Part,
    Registry,
    build,
    nested_part,
    read_part,
    registry,
    valid_part,
)

__all__ = ["Listing", "Part", "Registry", "build", "nested_part", "read_part", "registry", "valid_part"]
