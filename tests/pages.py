"""The blocks of a page of the documentation, and how each is run or compared with the file that it quotes."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gankit
from gankit import cli
from gankit.registry import registry
from gankit.registry.plugins import KINDS
from gankit.studies.reading import load_study

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
import quotes  # noqa: E402

EXAMPLES = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_examples*.py"))
GENERATED = {
    "experiment.md", "generators.md", "critics.md", "losses.md", "augments.md", "metrics.md", "features.md",
    "datasets.md", "recipes.md", "command-line.md", "errors.md", "studies.md",
}  # fmt: skip
WRITTEN = sorted(
    path.relative_to(DOCS).as_posix()
    for path in DOCS.rglob("*.md")
    if not (path.parent.name == "reference" and path.name in GENERATED) and path.parent.name != "code"
)
NOT_RUN = ("pip", ".venv/bin/pip", "make", "git", "torchrun", "source", "cd", "mkdir", "export")
LANGUAGES = ("python", "sh", "toml", "text", "json")


@dataclass
class Block:
    """A fenced block: its language, lines, the first line's number, and the hidden comment directly above it."""

    language: str
    lines: list[str]
    line: int
    note: str

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    @property
    def source(self) -> str:
        """The file, and its section, that the block quotes; "" where it quotes none."""
        found = quotes.SOURCE.match(self.note)
        return found[1] if found else ""


def blocks(text: str) -> list[Block]:
    found: list[Block] = []
    fence, indent, note = "", 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        opened = re.match(r"^( *)(```+)(.*)$", line)
        if fence:
            if opened and opened[2] == fence and not opened[3]:
                fence, note = "", ""
            else:
                found[-1].lines.append(line[indent:])
        elif opened:
            fence, indent = opened[2], len(opened[1])
            found.append(Block(opened[3].strip().split(" ")[0], [], number + 1, note))
        elif comment := re.match(r"^ *<!-- (.*) -->$", line):
            note = comment[1]
        elif line.strip():
            note = ""
    assert not fence, "a fence is not closed"
    return found


