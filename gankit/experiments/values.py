"""Values that are given as text: in overrides and on the command line."""

import tomllib
from typing import Any

from gankit.errors import SettingsError


def parse_value(text: str) -> Any:
    """The value that a text is in TOML; if it is no TOML, the text itself without spaces around it."""
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def parse_metrics(text: str) -> list[Any]:
    """Metrics from a TOML list, from one TOML table, or from names with commas between.

    Raises:
        SettingsError: there is none.
    """
    value = parse_value(text)
    if isinstance(value, dict):
        return [value]
    names = value if isinstance(value, list) else [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise SettingsError("--metrics: name at least one; `gankit list metric` lists them")
    return names


def parse_window(text: str) -> tuple[float, float]:
    """Black and white from two numbers with a comma between.

    Raises:
        SettingsError: they are not two numbers that rise.
    """
    try:
        black, white = (float(number) for number in text.split(","))
    except ValueError:
        raise SettingsError(f"--window {text}: two numbers are needed, black and white, for example 0,4095") from None
    if not black < white:
        raise SettingsError(f"--window {text}: black must be below white")
    return black, white
