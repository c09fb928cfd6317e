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
    """A LaTeX tabular with special characters escaped, below lines of notes as comments.

    Each part of the table has a heading, which is left out where it is "", and rows.
    """

    def escape(cell: str) -> str:
        text = " ".join(harmless(cell).split()).translate(_TEX)  # an empty line would end the table
        # A number such as 1.2e-07 becomes one with a power of ten.
        with_exponent = r"(?<![\w.}-])(-?\d[\d.]*)e([+-]\d+)\b"
        text = re.sub(with_exponent, lambda number: rf"${number[1]} \cdot 10^{{{int(number[2])}}}$", text)
        # A minus sign is no hyphen. After a letter, a digit, a dot or an escaped character it is the hyphen of a name,
        # and after a dollar sign or an opening brace already a minus sign.
        return re.sub(r"(?<![\w.}${])-(?=\d)", "$-$", text)

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(escape, cells)) + r" \\"

    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\hline", line(header), r"\hline"]
    for words, table in parts:
        if words:
            lines.append(rf"\multicolumn{{{len(header)}}}{{l}}{{\emph{{{escape(words)}}}}} \\")
        lines += [*map(line, table), r"\hline"]
    return "\n".join([*(f"% {harmless(note)}" for note in notes.splitlines()), *lines, r"\end{tabular}", ""])