def commands(text: str) -> Iterator[list[str]]:
    """Every command of a shell block, as words; comments are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        for command in re.split(r" && ", line):
            if words := shlex.split(command, comments=True):
                yield words


class Page:
    """The blocks of one page, run in order in one folder and one namespace."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.space: dict[str, Any] = {"__name__": "__main__"}
        self.capsys = capsys
        self.printed = ""  # by the commands of the last shell block
        self.counts: dict[str, int | None] = {}  # by run: generated images that its settings evaluate

    def run(self, block: Block) -> None:
        if block.note.startswith("needs: ") and importlib.util.find_spec(block.note.removeprefix("needs: ")) is None:
            return
        assert block.language in LANGUAGES, f"line {block.line}: a block of {block.language or 'no language'}"
        if block.source:
            check_quoted(block)
        if not (block.source and block.language == "python"):
            getattr(self, block.language)(block)

    def python(self, block: Block) -> None:
        exec(compile("\n" * (block.line - 1) + block.text, "page", "exec"), self.space)

    def text(self, block: Block) -> None:
        """Text below the comment `printed` is what the shell block above it prints, in this order.

        So is an evaluation, but for its warnings and for numbers, since the tests train shorter; `of another page`
        stands above one of a run that the page does not train.
        """
        lines, printed = [line for line in block.lines if line != "..."], self.printed.splitlines()
        missing: list[str] = []
        if block.note == "printed":
            assert lines, f"line {block.line}: a printed block without text"
            rest = iter(printed)
            missing = [line for line in lines if line not in rest]
        elif block.note != "of another page" and (heading := re.match(r"fake: run (\S+), (\d+) images", block.text)):
            assert heading[1] in self.counts, f"line {block.line}: the page trains no run {heading[1]}"
            assert self.counts[heading[1]] in (None, int(heading[2])), f"line {block.line}: evaluation.count is another"
            found = [without_numbers(line) for line in printed]
            wanted = [line for line in lines if not line.startswith("warning: ")]
            missing = [line for line in wanted if without_numbers(line) not in found]
        assert not missing, f"{missing} is not among the lines of:\n{self.printed}"

    def json(self, block: Block) -> None:
        json.loads(block.text)

    def toml(self, block: Block) -> None:
        content = tomllib.loads(block.text)
        if block.note.startswith("pyproject"):
            groups = content.get("project", {}).get("entry-points", {})
            assert set(groups) <= {registry(kind).package for kind in KINDS}
            return
        if block.note.startswith("study "):
            Path("study.toml").write_text(block.text, encoding="utf-8")  # which commands of the page may name
            load_study(block.note.removeprefix("study "), "study.toml")
            return
        gankit.load(over_the_default(content) if block.note == "part" else content)

    def sh(self, block: Block) -> None:
        fails, _, added = block.note.partition("the tests add: ")
        fails, small = fails.removesuffix("; "), added.split()
        words, self.printed = list(commands(block.text)), ""
        for number, command in enumerate(words):
            if command[0] in NOT_RUN or command[:3] in (["python", "-m", "venv"], ["python3", "-m", "venv"]):
                continue
            if command[0] == "python" and re.fullmatch(r"examples/\w+\.py", command[1]):
                check_run_elsewhere(command[1])
                continue
            assert command[0] == "gankit", f"line {block.line}: {' '.join(command)} is not run by the tests"
            shown = " ".join(command)
            more = small if command[1] in ("train", "demo", "study", "check") else []
            code, output = self.command([*command[1:], *more])
            self.printed += output
            if command[1] == "train" and "--out" in command:
                place = command.index("--out")
                evaluation = gankit.load(*command[2:place]).evaluation
                self.counts[Path(command[place + 1]).name] = evaluation.count
            if fails.startswith("fails: ") and number == len(words) - 1:
                assert code == 2, f"{shown}: exit code {code}\n{output}"
                assert fails.removeprefix("fails: ") in output, output
            else:
                assert code == 0, f"{shown}: exit code {code}\n{output}"

    def command(self, arguments: list[str]) -> tuple[int, str]:
        self.capsys.readouterr()
        code = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["gankit", *arguments])
            try:
                cli.main()
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 0
        shown = self.capsys.readouterr()
        return code, shown.out + shown.err


def without_numbers(line: str) -> str:
    """What a line of an evaluation says but for numbers: in a row of the table the metric and what is better."""
    cells = re.split(" {2,}", line)
    if cells[0] == "metric":
        return " ".join(cells)
    return re.sub(r"\d+", "0", line) if ": " in line or len(cells) < 2 else f"{cells[0]}  {cells[1]}"


def over_the_default(content: Mapping[str, Any]) -> dict[str, Any]:
    """The default recipe with a fragment of an experiment in it."""
    tables = gankit.load("wgan-gp").tables()
    for name, table in content.items():
        fragment = isinstance(table, dict) and "name" not in table and name in tables
        tables[name] = {**tables[name], **table} if fragment else table
    return tables


def check_quoted(block: Block) -> None:
    try:
        assert block.text == quotes.quoted(block.source), (
            f"line {block.line}: not as in its file; python docs/quotes.py"
        )
    except LookupError as error:
        raise AssertionError(str(error)) from None
    check_run_elsewhere(block.source.partition(":")[0])


def check_run_elsewhere(path: str) -> None:
    assert (ROOT / path).is_file(), f"{path} is shown, and there is no such file"
    if path.startswith("examples/"):
        assert f'"{Path(path).name}"' in EXAMPLES, f"{path} is shown, and no test of the examples runs it"


def run_page(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run all blocks of one page in a folder."""
    monkeypatch.chdir(folder)
    page = Page(capsys)
    for block in blocks((DOCS / name).read_text(encoding="utf-8")):
        page.run(block)
