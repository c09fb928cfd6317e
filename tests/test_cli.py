"""The command line: what each command writes and says, and one line with exit code 2 for every mistake."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from torch import Tensor

import gankit
from gankit import cli
from gankit.cli import main
from gankit.errors import RunError
from gankit.experiments.recipe_files import recipe_names
from gankit.runs.labels import encode_classes
from gankit.runs.walk import write_walk
from gankit.terminal.text import as_columns

Small = Callable[..., list[str]]


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of a refusal."""
        assert self.code == 2, self
        lines = [line for line in self.err.splitlines() if "decoding" not in line]
        assert len(lines) == 1, lines
        assert lines[0].startswith("gankit: ")
        assert "Traceback" not in self.err
        return lines[0]


Call = Callable[..., Answer]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`gankit ...` in this process."""

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["gankit", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code: Any = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trained for one step: without labels, on classes, on a float condition, on 16-bit grey images."""
    folder = tmp_path_factory.mktemp("runs")
    draw = np.random.default_rng(0)
    colour = draw.integers(0, 255, (20, 3, 8, 8), dtype=np.uint8)
    grey = draw.integers(0, 65535, (20, 1, 8, 8), dtype=np.uint16)
    facts = {"labels": np.arange(20) % 2, "class_names": np.array(["left", "right"]), "severity": draw.normal(5, 2, 20)}
    np.savez(folder / "colour.npz", images=colour, **facts)
    np.savez(folder / "grey.npz", images=grey)
    small = ["generator.width=4", "generator.latent_dim=6", "critic.width=4", "critic.flat_blocks=1",
             "training.steps=1", "training.batch=4", "training.generator_batch=4",
             "training.critic_steps=1"]  # fmt: skip
    made = {
        "plain": ["data.path={}/colour.npz"],
        "classes": ["data.path={}/colour.npz", "data.conditional=true"],
        "condition": ["data.path={}/colour.npz", 'data.conditional=["severity"]'],
        "grey": ["data.path={}/grey.npz"],
    }
    for name, overrides in made.items():
        texts = ["data.name=npz", *small, *(text.format(folder) for text in overrides)]
        gankit.train(gankit.load("wgan-gp", *texts), folder / name)
    return {"folder": folder, **{name: folder / name for name in made}}


