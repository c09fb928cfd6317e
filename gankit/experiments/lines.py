"""On which line of a TOML, JSON or YAML file a setting is written; the parsers that read the values keep no places."""

from __future__ import annotations

import re
from typing import Any, final

Location = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r]+|\#[^\n]*)
    |(?P<string>\"\"\".*?\"{3,5}|'''.*?'{3,5}|"(?:\\.|[^"\\])*"|'[^'\n]*')
    |(?P<mark>[\[\]{},=:\n])
    |(?P<bare>[^\s\[\]{},=:"'\#]+)""",
    re.VERBOSE | re.DOTALL,
)


def toml_places(text: str) -> dict[Location, int]:
    """The line, from 1, of every key, table and list entry of a valid TOML file."""
    return _Scanner(text, "=").document()


def json_places(text: str) -> dict[Location, int]:
    """The line, from 1, of every key and list entry of a valid JSON file."""
    return _Scanner(text, ":").value(())


def yaml_places(text: str) -> dict[Location, int]:
    """The line, from 1, of every key and list entry of a valid YAML file; needs ruamel.yaml."""
    from ruamel.yaml import YAML

    places: dict[Location, int] = {}

    def walk(node: Any, location: Location) -> None:
        if node is None or not isinstance(node.value, list):
            return
        for number, item in enumerate(node.value):
            key, value = item if isinstance(item, tuple) else (item, item)
            inner = (*location, key.value if isinstance(item, tuple) else number)
            places[inner] = key.start_mark.line + 1
            walk(value, inner)

    walk(YAML(typ="safe", pure=True).compose(text), ())
    return places


@final
class _Scanner:
    """Reads tokens of a text that is known to be valid, and notes where keys and list entries begin."""

    def __init__(self, text: str, separator: str) -> None:
        self.places: dict[Location, int] = {}
        self._separator = separator
        self._tokens: list[tuple[str, int]] = []
        line = 1
        for match in _TOKEN.finditer(text):
            if match.lastgroup != "skip" and not (separator == ":" and match[0] == "\n"):  # lines end nothing in JSON
                self._tokens.append((match[0], line))
            line += match[0].count("\n")
        self._next = 0

    def _ahead(self, count: int = 0) -> str:
        place = self._next + count
        return self._tokens[place][0] if place < len(self._tokens) else ""

    @property
    def _line(self) -> int:
        return self._tokens[self._next][1]

    def document(self) -> dict[Location, int]:
        """A TOML file: tables, lists of tables, and keys with values."""
        newest: dict[Location, int] = {}
        table: Location = ()
        while self._ahead():
            if self._ahead() == "\n":
                self._next += 1
            elif self._ahead() == "[":
                table = self._header(newest)
            else:
                self._setting(table)
        return self.places

    def _header(self, newest: dict[Location, int]) -> Location:
        line, brackets = self._line, 2 if self._ahead(1) == "[" else 1
        self._next += brackets
        key = self._key("]")
        self._next += brackets - 1
        table: Location = ()
        for position, part in enumerate(key, 1):
            table = (*table, part)
            if position == len(key) and brackets == 2:
                newest[table] = newest.get(table, -1) + 1
            self.places.setdefault(table, line)
            if table in newest:
                table = (*table, newest[table])
                self.places.setdefault(table, line)
        return table

    def _setting(self, table: Location) -> None:
        line = self._line
        for part in self._key(self._separator):
            table = (*table, part)
            self.places.setdefault(table, line)
        self.value(table)

    def _key(self, end: str) -> list[str]:
        """A key, dotted or not, up to and with the mark that ends it."""
        key: list[str] = []
        while (token := self._ahead()) != end:
            key += [token[1:-1]] if token[0] in "\"'" else [part for part in token.split(".") if part]
            self._next += 1
        self._next += 1
        return key

    def value(self, location: Location) -> dict[Location, int]:
        """A value, and everything in it."""
        if self._ahead() == "[":
            self._next += 1
            number = 0
            while self._has_more("]"):
                self.places[(*location, number)] = self._line
                self.value((*location, number))
                number += 1
        elif self._ahead() == "{":
            self._next += 1
            while self._has_more("}"):
                self._setting(location)
        else:
            while self._ahead() not in ("", "\n", ",", "]", "}"):
                self._next += 1
        return self.places

    def _has_more(self, end: str) -> bool:
        """Step over what stands before the next entry; over the end and no further, where there is none."""
        while self._ahead() in ("\n", ","):
            self._next += 1
        more = self._ahead() != end
        self._next += not more
        return more
