"""The documentation as a whole: pages, navigation and generated pages; test_docs_*.py run the written pages."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pages import DOCS, GENERATED, ROOT, WRITTEN, Page, blocks
from pydantic import BaseModel

import gankit
from gankit import cli
from gankit.registry import registry
from gankit.registry.plugins import PART_KINDS


@pytest.fixture(scope="module")
def generated(generated_docs: Path) -> dict[str, str]:
    """The generated pages by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in (generated_docs / "reference").iterdir()}


def _module(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        return {found: importlib.import_module(found) for found in ("architecture", "generate", "mistakes")}[name]


def test_pages_show_no_directive_where_they_are_read_as_markdown() -> None:
    """Those that mkdocs alone can read list what it takes from the code, or are a file of the repository's root."""
    read_elsewhere = [name for name in WRITTEN if name not in ("project/changelog.md", "project/contributing.md")]
    shown = {}
    for name in read_elsewhere:
        text = re.sub(r"^```.*?^```$|`[^`\n]+`", "", (DOCS / name).read_text(encoding="utf-8"), flags=re.M | re.S)
        shown[name] = re.findall(r"--8<--.*|^!!!.*|^\?\?\?.*|\{\{.*|\{%.*|\{ ?[#.:a-z].*|^<[^!a].*", text, re.M)
    assert {name: found for name, found in shown.items() if found} == {}


def test_every_block_of_the_generated_pages_runs(
    generated: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in generated.values():
        for block in blocks(text):
            Page(capsys).run(block)


def test_the_glossary_is_in_order_and_has_gankits_own_words() -> None:
    text = (DOCS / "reference" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| ([\w -]+) \| [^|]+ \|$", text, re.MULTILINE)[1:]
    assert words == sorted(words)
    assert {"critic", "turn", "tick", "scope", "floor", "part", "recipe", "real-real", "protocol"} <= set(words)


def _nav(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for item in entry if isinstance(entry, list) else entry.values():
            yield from _nav(item)


def test_intervals_in_guides_are_those_of_a_measured_page() -> None:
    interval = re.compile(r"[-+]?\d\.\d+ \[[-+\d.]+, [-+\d.]+\]")
    measured = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "measured").glob("*.md"))
    guides = [path for folder in ("how-to", "tutorials", "explanation") for path in (DOCS / folder).rglob("*.md")]
    shown = {found for path in guides for found in interval.findall(path.read_text(encoding="utf-8"))}
    assert len(shown) >= 10
    assert {found for found in shown if found not in measured} == set()


def test_every_page_is_reached_from_the_navigation() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = list(_nav(settings["nav"]))
    assert len(listed) == len(set(listed))
    assert set(listed) == {*WRITTEN, *(f"reference/{name}" for name in GENERATED)}


def test_generated_pages_are_those_that_git_ignores(generated: dict[str, str]) -> None:
    assert set(generated) == GENERATED
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    kept = {path.name for path in (DOCS / "reference").glob("*.md")} - GENERATED
    assert "docs/reference/*.md" in ignored
    assert {f"!docs/reference/{name}" for name in kept} <= set(ignored)


def test_no_row_of_a_generated_table_has_a_gap(generated: dict[str, str]) -> None:
    gaps = []
    for name, text in generated.items():
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
        assert rows, name
        gaps += [f"{name}: {' | '.join(row)}" for row in rows if not all(cell.strip() for cell in row)]
    assert not gaps, "\n".join(gaps)


def test_every_part_and_setting_is_on_its_page(generated: dict[str, str]) -> None:
    for kind in PART_KINDS:
        text = generated[f"{registry(kind).package.removeprefix('gankit.')}.md"]
        for name in registry(kind).built_in():
            assert f"| [`{name}`](#{name}) |" in text
            section = text.split(f"{{ #{name} }}")[1].split("\n## ")[0]
            for setting in registry(kind).settings(name).model_fields:
                assert f"| `{setting}` |" in section, f"{kind} {name}: {setting}"


def test_every_key_and_command_is_on_its_page(generated: dict[str, str]) -> None:
    from gankit.experiments.experiment import Evaluation, Training
    from gankit.experiments.tables import DataTable

    for model in (DataTable, Evaluation, Training):
        for key in set(model.model_fields) - {"part"}:
            assert f"| `{key}` |" in generated["experiment.md"]
    for name in registry("study").built_in():
        table, model = registry("study").get(name).table, registry("study").settings(name)
        tables = {table: model}
        for key, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                tables[f"{table}-{key}"] = field.annotation
        for anchor, settings in tables.items():
            section = re.split(r"\n##+ ", generated["studies.md"].split(f"{{ #{anchor} }}")[1])[0]
            assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(settings.model_fields)
        assert f"## `gankit study {name}` {{ #study-{name} }}" in generated["command-line.md"]
    for command in cli.app.registered_commands:
        assert command.callback is not None
        assert f"## `gankit {command.name or command.callback.__name__}`" in generated["command-line.md"]
    assert "## `gankit cache clear` { #cache-clear }" in generated["command-line.md"]


def test_most_errors_have_an_example_and_all_are_listed(generated: dict[str, str]) -> None:
    mistakes = _module("mistakes")
    shown, _, rest = generated["errors.md"].partition("## Messages without an example")
    without = [line for line in rest.splitlines() if re.match(r"- `\w+Error`: ", line)]
    # Making the mistakes reached all other places that raise an error.
    assert 0 < len(without) < 0.35 * len(mistakes.sites())
    assert len(re.findall(r"^:   `\w+Error`: \S", shown, re.MULTILINE)) == len(mistakes.mistakes())
    for error in ("SettingsError", "PartError", "DataError", "RunError"):
        assert f":   `{error}`: " in shown


def test_a_mistake_that_is_none_is_noticed() -> None:
    mistakes = _module("mistakes")
    here = os.getcwd()
    with mistakes.stage(), pytest.raises(AssertionError, match="nothing is wrong with it"):
        mistakes.made(mistakes.Mistake("Runs", "", "gankit show wgan-gp"))
    assert os.getcwd() == here
    assert gankit.GankitError.__init__ is Exception.__init__


PLANTED = {
    "no language": ("```\nx\n```", "no language"),
    "unknown language": ("```ruby\nputs 1\n```", "ruby"),
    "unrunnable line": ("```sh\nrm -r here\n```", "rm -r here is not run"),
    "failing command": ("```sh\ngankit show wgan-gpp\n```", "exit code 2"),
    "command that should fail": ("<!-- fails: no such -->\n```sh\ngankit list loss\n```", "exit code 0"),
    "wrong words": ("<!-- fails: a cat -->\n```sh\ngankit show wgan-gpp\n```", "did you mean"),
    "failing code": ("```python\nassert 1 == 2, 'no'\n```", "no"),
    "bad experiment": ("```toml\n[training]\nstep = 1\n```", "did you mean"),
    "missing file": ("<!-- from examples/none.py -->\n```python\n```", "no such file"),
    "missing section": ("<!-- from examples/own_loss.py:none -->\n```python\n```", "section none"),
    "empty output": ("<!-- printed -->\n```text\n...\n```", "without text"),
    "other output": ("<!-- printed -->\n```text\na line\n```", "'a line'] is not among"),
    "run of another page": ("```text\nfake: run none, 5 images   real: a, 5 images\n```", "trains no run none"),
    "old quotation": ("<!-- from examples/own_loss.py -->\n```python\nx = 1\n```", "not as in its file"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_planted_faults_are_found(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text, words = PLANTED[case]
    [block] = blocks(text)
    with pytest.raises((AssertionError, gankit.GankitError), match=words):
        Page(capsys).run(block)


EVALUATED = """fake: run a, 5 images   real: training images, 9 images
metric       better        value  real-real
FD (pixels)  lower   3.1 +- 0.2        1.0
FD: a distance
"""


@pytest.mark.parametrize(
    ("was", "shown", "line"),
    [
        ("FD (pixels)", "KID (pixels)", 2), ("lower ", "higher", 2), ("  real-real", "  fake-real", 1),
        ("a distance", "distance", 3),
    ],
)  # fmt: skip
def test_an_evaluation_on_a_page_has_the_rows_and_columns_that_are_printed(
    was: str, shown: str, line: int, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Page(capsys)
    page.printed, page.counts = EVALUATED, {"a": 5}
    [same] = blocks(f"```text\n{EVALUATED.replace('3.1 +- 0.2', '301.5 +- 20')}```")
    page.run(same)
    [other] = blocks(f"```text\n{EVALUATED.replace(was, shown)}```")
    with pytest.raises(AssertionError, match="^" + re.escape(f"{other.lines[line:][:1]} is not among")):
        page.run(other)
