"""The line of a TOML, JSON or YAML file on which a setting stands, which the parsers that read values do not tell."""

import re
from typing import Any, final

KeyPath = tuple[str | int, ...]

# The text of a multi-line string may end in one or two quotes, just before the three that close it.
_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r]+|\#[^\n]*)
    |(?P<string>\"\"\"(?:\\.|[^\\])*?\"{3,5}|'''.*?'{3,5}|"(?:\\.|[^"\\])*"|'[^'\n]*')
    |(?P<mark>[\[\]{},=:\n])
    |(?P<bare>[^\s\[\]{},=:"'\#]+)""",
    re.VERBOSE | re.DOTALL,
)


def toml_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every key, table and list entry of a valid TOML file."""
    return _Scanner(text, "=", line_ends_matter=True).read_document()


def json_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every key and list entry of a valid JSON file."""
    scanner = _Scanner(text, ":", line_ends_matter=False)
    scanner.read_value(())
    return scanner.lines


def yaml_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every key and list entry of a valid YAML file; needs ruamel.yaml."""
    from ruamel.yaml import YAML

    lines: dict[KeyPath, int] = {}

    def walk(node: Any, path: KeyPath) -> None:
        if node is None or not isinstance(node.value, list):
            return
        for index, item in enumerate(node.value):
            if isinstance(item, tuple):  # of a mapping: the nodes of a key and of its value
                key_node, value_node = item
                key = key_node.value
            else:  # of a list
                key_node = value_node = item
                key = index
            lines[(*path, key)] = key_node.start_mark.line + 1
            walk(value_node, (*path, key))

    walk(YAML(typ="safe", pure=True).compose(text), ())
    return lines


@final
class _Scanner:
    """Reads a text that is known to be valid, and notes the lines where keys and list entries begin.

    `separator` stands between a key and its value; where `line_ends_matter`, the end of a line also ends a value.
    """

    def __init__(self, text: str, separator: str, line_ends_matter: bool) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._separator = separator
        self._tokens: list[tuple[str, int]] = []
        line = 1
        for match in _TOKEN.finditer(text):
            if match.lastgroup != "skip" and (line_ends_matter or match[0] != "\n"):
                self._tokens.append((match[0], line))
            line += match[0].count("\n")
        self._next = 0

    def _peek(self, count: int = 0) -> str:
        """The token `count` places after the next one, without reading it; "" at the end."""
        index = self._next + count
        return self._tokens[index][0] if index < len(self._tokens) else ""

    @property
    def _line(self) -> int:
        """The line of the next token."""
        return self._tokens[self._next][1]

    def read_document(self) -> dict[KeyPath, int]:
        """Read a TOML file: tables, lists of tables, and keys with values. Returns the lines of everything in it."""
        last_index: dict[KeyPath, int] = {}  # of the last entry of each list of tables
        table: KeyPath = ()
        while self._peek():
            if self._peek() == "\n":
                self._next += 1
            elif self._peek() == "[":
                table = self._header(last_index)
            else:
                self._setting(table)
        return self.lines

    def _header(self, last_index: dict[KeyPath, int]) -> KeyPath:
        """Read a [table], or a [[table]], the next entry of a list. Returns its path, with the index of the entry."""
        line = self._line
        brackets = 2 if self._peek(1) == "[" else 1
        self._next += brackets
        key = self._key("]")  # also reads the first closing bracket
        self._next += brackets - 1
        table: KeyPath = ()
        for position, part in enumerate(key, 1):
            table = (*table, part)
            self.lines.setdefault(table, line)
            if position == len(key) and brackets == 2:
                last_index[table] = last_index.get(table, -1) + 1
            if table in last_index:  # a list of tables: the rest of the key, and what follows, is in its last entry
                table = (*table, last_index[table])
                self.lines.setdefault(table, line)
        return table

    def _setting(self, table: KeyPath) -> None:
        """Read a key of a table, and its value."""
        line, path = self._line, table
        for part in self._key(self._separator):
            path = (*path, part)
            self.lines.setdefault(path, line)
        self.read_value(path)

    def _key(self, end: str) -> list[str]:
        """Read a key, dotted or not, and the token `end` after it. Returns the parts of the key."""
        key: list[str] = []
        while (token := self._peek()) != end:
            key += [token[1:-1]] if token[0] in "\"'" else [part for part in token.split(".") if part]
            self._next += 1
        self._next += 1
        return key

    def read_value(self, path: KeyPath) -> None:
        """Read a value; `lines` then holds what is in it."""
        if self._peek() == "[":
            self._next += 1
            index = 0
            while self._advance_to_entry("]"):
                self.lines[(*path, index)] = self._line
                self.read_value((*path, index))
                index += 1
        elif self._peek() == "{":
            self._next += 1
            while self._advance_to_entry("}"):
                self._setting(path)
        else:
            while self._peek() not in ("", "\n", ",", "]", "}"):
                self._next += 1

    def _advance_to_entry(self, end: str) -> bool:
        """Skip to the next entry and return True; if there is none, skip the closing bracket `end` and return False."""
        while self._peek() in ("\n", ","):
            self._next += 1
        if self._peek() != end:
            return True
        self._next += 1
        return False
