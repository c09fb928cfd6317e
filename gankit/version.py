"""The version of gankit, which packaging reads too."""

__version__ = "0.1.0"
