"""Tables as LaTeX."""

import re
from collections.abc import Sequence

from gankit.terminal.text import harmless

Table = list[list[str]]

_TEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "↓": r"$\downarrow$",
    "<": r"\textless{}", ">": r"\textgreater{}", "↑": r"$\uparrow$",
})  # fmt: skip


def tabular(header: Sequence[str], parts: Sequence[tuple[str, Table]], notes: str = "") -> str:
    """A LaTeX tabular of a header and of rows under headings, with special characters escaped; notes are comments."""

    def escape(cell: str) -> str:
        text = " ".join(harmless(cell).split())  # an empty line would end the table
        return re.sub(r"(?<![\w.}])-(?=\d)", "$-$", text.translate(_TEX))  # minus signs, not hyphens

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(escape, cells)) + r" \\"

    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\hline", line(header), r"\hline"]
    for words, table in parts:
        if words:
            lines.append(rf"\multicolumn{{{len(header)}}}{{l}}{{\emph{{{escape(words)}}}}} \\")
        lines += [*map(line, table), r"\hline"]
    return "\n".join([*(f"% {harmless(note)}" for note in notes.splitlines()), *lines, r"\end{tabular}", ""])
