"""Values that are given as text: in files, in overrides and on the command line.

Files may come from others, so what a text may hold is bounded: reading one takes only seconds and little memory.
"""

import json
import math
import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from gankit.errors import DataError, SettingsError, not_in_utf8
from gankit.registry.messages import shown

MAX_FILE = {".toml": 1_000_000, ".json": 10_000_000, ".yaml": 200_000}
"""The most characters of a file by its format: about a second's work for its parser."""
MAX_KEY, MAX_TEXT = 200, 4096
"""The most characters of a key, and of a text."""
MAX_NUMBER = 1e38
"""The largest magnitude of a decimal number: networks compute in float32."""
MAX_DEPTH = 32
"""The most tables and lists within each other."""
MAX_VALUES = 100_000
"""The most values in all, counting those that YAML repeats by an alias."""
TOO_DEEP = f"tables and lists are nested more than {MAX_DEPTH} deep"
TOO_MANY = f"there are more than {MAX_VALUES:,} values"
_LONG_KEY = re.compile(rf"""(?<![\w"' \t-])(?:[\w"' \t-]+\.){{{MAX_DEPTH}}}""")
"""A key with `MAX_DEPTH` dots; tomllib's use of memory grows with the square of their number.

A match starts only where no character of a key comes before it, else the search would take quadratic time.
"""


def parse_text(text: str, format: str) -> Any:
    """The values in a file's text of the format ".toml", ".json" or ".yaml"; YAML needs ruamel.yaml.

    Raises:
        ValueError: it is not of this format, or beyond the bounds of this module; some are a TOMLDecodeError or
            a JSONDecodeError, which tell the line.
        ruamel.yaml.error.YAMLError: it is not YAML.
    """
    if len(text) > MAX_FILE[format]:
        raise ValueError(f"{len(text):,} characters are too long for settings; at most {MAX_FILE[format]:,} are read")
    try:
        if format == ".json":
            return json.loads(text, object_pairs_hook=_table_of_pairs, parse_constant=_refuse_constant)
        if format == ".yaml":
            return _parse_yaml(text)
        if _LONG_KEY.search(text):
            raise ValueError(TOO_DEEP)
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except ValueError as error:
        if "digits" in str(error):  # Python's limit; its message is for programmers
            raise ValueError("a number has thousands of digits") from None
        raise


def _table_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The table of these pairs of key and value; a key that comes twice is refused."""
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} comes twice in one table")
    return table


def _refuse_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def _parse_yaml(text: str) -> Any:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    node = yaml.compose(text)
    if _expanded_size(node, {}) > MAX_VALUES:
        raise ValueError(TOO_MANY)
    return None if node is None else yaml.constructor.construct_document(node)


def _expanded_size(node: Any, known: dict[int, float]) -> float:
    """The number of values under a node of YAML where aliases are written out; infinite for one that holds itself."""
    if isinstance(node, tuple):  # of a mapping: the nodes of a key and of its value
        return sum(_expanded_size(inner, known) for inner in node)
    if id(node) not in known:
        known[id(node)] = math.inf  # found again while it is counted, if the node contains itself
        children = node.value if isinstance(getattr(node, "value", None), list) else []
        known[id(node)] = 1 + sum(_expanded_size(child, known) for child in children)
    return known[id(node)]


def copy_values(value: Any, label: str) -> Any:
    """A copy in which no two places share a table or list, with lists for tuples; other objects stay as they are.

    Raises:
        SettingsError: the value is beyond the bounds of this module, or holds what no TOML file can; names the place,
            after the label.
    """
    count = 0

    def copy(value: Any, path: tuple[str, ...]) -> Any:
        nonlocal count
        count += 1
        if count > MAX_VALUES:
            raise ValueError(TOO_MANY)
        if len(path) > MAX_DEPTH:
            raise ValueError(f"{path[0]}: {TOO_DEEP}")
        if isinstance(value, Mapping):
            _refuse_keys(value, "".join(f"{parent}." for parent in path))
            return {key: copy(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [copy(item, (*path, str(index))) for index, item in enumerate(value)]
        _refuse_value(value, f"{'.'.join(path)}: " if path else "")
        return value

    try:
        return copy(value, ())
    except ValueError as error:
        raise SettingsError(f"{label}: {error}") from None


def _refuse_keys(table: Mapping[Any, Any], parents: str) -> None:
    """Refuse keys that TOML cannot hold, or that are too long; errors name them with their `parents`."""
    for key in table:
        if not isinstance(key, str) or not _is_unicode(key):
            raise ValueError(f"{parents}{shown(key)}: a key must be a text in UTF-8; put it into quotes")
        if len(key) > MAX_KEY:
            raise ValueError(f"{parents}{shown(key)}: the key is longer than {MAX_KEY} characters; shorten it")


def _refuse_value(value: Any, place: str) -> None:
    """Refuse a number or text that TOML cannot hold, or that is too large; errors begin with its `place`."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{place}a whole number must fit into 64 bits, from -2^63 to 2^63 - 1")
    if isinstance(value, float) and MAX_NUMBER < abs(value) < math.inf:
        raise ValueError(f"{place}a number up to {MAX_NUMBER:g} in size is needed, not {value:g}")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ValueError(f"{place}the text is longer than {MAX_TEXT:,} characters; shorten it")
    if isinstance(value, str) and not _is_unicode(value):
        raise ValueError(f"{place}{not_in_utf8(shown(value))}")


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text. It cannot hold lone surrogates, which JSON or a command line may contain."""
    return re.search("[\ud800-\udfff]", text) is None


def parse_value(text: str) -> Any:
    """Parse a text as a TOML value; text that is not TOML is returned without the spaces around it.

    [age, sex] is read like ["age", "sex"], since shells take the quotation marks away.
    """
    text = text.strip()
    try:
        table = parse_text(f"value = {text}", ".toml")
    except ValueError:
        if words := re.fullmatch(r"\[([^\[\]{}\"'=]*)\]", text):
            return [parse_value(word) for word in words[1].split(",") if word.strip()]
        return text
    return table["value"] if len(table) == 1 else text  # more keys: the text has several lines, and is no single value


def parse_table(text: str) -> dict[str, Any] | None:
    """The TOML table in braces that names a data set; None for any other text, and for a file or folder.

    Raises DataError for what begins with a brace and is no TOML table.
    """
    if not text.lstrip().startswith("{") or os.path.exists(text):
        return None
    table = parse_value(text)
    if not isinstance(table, dict):
        raise DataError(f'{text}: it is not a TOML table; write it as {{name = "folder", path = "scans"}}')
    return table


def parse_metrics(text: str) -> list[Any]:
    """Metrics from a TOML list, a TOML table, or names separated by commas; raises SettingsError if none is named."""
    value = parse_value(text)
    if isinstance(value, dict):
        return [value]
    metrics = value if isinstance(value, list) else [name.strip() for name in text.split(",") if name.strip()]
    if not metrics:
        raise SettingsError("--metrics: name at least one; `gankit list metric` lists them")
    return metrics


def parse_window(text: str) -> tuple[float, float]:
    """The pixel values that are shown as black and as white, given as "black,white".

    Raises SettingsError unless they are two finite numbers, black below white.
    """
    try:
        black, white = (float(number) for number in text.split(","))
    except ValueError:
        raise SettingsError(f"--window {text}: two numbers are needed, black and white, for example 0,4095") from None
    if not -math.inf < black < white < math.inf:
        raise SettingsError(f"--window {text}: black must be below white, and both must be finite")
    return black, white
