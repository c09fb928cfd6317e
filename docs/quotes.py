"""Blocks of hand-written pages that follow from elsewhere: `python docs/quotes.py` writes their text there again.

A block below the hidden comment `from FILE:SECTION` has the text of that section, which the file marks with
`--8<-- [start:SECTION]` and `--8<-- [end:SECTION]`, or without a section that of the whole file. One below the comment
`install gankit[EXTRA]`, or `install` and the name of a plug-in of the folder `plugins`, has the line that installs it.
The text is on the page itself so that it can be read anywhere.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

PUBLISHED = False
"""Whether gankit and its plug-ins are on a package index."""
HERE = Path(__file__).parent
PAGES = [*HERE.rglob("*.md"), *HERE.parent.glob("*.md"), *HERE.parent.glob("plugins/*/README.md")]
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


def install_line(name: str) -> str:
    """What installs a distribution, with its extras: from an index, or from a clone."""
    base, bracket, extras = name.partition("[")
    if not PUBLISHED:
        base = "." if base == "gankit" else f"./plugins/{base}"
    text = f'"{base}[{extras}"' if bracket else base
    return f"pip install {text}" + ("\n" if PUBLISHED else "    # in a clone of gankit's repository\n")


def refreshed(page: str) -> str:
    """The text of a page with every such block as it should be now."""

    def write(block: re.Match[str]) -> str:
        comment, language, text = block.groups()
        if source := SOURCE.match(comment):
            text = quoted(source[1])
        elif comment.startswith("install "):
            text = install_line(comment.removeprefix("install "))
        return f"<!-- {comment} -->\n```{language}\n{text}```"

    return BLOCK.sub(write, page)


if __name__ == "__main__":
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        if (new := refreshed(text)) != text:
            path.write_text(new, encoding="utf-8")
            print(path.relative_to(HERE.parent))