def test_as_a_module_and_as_a_script() -> None:
    for command in ([sys.executable, "-m", "gankit"], [str(Path(sys.executable).parent / "gankit")]):
        done = subprocess.run([*command, "list", "loss"], capture_output=True, text=True)
        assert done.returncode == 0
        assert done.stderr == ""
        assert "gradient-penalty  loss  gankit" in done.stdout.splitlines()
    done = subprocess.run([sys.executable, "-m", "gankit", "show", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("gankit: there is no recipe or file 'nothing'; known: ")


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
    assert [line.split()[0] for line in lines] == sorted([*recipe_names(), *gankit.recipes.names()])
    (demo,) = (line for line in lines if line.startswith("demo "))
    assert [demo[head.index(column) :].partition("  ")[0] for column in ("sizes", "time", "for")] == [
        "32x32", "5 to 8 minutes on two CPU cores", "first pictures, of the eyes or of your own photographs",
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
    names = sorted([*recipe_names(), *gankit.recipes.names()])
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


# Samples


def rows(folder: Path) -> list[list[str]]:
    with open(folder / "labels.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_samples(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    answer = call("sample", runs["plain"], "--count", 5, "--seed", 3, "--out", out)
    assert answer.code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *(f"{i:05d}.png" for i in range(5)),
        "grid.png",
        "labels.csv",
    ]
    assert rows(out) == [["file"], *([f"{i:05d}.png"] for i in range(5))]
    expected = gankit.open_run(runs["plain"]).sample(5, seed=3)
    for i in range(5):
        assert np.array_equal(np.asarray(Image.open(out / f"{i:05d}.png")).transpose(2, 0, 1), expected[i])
    assert "is not empty; choose another --out" in call("sample", runs["plain"], "--out", out).line
    assert "leave truncation at 1" in call("sample", runs["plain"], "--truncation", 0.7, "--out", tmp_path / "x").line
    assert "leave the label out" in call("sample", runs["plain"], "--label", "0", "--out", tmp_path / "x").line
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").write_text("")
    assert "is a file" in call("sample", runs["plain"], "--out", tmp_path / "file").line
    (tmp_path / "made").mkdir()
    assert call("sample", runs["plain"], "--count", 1, "--out", tmp_path / "made").code == 0


def test_a_class_is_found_in_another_spelling_where_one_is_meant() -> None:
    def record(*names: str) -> Any:
        return SimpleNamespace(class_names=names, label_counts=[1] * len(names), image={"classes": len(names)})

    def encode(label: str, *names: str) -> list[int]:
        return encode_classes(label, 1, record(*names), Path("run")).tolist()

    assert encode("RBC", "wbc", "rbc") == encode("rbc", "Rbc", "rbc", "RBC") == [1]
    with pytest.raises(RunError, match="there is no class 'rBC' in run; known: 0 rbc, 1 RBC"):
        encode("rBC", "rbc", "RBC")


def test_samples_of_classes(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    for label, name in (("right", "right"), ("RIGHT", "right"), ("1", "right"), ("0", "left")):
        out = tmp_path / f"drawn-{label}"
        assert call("sample", runs["classes"], "--count", 3, "--label", label, "--out", out).code == 0
        assert rows(out) == [["file", "label"], *([f"{i:05d}.png", name] for i in range(3))]
    assert call("sample", runs["classes"], "--count", 12, "--out", tmp_path / "mixed").code == 0
    assert {row[1] for row in rows(tmp_path / "mixed")[1:]} == {"left", "right"}
    line = call("sample", runs["classes"], "--label", "up", "--out", tmp_path / "x").line
    assert "there is no class 'up'" in line
    assert "known: 0 left, 1 right" in line
    assert not (tmp_path / "x").exists()


def test_samples_of_conditions(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    assert call("sample", runs["condition"], "--count", 2, "--label", "6.5", "--out", tmp_path / "drawn").code == 0
    assert rows(tmp_path / "drawn") == [["file", "severity"], ["00000.png", "6.5"], ["00001.png", "6.5"]]
    for wrong in ("high", "1,2", "nan", ""):
        line = call("sample", runs["condition"], "--label", wrong, "--out", tmp_path / "x").line
        assert f"--label: {wrong!r} is not 1 number(s), separated by commas" in line
    assert not (tmp_path / "x").exists()


def test_samples_of_16_bit_images(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    assert call("sample", runs["grey"], "--count", 2, "--out", tmp_path / "drawn").code == 0
    expected = gankit.open_run(runs["grey"]).sample(2)
    assert expected.dtype == np.uint16
    assert expected.max() > 255
    read = np.asarray(Image.open(tmp_path / "drawn" / "00001.png"))
    assert np.array_equal(read.astype(np.uint16), expected[1, 0])
    again = gankit.build("dataset", "folder", path=str(tmp_path / "drawn"), table="labels.csv", unlisted="skip")
    assert again.images.dtype == np.uint16
    assert np.array_equal(again.images, expected)


def test_samples_by_default_lie_in_the_run(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    assert call("sample", run, "--count", 1, "--seed", 4).code == 0
    assert (run / "drawn-4" / "00000.png").is_file()
    (run / "generator.safetensors").unlink()
    assert "there is no generator yet" in call("sample", run).line


# Walking


def tiles(path: Path) -> np.ndarray[Any, Any]:
    """(rows, columns, 8, 8, 3) images of a picture of 8x8 images that are enlarged 16 times."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))[8::16, 8::16]
    sheet = pixels[1:, 1:].reshape(len(pixels) // 9, 9, -1, 9, 3)
    return sheet.swapaxes(1, 2)[:, :, :8, :8]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demo", "--steps", 500, "--out", "x"], "override '--steps=500': .*; did you mean training.steps?"),
        (["demo", "training.batch=4", "--steps=500"], "did you mean training.steps?"),
        (["demo", "--data.size", 32], "did you mean 'data'?"),
        (["demo", "--steps"], "override '--steps': write key.path=value"),
        (
            ["--steps", 500, "demo"],
            "there is no such option; a setting comes after a recipe .*: demo training.steps=500",
        ),
    ],
)
def test_a_setting_in_the_place_of_an_option_is_told_how_it_is_written(call: Call, words: list[Any], said: str) -> None:
    assert re.search(said.replace("?", r"\?"), call("train", *words).line)


def test_a_walk_goes_from_sample_to_sample_and_back(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    answer = call("walk", runs["plain"], "--stops", 2, "--frames", 8, "--seed", 3, "--out", tmp_path / "walk")
    assert answer.code == 0
    assert sorted(path.name for path in (tmp_path / "walk").iterdir()) == ["progress.png", "walk.gif", "walk.png"]
    assert "progress.png: the same latents at steps 0, 1" in answer.out
    strip = tiles(tmp_path / "walk" / "walk.png")
    samples = gankit.open_run(runs["plain"]).sample(8, seed=3).transpose(0, 2, 3, 1)
    assert strip.shape == (4, 9, 8, 8, 3)
    assert np.array_equal(strip[:, 0], samples[:4])
    assert np.array_equal(strip[:, 8], samples[4:])
    with Image.open(tmp_path / "walk" / "walk.gif") as animated:
        assert 8 < animated.n_frames <= 16  # equal neighbours are one frame
        assert animated.info["loop"] == 0
    progress = tiles(tmp_path / "walk" / "progress.png")
    for step in (0, 1):
        assert np.array_equal(progress[:, step], tiles(runs["plain"] / "samples" / f"step-{step:08d}.png")[:, 0])
    begun = shutil.copytree(runs["plain"], tmp_path / "begun")
    (begun / "samples" / "step-00000001.png").unlink()
    answer = call("walk", begun, "--stops", 2, "--frames", 2, "--out", tmp_path / "no-progress")
    assert answer.code == 0
    assert "progress" not in answer.out.replace("no-progress", ""), "one grid shows no course"


class Shrinks(gankit.Generator):
    """Another generator, which truncates by moving its latents towards 0."""

    def __init__(self, inner: gankit.Generator, share: float = 1.0) -> None:
        super().__init__()
        self.inner, self.share, self.latent_dim = inner, share, inner.latent_dim

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.inner(self.share * z, labels)

    def truncated(self, truncation: float) -> Shrinks:
        return Shrinks(self.inner, truncation)


def test_a_generator_that_truncates_is_swept(runs: dict[str, Path], tmp_path: Path) -> None:
    run = gankit.open_run(runs["classes"])
    samples = run.sample(8, [0, 1] * 4, seed=2).transpose(0, 2, 3, 1)
    run.__dict__["generator"] = Shrinks(run.generator)
    assert "truncation.png: from top to bottom 1, 0.85, 0.7, 0.5, 0.3, 0" in write_walk(run, tmp_path / "w", seed=2)
    sweep = tiles(tmp_path / "w" / "truncation.png")
    assert sweep.shape[:2] == (6, 8)
    assert np.array_equal(sweep[0], samples)
    assert all(np.array_equal(sweep[5, k], sweep[5, k % 2]) for k in range(8))  # the mean image of either class


def test_classes_walk_along_the_same_latents(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    answer = call("walk", runs["classes"], "--frames", 2, "--animation", "png", "--out", tmp_path / "walk")
    assert "rows: left, right" in answer.out
    strip = tiles(tmp_path / "walk" / "walk.png")
    run = gankit.open_run(runs["classes"])
    assert [len(strip), len(tiles(tmp_path / "walk" / "walk-animated.png"))] == [2, 1]
    for row, name in zip(strip, ["left", "right"], strict=True):
        assert np.array_equal(row[[0, 8]], run.sample(2, name).transpose(0, 2, 3, 1))
    answer = call("walk", runs["classes"], "--label", "right", "--frames", 1, "--out", tmp_path / "right")
    assert np.array_equal(tiles(tmp_path / "right" / "walk.png")[0, 0], strip[1, 0])


def test_a_walk_passes_over_pictures_of_others_among_the_grids(
    call: Call, runs: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["grey"], run)
    steps = sorted((run / "samples").glob("step-*.png"))
    shutil.copy(steps[0], run / "samples" / "step-best.png")
    (run / "samples" / "step-00000099.png").symlink_to("/dev/zero")
    answer = call("walk", run, "--stops", 2, "--frames", 1, "--out", tmp_path / "walk")
    assert f"at steps {', '.join(str(int(path.stem[5:])) for path in steps)}" in answer.out


@pytest.mark.parametrize("damage", ["another format", "cut"])
def test_a_walk_opens_no_grid_that_a_training_cannot_have_written(
    damage: str, call: Call, runs: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["grey"], run)
    path = next((run / "samples").glob("step-*.png"))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        Image.new("L", (8, 8)).save(path, "EPS")  # which Pillow would have Ghostscript read
    answer = call("walk", run, "--stops", 2, "--frames", 1, "--out", tmp_path / "walk")
    assert answer.line.startswith(f"gankit: {path} cannot be ")
    assert not (tmp_path / "walk").exists()


def test_walks_that_cannot_be_gone(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    for options, message in (
        (("--label", "up"), "there is no class 'up'"),
        (("--truncation", "0.5"), "generator resnet cannot truncate"),
        (("--stops", "1"), "--stops"),
        (("--animation", "mp4"), "--animation"),
    ):
        answer = call("walk", runs["classes"], *options, "--out", tmp_path / "walk")
        assert answer.code == 2
        assert message in answer.err
        assert not (tmp_path / "walk").exists()
    assert call("walk", runs["grey"], "--frames", 1, "--out", tmp_path / "grey").code == 0
    assert call("walk", runs["condition"], "--frames", 1, "--label", "6.5", "--out", tmp_path / "number").code == 0
    assert "not empty" in call("walk", runs["grey"], "--out", tmp_path / "grey").line


# Judging


def pictures(folder: Path, seed: int) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for i in range(12):
        Image.fromarray(draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def test_evaluate_a_run(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    answer = call("evaluate", run, "--count", 10)
    assert answer.code == 0
    assert "FD (efficientnet-lite0) " in answer.out
    report = json.loads((run / "metrics.json").read_text())
    assert report["metrics"]["frechet"]["n_fake"] == 10
    assert report["metrics"]["frechet"]["n_real"] == 20
    call("evaluate", run, "--count", 10, "--out", tmp_path / "other.json")
    assert json.loads((tmp_path / "other.json").read_text()) == report


def test_evaluate_a_folder_against_a_folder(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    plain = ["--features", "pixels", "--metrics", "frechet"]
    one, two = pictures(tmp_path / "one", 1), pictures(tmp_path / "two", 2)
    file = tmp_path / "m.json"
    answer = call("evaluate", one, "--against", two, "--metrics", " frechet,", "--features", "pixels", "--out", file)
    assert answer.code == 0
    report = json.loads((tmp_path / "m.json").read_text())
    assert report["metrics"]["frechet"]["value"] > 0
    assert call("evaluate", one, "--against", one, *plain).out.count("FD (pixels) ") == 1
    assert call("evaluate", one, "--against", runs["folder"] / "colour.npz", *plain).code == 0
    assert "--against: say which real images" in call("evaluate", one).line
    assert (
        "no metric named 'frechett'; did you mean 'frechet'?"
        in call("evaluate", one, "--against", two, "--metrics", "frechett").line
    )
    assert "no features named 'pixel'" in call("evaluate", one, "--against", two, "--features", "pixel").line
    assert "--metrics: name at least one" in call("evaluate", one, "--against", two, "--metrics", ",").line
    assert "nowhere: there is no such folder or file" in call("evaluate", tmp_path / "nowhere", "--against", two).line
    assert "there is no dataset named 'nowhere'" in call("evaluate", "nowhere", "--against", two).line
    (tmp_path / "void").mkdir()
    assert "holds no pictures" in call("evaluate", tmp_path / "void", "--against", two).line


def test_evaluate_with_everything(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "one", 1), pictures(tmp_path / "two", 2)
    file = tmp_path / "m.json"
    metrics = '["kid", {name = "precision-recall", k = 2}, "memorisation"]'
    chosen = ["--features", '{name = "pixels", side = 2}', "--metrics", metrics, "--permutations", 19]
    answer = call("evaluate", one, "--against", two, *chosen, "--training", two, "--out", file)
    assert answer.code == 0
    report = json.loads(file.read_text())
    assert report["protocol"]["features_dim"] == 12
    assert report["metrics"]["kid"]["p_value"]["permutations"] == 19
    assert report["metrics"]["precision"]["details"] == {"k": 2}
    assert (tmp_path / "memorisation-pairs.png").is_file()
    assert "no best generator was kept" in call("evaluate", runs["plain"], "--best").line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "3"], "a name, or a table with a name, is needed, not 3"),
        (["--features", '["pixels"]'], "a name, or a table with a name, is needed"),
        (["--features", "pixels", "--metrics", '["kid", 3]'], "a name, or a table with a name, is needed, not 3"),
        (["--features", "pixels", "--count", "13"], "13 images are asked for, and there are 12"),
        (["--features", "pixels", "--training", "nowhere"], "nowhere: there is no such folder or file here"),
    ],
)
def test_mistakes_in_judging(arguments: list[str], message: str, call: Call, tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "one", 1), pictures(tmp_path / "two", 2)
    assert message in call("evaluate", one, "--against", two, *arguments).line


def test_a_single_table_is_a_metric(call: Call, tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "one", 1), pictures(tmp_path / "two", 2)
    answer = call("evaluate", one, "--against", two, "--features", "pixels", "--metrics", '{name = "kid"}')
    assert answer.code == 0
    assert "KID (pixels) " in answer.out


def test_windows(call: Call, tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (12, 8, 8), dtype=np.uint16)
    np.savez(tmp_path / "deep.npz", images=deep)
    plain = [tmp_path / "deep.npz", "--against", tmp_path / "deep.npz", "--features", "pixels", "--metrics", "frechet"]
    assert "--window black,white" in call("evaluate", *plain).line
    assert call("evaluate", *plain, "--window", "0,4095").code == 0
    assert "outside value_range" in call("evaluate", *plain, "--window", "0,100").line
    for text in ("5", "a,b", "9,1", "1,2,3", "0,inf"):
        assert f"--window {text}: " in call("evaluate", *plain, "--window", text).line


def test_statistics(call: Call, tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "one", 1), pictures(tmp_path / "two", 2)
    plain = ["--features", "pixels"]
    answer = call("statistics", one, *plain, "--out", tmp_path / "one.npz")
    assert answer.out.strip() == f"12 images of {one}: {tmp_path / 'one.npz'}"
    answer = call("evaluate", two, "--against", tmp_path / "one.npz", *plain, "--metrics", "frechet")
    assert answer.code == 0
    assert "FD (pixels) " in answer.out
    assert "must be an .npz file" in call("statistics", one, *plain, "--out", tmp_path / "one.txt").line
    assert "must be an .npz file" in call("statistics", one, *plain, "--out", tmp_path / "no" / "one.npz").line


def test_report(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    answer = call("report", run)
    assert answer.code == 0
    assert answer.out.strip() == str(run / "report.html")
    assert "<html" in (run / "report.html").read_text()
    assert "there is no run here" in call("report", tmp_path).line


@pytest.mark.parametrize("metrics", ["[kid]", "[kid,memorisation]"])
def test_a_demo_says_at_its_start_how_long_its_evaluation_takes(
    call: Call, small: Small, tmp_path: Path, metrics: str
) -> None:
    changes = small("evaluation.count=10", "evaluation.features=pixels", "data.held_out=0.25")
    changes.append(f"evaluation.metrics={metrics}")
    changes += ["generator.widths=[8,4]", "critic.widths=[4,8]", "losses.gradient-penalty.every=1"]
    answer = call("demo", *changes, "training.steps=1", "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    said = re.search(r"evaluation after the training: features of (\d+) images, about \d+ s\n", answer.err)
    assert said, answer.err
    protocol = json.loads((tmp_path / "run" / "metrics.json").read_text())["protocol"]
    of_training = protocol["n_training"] if "memorisation" in metrics else 0
    assert int(said[1]) == of_training + protocol["n_real"] + protocol["n_fake"] == (50 if of_training else 22)
    assert said.start() < answer.err.index("data: ")


def test_a_demo_that_is_there_keeps_its_settings(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    shutil.rmtree(run / "samples")
    assert call("evaluate", run, "--features", "pixels", "--metrics", "frechet").code == 0
    answer = call("demo", "training.steps=100", "--out", run)
    assert answer.code == 0, answer
    assert f"{run}: the run that is there keeps its settings; for others choose another --out" in answer.out
    assert "samples:" not in answer.out
    assert (run / "report.html").is_file()


def test_a_run_whose_checkpoints_are_all_damaged_is_judged_by_its_generator(
    call: Call, runs: dict[str, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1000])
    why = "none of 1 checkpoints can be read"
    answer = call("evaluate", run, "--features", "pixels", "--metrics", "frechet")
    assert answer.code == 0, answer
    assert (run / "metrics.json").is_file()
    assert "an unknown number of generator updates" in (run / "card.md").read_text()
    assert call("report", run).code == 0
    page = (run / "report.html").read_text()
    assert f"{why} (" in page
    assert "<dd>unknown of 1</dd>" in page
    assert "Unfinished" not in page
    assert call("sample", run, "--count", 2).code == 0
    assert why in repr(gankit.open_run(run))
    assert why in call("resume", run).line
    assert why in call("rank", run, "--count", 2, "--keep", 1).line


def test_a_damaged_generator_is_exported_anew_as_its_error_says(
    call: Call, runs: dict[str, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    exported = run / "generator.safetensors"
    whole = exported.read_bytes()
    exported.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "put back a copy, or delete it and resume the run" in call("sample", run).line
    exported.unlink()
    assert call("resume", run).code == 0
    assert exported.read_bytes() == whole


# Streams and names


def test_a_reader_that_leaves_early_stops_nothing(
    call: Call, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", buffering=1) as gone, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", gone)
        judged = call("evaluate", run, "--features", "pixels", "--metrics", "frechet")
        listed = call("list")
    assert (judged.code, judged.err) == (0, "")
    assert (run / "metrics.json").is_file()
    assert (listed.code, listed.err) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
def test_output_that_a_full_disk_cannot_take_is_told(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        shown = call("show", "wgan-gp")
    assert shown.line == "gankit: standard output: No space left on device"


@pytest.mark.skipif(os.name == "nt", reason="a shell is needed")
def test_no_file_takes_the_place_of_a_closed_stream() -> None:
    code = (
        "import os; from gankit.terminal.text import open_standard_streams; open_standard_streams(); "
        "raise SystemExit(os.open(os.devnull, os.O_RDONLY))"
    )
    done = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code])
    assert done.returncode == 3


def test_folders_of_any_name_can_be_trained_on_and_into(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "größe 图像 👁"
    data = shutil.copytree(pictures(tmp_path / "plain", 1), tmp_path / "Bäume 図 👁" / "a\nb")
    small = ["generator.width=4", "critic.width=4", "training.steps=1", "training.batch=4", "training.critic_steps=1"]
    trained = call("train", "wgan-gp", "data.name=folder", f"data.path={data.parent}", *small, "--out", out)
    assert trained.code == 0, trained
    assert f"gankit sample {shlex.quote(str(out))}" in trained.out
    assert call("sample", out, "--count", 2).code == 0
    refused = call("train", "wgan-gp", "data.name=folder", f"data.path={data}", *small, "--out", tmp_path / "no")
    assert "data.path: " in refused.line
    assert refused.line.endswith("has control characters; rename the file or folder")
    assert not (tmp_path / "no").exists()
