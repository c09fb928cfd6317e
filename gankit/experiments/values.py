"""Values that are given as text: in overrides and on the command line."""

import tomllib
from typing import Any

from gankit.errors import SettingsError


def parse_value(text: str) -> Any:
    """Parse a text as a TOML value; text that is not TOML is returned without the spaces around it."""
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
    metrics = value if isinstance(value, list) else [name.strip() for name in text.split(",") if name.strip()]
    if not metrics:
        raise SettingsError("--metrics: name at least one; `gankit list metric` lists them")
    return metrics


def parse_window(text: str) -> tuple[float, float]:
    """The pixel values that are shown as black and as white, given as "black,white".

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
