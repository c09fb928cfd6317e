"""Blocks of hand-written pages that quote a file: `python docs/quotes.py` copies the file's text there again.

Such a block stands below a hidden comment that names the file and, behind a colon, a section of it that the file marks
with `--8<-- [start:NAME]` and `--8<-- [end:NAME]`. The text is on the page itself so that it can be read anywhere.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = re.compile(r"(?:.* )?from (\S+)$")
BLOCK = re.compile(r"^<!-- ([^\n]*) -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def quoted(source: str) -> str:
    """The text of a file, or of a section of it, by its path in the repository.

    Raises:
        LookupError: there is no such file or section.
    """
    path, _, section = source.partition(":")
    file = HERE.parent / path
    if not file.is_file():
        raise LookupError(f"{path} is quoted, and there is no such file")
    text = file.read_text(encoding="utf-8")
    if section:
        found = re.search(
            rf"^[^\n]*--8<-- \[start:{section}\]\n(.*?)^[^\n]*--8<-- \[end:{section}\]", text, re.M | re.S
        )
        if not found:
            raise LookupError(f"{path} has no section {section}")
        text = found[1]
    lines = [line for line in text.splitlines() if "--8<--" not in line]
    return textwrap.dedent("\n".join(lines)).strip("\n") + "\n"


def refreshed(page: str) -> str:
    """The text of a page with every quotation as its file has it now."""

    def copy(block: re.Match[str]) -> str:
        source = SOURCE.match(block[1])
        return f"<!-- {block[1]} -->\n```{block[2]}\n{quoted(source[1])}```" if source else block[0]

    return BLOCK.sub(copy, page)


if __name__ == "__main__":
    for path in HERE.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        if (new := refreshed(text)) != text:
            path.write_text(new, encoding="utf-8")
            print(path.relative_to(HERE))
