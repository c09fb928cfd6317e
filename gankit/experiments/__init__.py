"""From a TOML file to validated settings, with file and line."""
