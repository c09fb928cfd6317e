"""The command line: what each command writes and says, and one line with exit code 2 for every mistake."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
import typer
from command_line import Call, Small
from PIL import Image

import gankit
from gankit import cli
from gankit.experiments.recipe_files import fixed_recipe_names
from gankit.terminal.text import as_columns

call = command_line.call


def test_as_a_module_and_as_a_script() -> None:
    for command in ([sys.executable, "-m", "gankit"], [str(Path(sys.executable).parent / "gankit")]):
        done = subprocess.run([*command, "list", "loss"], capture_output=True, text=True)
        assert done.returncode == 0
        assert done.stderr == ""
        assert "gradient-penalty  loss  gankit" in done.stdout.splitlines()
    done = subprocess.run([sys.executable, "-m", "gankit", "show", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("gankit: there is no recipe or file 'nothing'; known: ")


def test_a_command_ends_without_a_search_for_garbage_among_the_objects_of_its_modules() -> None:
    code = (
        "import atexit, gc, sys; atexit.register(lambda: print(gc.get_freeze_count() > 10_000)); "
        "sys.argv = ['gankit', '--version']; from gankit.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["True"]


def commands(group: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every command below a group: its words, itself and its context."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = type(context)(command, info_name=name, parent=context)
        yield inner.command_path.partition(" ")[2], command, inner
        if hasattr(command, "list_commands"):
            yield from commands(command, inner)


@pytest.fixture(scope="module")
def every_command() -> list[tuple[str, Any, Any]]:
    app = typer.main.get_command(cli.app)
    return list(commands(app, app.context_class(app, info_name="gankit")))


def test_help(call: Call, every_command: list[tuple[str, Any, Any]]) -> None:
    overview = call("--help").out
    for name, command, context in every_command:
        text = command.get_help(context)
        assert f"Usage: gankit {name}" in text
        assert "  Example" in text
        if " " not in name:
            summary = command.help.partition("\n\n")[0].split()
            assert " ".join(summary) in " ".join(overview.split())  # not cut, only wrapped
    assert call("bogus").code == 2
    assert "No such command" in call("bogus").err
    assert call("--version").out == f"gankit {gankit.__version__}\n"


def test_every_example_can_be_typed(every_command: list[tuple[str, Any, Any]]) -> None:
    found = {name: command for name, command, _ in every_command}
    lines = {}
    for name, command in found.items():
        shown = [line.strip() for line in command.epilog.splitlines() if line.startswith("  ")]
        assert shown, name
        assert all(line.startswith(f"gankit {name}") for line in shown)
        lines |= dict.fromkeys(shown, "help")
    root = Path(gankit.__file__).parents[1]
    for readme in [root / "README.md", *root.glob("plugins/*/README.md")]:
        blocks = "".join(re.findall(r"```sh\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL))
        lines |= dict.fromkeys(blocks.replace(" && ", "\n").splitlines(), str(readme))
    typed = [words for line in lines if (words := shlex.split(line.partition(" > ")[0], comments=True))]
    for _, *words in [words for words in typed if words[0] == "gankit"]:
        called = max((known for known in found if words[: len(known.split())] == known.split()), key=len)
        arguments = words[len(called.split()) :]
        if arguments != ["--help"]:
            found[called].make_context(called, arguments)  # raises where it cannot be parsed


def test_train_and_resume(call: Call, small: Small, tmp_path: Path) -> None:
    out = tmp_path / "run"
    answer = call("train", "wgan-gp", *small("training.steps=2"), "--out", out)
    assert answer.code == 0
    assert answer.out.splitlines()[0] == f"{out}: finished, 2 steps; samples in {out / 'samples'}"
    assert not (out / "metrics.json").exists()  # neither evaluates nor reports unless asked
    before = (out / "generator.safetensors").stat().st_mtime_ns
    answer = call("resume", out)
    assert answer.code == 0
    assert "finished, 2 steps" in answer.out
    assert (out / "generator.safetensors").stat().st_mtime_ns == before
    assert f"{out} is not empty; go on with: gankit resume {out}" in call("train", "wgan-gp", "--out", out).line
    assert "there is no run here" in call("resume", tmp_path / "nowhere").line


def test_the_run_folder_is_named_after_the_recipe(
    call: Call, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("train", "wgan-gp", *small("training.steps=1")).code == 0
    assert (tmp_path / "runs" / "wgan-gp" / "generator.safetensors").is_file()


# Mistakes: one clear line with the place, exit code 2, nothing written


def bad_folder(tmp_path: Path, kind: str) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    if kind == "empty":
        return folder
    for name in ("a", "b", "c"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / f"{name}.png")
    if kind == "row without image":
        (folder / "labels.csv").write_text("file,label\na.png,0\nb.png,1\nc.png,0\nd.png,1\n")
    return folder


MISTAKES = {
    "an unknown name": (
        ["critic.name=resnett"],
        "override 'critic.name=resnett': critic: there is no critic named 'resnett'",
    ),
    "a wrong type": (
        ["critic.width=wide"],
        "override 'critic.width=wide': critic.width: a whole number is needed",
    ),
    "a misspelt key": (["training.stesp=4"], "training.stesp: there is no such setting; did you mean 'steps'?"),
    "a value out of bounds": (
        ["training.batch=0"],
        "training.batch: input should be greater than or equal to 1, not 0",
    ),
    "a penalty with batch normalisation": (
        ["critic=dcgan", "data.size=16"],
        "critic.norm: critic dcgan mixes the samples of a batch",
    ),
    "sizes a network cannot make": (["data.size=30"], "does not fit images 30 high"),
    "an empty folder": (["data=folder", "data.path={empty}"], "holds no pictures"),
    "a CSV row without its image": (["data=folder", "data.path={row without image}"], "d.png"),
    "no labels": (
        ["data=folder", "data.path={no labels}", "data.conditional=true"],
        "data.conditional: the data have no labels",
    ),
    "a missing folder": (["data=folder", "data.path=/no/where"], "/no/where does not exist"),
    "no such device": (["training.device=abacus"], "training.device: 'abacus' cannot be used here"),
    "half an override": (["training.steps"], "override 'training.steps': write key.path=value"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("command", ["train", "check"])
def test_a_mistake_is_one_line_and_nothing_is_written(
    call: Call, small: Small, tmp_path: Path, mistake: str, command: str
) -> None:
    overrides, message = MISTAKES[mistake]
    if command == "check" and mistake == "no such device":
        pytest.skip("whether a device is there only matters to a training")
    for kind in ("empty", "row without image", "no labels"):
        if any(f"{{{kind}}}" in text for text in overrides):
            folder = bad_folder(tmp_path, kind)
            overrides = [text.replace(f"{{{kind}}}", str(folder)) for text in overrides]
    kept = [text for text in small() if not text.startswith("data.") or not overrides[0].startswith("data=")]
    if mistake.startswith("a penalty"):
        kept = [text for text in kept if not text.startswith("critic.")]
    before = sorted(tmp_path.rglob("*"))
    answer = call(command, "wgan-gp", *kept, *overrides, *(["--out", tmp_path / "run"] if command == "train" else []))
    assert message in answer.line
    assert sorted(tmp_path.rglob("*")) == before


def test_several_mistakes_are_several_lines(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_text("[training]\nsteps = 0\nbatsch = 3\n")
    answer = call("check", file)
    assert answer.code == 2
    assert answer.err.splitlines() == [
        f"gankit: {file}:2: training.steps: input should be greater than or equal to 1, not 0",
        f"gankit: {file}:3: training.batsch: there is no such setting; did you mean 'batch'?",
    ]


def test_folders_out_of_reach(call: Call, small: Small, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = call("train", "wgan-gp", *small("training.steps=1"), "--out", tmp_path / "file" / "run")
    assert "Not a directory" in answer.line


# Looking


def test_show(call: Call, tmp_path: Path) -> None:
    answer = call("show", "wgan-gp", "training.steps=7", "augment=diffaugment")
    assert answer.code == 0
    (tmp_path / "e.toml").write_text(answer.out)
    assert gankit.load(tmp_path / "e.toml") == gankit.load("wgan-gp", "training.steps=7", "augment=diffaugment")
    assert "weight_decay" not in answer.out
    assert "averaging = 0.999" in answer.out


def test_check(call: Call, small: Small) -> None:
    answer = call("check", "wgan-gp", *small("data.conditional=true"))
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert [line.partition(":")[0].strip() for line in lines] == [
        "data npz", "classes", "patients", "unused", "training", "generator resnet", "critic resnet",
    ]  # fmt: skip
    assert lines[0] == "data npz: 40 images of 8 x 8 pixels (height x width), colour, 8 bits"


def test_recipes_are_listed_with_what_they_are_for(call: Call) -> None:
    head, *lines = call("list", "recipes").out.splitlines()
    assert [line.split()[0] for line in lines] == sorted([*fixed_recipe_names(), *gankit.recipes.names()])
    (demo,) = (line for line in lines if line.startswith("demo "))
    assert [demo[head.index(column) :].partition("  ")[0] for column in ("sizes", "time", "for")] == [
        "32x32", "5 to 7 minutes on two CPU cores", "first pictures, of the eyes or of your own photographs",
    ]  # fmt: skip
    assert {
        line.rstrip() for line in (Path(__file__).parents[1] / "docs/how-to/which-recipe.md").read_text().splitlines()
    } >= set(lines)


@pytest.mark.parametrize("columns", [40, 60, 80, 100])
def test_tables_on_a_narrow_terminal_have_no_broken_rows(
    call: Call, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    wide = call("list", "recipes").out
    monkeypatch.setenv("COLUMNS", str(columns))
    assert call("list", "recipes").out == wide, "in a pipe"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for narrow in (call("list", "recipes").out, call("list").out):
        assert max(map(len, narrow.splitlines())) <= columns
    lines = call("list", "recipes").out.splitlines()
    names = sorted([*fixed_recipe_names(), *gankit.recipes.names()])
    assert [line.split()[0] for line in lines[1:] if not line.startswith(" ")] == names
    assert sorted(" ".join(lines).replace(" | ", " ").split()) == sorted(wide.split()), "no word is lost"


def test_the_widest_column_is_wrapped_where_enough_is_left_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("name", "for", "n"), ("a", "words that go on and on for a while", "1"), ("b", "few", "2")]
    assert as_columns(rows)[1] == "a     words that go on and on for a while  1"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "32")
    assert as_columns(rows) == [
        "name  for                      n",
        "a     words that go on and on  1",
        "      for a while",
        "b     few                      2",
    ]
    monkeypatch.setenv("COLUMNS", "20")
    assert as_columns(rows)[2:5] == ["a", "  words that go on", "  and on for a while"]


def test_list(call: Call) -> None:
    everything = call("list").out.splitlines()
    assert [line for line in everything if line.split()[1] == "loss"] != []
    for kind in ("loss", "losses"):
        rows = [line.split() for line in call("list", kind).out.splitlines()]
        assert {row[1] for row in rows} == {"loss"}
        assert ["r1", "loss", "gankit"] in rows
    loaded = call("list", "augments", "--load")
    assert loaded.code == 0
    assert ["diffaugment", "augment", "gankit", "ok"] in [line.split() for line in loaded.out.splitlines()]
    assert "there is no kind of part named 'looses'; did you mean 'loss'?" in call("list", "looses").line


def test_schema(call: Call) -> None:
    assert json.loads(call("schema").out)["properties"]["losses"]["minItems"] == 1
    for study, table in (("agreement", "study"), ("classifier", "classifier")):
        made = json.loads(call("schema", "--study", study).out)
        assert (made["title"], next(iter(made["properties"]))) == (f"gankit study {study}", table)
    assert (
        "there is no study named 'agreements'; did you mean 'agreement'?"
        in call("schema", "--study", "agreements").line
    )


def test_cache(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path))
    (tmp_path / "arrays").mkdir()
    (tmp_path / "arrays" / "x.npy").write_bytes(b"0" * 2_000_000)
    assert call("cache", "clear").out == f"2.0 MB freed in {tmp_path}\n"
    assert not (tmp_path / "arrays").exists()
    assert call("cache", "clear").out == f"0.0 MB freed in {tmp_path}\n"
