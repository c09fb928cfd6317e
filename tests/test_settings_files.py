"""Settings in files: which sources are read, and errors with their file and line."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from settings_texts import errors, write
from typer.testing import CliRunner

import gankit
from gankit.cli import app
from gankit.experiments.document import SettingsDocument
from gankit.experiments.lines import json_lines, toml_lines, yaml_lines
from gankit.experiments.recipe_files import fixed_recipe_names, recipe_text
from gankit.experiments.values import parse_table
from gankit.registry import registry

TOML = '''# A comment with x = 3 and [tables]
data = {name = "npz", path = """
steps = 3\\
""", subset = "many"}
generator.name = "resnet"
generator.widht = 3
[critic]
name = "resnett"
[[losses]]
name = "wasserstein"
[[losses]]
# target = 1
name = "gradient-penalty"
taget = 1.0
weight = -1
[training]
steps = 0
optimizer_options = {"a.b" = 1}
betas = [
  0.5,
  1.5,
]
[evaluation]
metrics = [
  "frechet",
  {name = "frechet", x = 3},
]
[extra]
'''


def test_every_error_has_its_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "e.toml", TOML)
    lines = errors(path)
    assert all(line.startswith(f"{path}:") for line in lines)
    faults = {
        line.removeprefix(f"{path}:").split(": ")[1]: int(line.removeprefix(f"{path}:").split(": ")[0])
        for line in lines
    }
    assert faults == {
        "data.subset": 4, "generator.widht": 6, "critic": 8, "losses.1.taget": 14, "losses.1.weight": 15,
        "training.steps": 17, "training.betas.1": 21, "evaluation.metrics.1.x": 26, "extra": 28,
    }  # fmt: skip
    assert len(lines) == len(faults)
    text = "\n".join(lines)
    assert "generator.widht: there is no such setting; did you mean 'width'?" in text
    assert "critic: there is no critic named 'resnett'; did you mean 'resnet'?" in text
    assert "losses.1.weight: input should be greater than or equal to 0, not -1" in text
    assert "losses.1.taget: there is no such setting; did you mean 'target'?" in text


def test_lines_of_json_and_yaml_are_exact(tmp_path: Path) -> None:
    tables = {"losses": [{"name": "gradient-penalty"}, {"name": "gradient-penalty", "taget": 1}], "data": {"name": 3}}
    path = write(tmp_path / "e.json", json.dumps(tables, indent=1))
    lines = path.read_text().splitlines()
    wrong_key, wrong_name = (next(i for i, line in enumerate(lines, 1) if x in line) for x in ("taget", ": 3"))
    known = ", ".join(registry("dataset").names())
    assert errors(path) == [
        f"{path}:{wrong_name}: data: the table needs a name; known: {known}",
        f"{path}:{wrong_key}: losses.1.taget: there is no such setting; did you mean 'target'?",
    ]
    path = write(
        tmp_path / "e.yaml", "losses:\n- name: gradient-penalty\n- name: gradient-penalty\n  taget: a=b\ndata: eyes\n"
    )
    assert errors(path) == [f"{path}:4: losses.1.taget: there is no such setting; did you mean 'target'?"]


def test_yaml_is_version_1_2(tmp_path: Path) -> None:
    text = "data:\n  name: npz\n  path: no\ntraining:\n  steps: 1_0\n"
    (line,) = errors(write(tmp_path / "e.yml", text.replace("1_0", "010.5")))
    assert "training.steps" in line
    experiment = gankit.load(write(tmp_path / "f.yaml", text.replace("1_0", "10")))
    assert str(experiment.data.settings.path) == "no"  # YAML 1.1 reads false


def test_overrides_and_recipes_are_named_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "e.toml", "[training]\nsteps = 0\n")
    assert errors(path, "critic.width=x", "training.batch=0") == [
        "override 'critic.width=x': critic.width: a whole number is needed, not 'x'",
        f"{path}:2: training.steps: input should be greater than or equal to 1, not 0",
        "override 'training.batch=0': training.batch: input should be greater than or equal to 1, not 0",
    ]


def test_a_missing_setting_says_how_to_give_it(tmp_path: Path) -> None:
    missing = "this setting is missing, and has no default; give it as"
    assert errors({"data": {"name": "npz"}}) == [f"experiment: data.path: {missing} data.path=PATH"]
    assert errors("demo", "data.name=torchvision") == [f"recipe demo:7: data.dataset: {missing} data.dataset=DATASET"]
    path = write(tmp_path / "e.toml", "losses = [{name = 'hinge', weight = {start = 1.0, end = 2.0}}]\n")
    (line,) = errors(path)
    assert f"losses.0.weight.steps: {missing} losses.0.weight.steps=STEPS" in line
    gankit.load(path, "losses.0.weight.steps=5")


def test_an_error_in_a_recipe_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = recipe_text("wgan-gp").replace("\nsteps = ", "\nstpes = ").replace('name = "eyes"', 'name = "eyse"')
    monkeypatch.setattr("gankit.experiments.document.recipe_text", lambda name: text)
    data, steps = (
        next(i for i, line in enumerate(text.splitlines(), 1) if line.startswith(start)) for start in ("[data", "stpes")
    )
    first, second = errors("wgan-gp")
    assert first.startswith(f"recipe wgan-gp:{data + 1}: data: there is no dataset named 'eyse'; did you mean 'eyes'?")
    assert second == f"recipe wgan-gp:{steps}: training.stpes: there is no such setting; did you mean 'steps'?"
    path = write(tmp_path / "e.toml", "[training]\n")
    assert errors(path)[0].startswith("recipe wgan-gp: data: there is no dataset named 'eyse'")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.toml", b"[data]\nname = \n", r"e.toml:2: not TOML: Invalid value"),
        ("e.toml", b"[data]\nx = 1\nx = 2\n", r"e.toml:3: not TOML: Cannot overwrite a value"),
        ("e.toml", b"\xff\xfe[data]", r"e.toml: cannot be read: it is not in UTF-8; save it so$"),
        ("e.json", b'{"data":\n {"name" "eyes"}}', r"e.json:2: not JSON: Expecting ':' delimiter"),
        ("e.json", b"[1, 2]", r"e.json: an experiment is a set of tables; this file holds \[1, 2\]"),
        ("e.yaml", b"data:\n  - [1\n", r"e.yaml:3: not YAML: "),
        ("e.yaml", b"data: 1\ndata: 2\n", r"e.yaml:2: not YAML: found duplicate key"),
        ("e.yaml", b"data: \x07\n", r"e.yaml: not YAML: "),
        ("e.yaml", b"- 1\n", r"e.yaml: an experiment is a set of tables; this file holds \[1\]"),
        ("e.yaml", b"1: 2\n", r"e.yaml: 1: a key must be a text"),
        ("e.json", b'{"data": 3}', r"e.json:1: data: a name, or a table with a name, is needed, not 3"),
        ("e.toml", b"training = 3\n", r"e.toml:1: training: a table is needed, not 3"),
        ("e.toml", b"[losses]\nname = 'hinge'\n", r"e.toml:1: losses: a list is needed"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    (line,) = errors(path)
    assert re.search(message, line), line


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_bytes(b"\xef\xbb\xbf[training]\r\nsteps = 5\r\nbatsch = 3\r\n")
    assert ":3: training.batsch" in errors(tmp_path / "e.toml")[0]


def test_the_place_of_a_part_is_the_override_that_made_it_a_table(tmp_path: Path) -> None:
    def place(*overrides: str) -> str:
        document = SettingsDocument.read(path)
        document.override(overrides)
        return document.where(("augment", "augment"))

    path = write(tmp_path / "e.toml", '[augment]\nname = "sometimes"\naugment = "diffaugment"\n')
    inner = "augment.augment.policy=color"
    assert place("training.steps=3") == f"{path}:3"
    assert place(inner) == f"override {inner!r}"
    assert place(inner, "augment.augment.name=none") == "overrides"
    assert place("augment.augment.name=none", "augment.name=other") == f"{path}:3"  # what it wrote is dropped


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wgan-gpp", "there is no recipe or file 'wgan-gpp'; did you mean 'wgan-gp'?"),
        ("nothing-like-it", "there is no recipe or file 'nothing-like-it'; known: dcgan, "),
        ("nope.toml", "nope.toml: there is no such experiment file"),
        ("no/where", "no/where: there is no such experiment file"),
        (".", ". is a folder without an experiment.toml"),
        (
            "data.path=a/b",
            "'data.path=a/b': there is no such file; a setting comes after a recipe or a",
        ),
        ("a" * 300, "there is no recipe or file 'aaa"),
    ],
)
def test_sources_that_are_missing(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = errors(name)
    assert line.startswith(message)


def test_a_file_that_is_there_is_read_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given: list[Any] = []
    monkeypatch.setattr("gankit.studies.reading.load_study", lambda *words: given.append(words) or gankit.load("none"))
    (tmp_path / "lr=0.1").mkdir()
    for file in ("a=b.toml", "lr=0.1/study.seeds=3"):
        write(tmp_path / file, "[training]\nsteps = 7")
        assert "steps = 7" in CliRunner().invoke(app, ["show", file, "training.batch=4"]).output
        CliRunner().invoke(app, ["study", "agreement", file, "--seeds", "2"])
        CliRunner().invoke(app, ["study", "agreement", file.replace(".toml", ".tml").replace("3", "4")])
    assert given == [
        ("agreement", "a=b.toml", "study.seeds=2"), ("agreement", None, "a=b.tml"),
        ("agreement", "lr=0.1/study.seeds=3", "study.seeds=2"), ("agreement", None, "lr=0.1/study.seeds=4"),
    ]  # fmt: skip
    (tmp_path / "{a}").mkdir()
    assert parse_table("{a}") is None


def test_a_folder_that_is_called_as_a_recipe_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wgan-gp").mkdir()
    assert gankit.load("wgan-gp").training.steps == 100_000


def test_places() -> None:
    text = '[a.b]\n"c d".e = [\n {f = 1},\n  # g\n {f = [2,\n 3]}]\n'
    text += "[[h]]\n[[h.i]]\nj = 07:32:00\n[[h]]\n[[h.i]]\n[[h.i]]\nk = {}\n"
    places = toml_lines(text)
    assert {".".join(map(str, key)): line for key, line in places.items()} == {
        "a": 1, "a.b": 1, "a.b.c d": 2, "a.b.c d.e": 2, "a.b.c d.e.0": 3, "a.b.c d.e.0.f": 3, "a.b.c d.e.1": 5,
        "a.b.c d.e.1.f": 5, "a.b.c d.e.1.f.0": 5, "a.b.c d.e.1.f.1": 6, "h": 7, "h.0": 7, "h.0.i": 8, "h.0.i.0": 8,
        "h.0.i.0.j": 9, "h.1": 10, "h.1.i": 11, "h.1.i.0": 11, "h.1.i.1": 12, "h.1.i.1.k": 13,
    }  # fmt: skip
    quoted = 'a = """one \\""" \ntwo \\\\"""\nb = "\\""\n'
    assert tomllib.loads(quoted) == {"a": 'one """ \ntwo \\', "b": '"'}
    assert toml_lines(quoted) == {("a",): 1, ("b",): 3}
    assert json_lines('{"a":\n [1, {"b:": "}]",\n "c"\n: null}],\n "d": {}}') == {
        ("a",): 1, ("a", 0): 2, ("a", 1): 2, ("a", 1, "b:"): 2, ("a", 1, "c"): 3, ("d",): 5,
    }  # fmt: skip
    assert yaml_lines("a:\n- 1\n- {b: 2,\n   c: 3}\n") == {
        ("a",): 1, ("a", 0): 2, ("a", 1): 3, ("a", 1, "b"): 3, ("a", 1, "c"): 4,
    }  # fmt: skip
    assert toml_lines("") == json_lines("{}") == yaml_lines("") == {}


@pytest.mark.parametrize("name", fixed_recipe_names())
def test_places_find_every_setting_of_a_recipe(name: str) -> None:
    text = recipe_text(name)
    lines = text.splitlines()
    places = toml_lines(text)

    def walk(value: Any, location: tuple[str | int, ...]) -> None:
        if location:
            key = location[-1] if isinstance(location[-1], str) else ""
            assert key in lines[places[location] - 1]
        for key, item in (
            value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else [])
        ):
            walk(item, (*location, key))

    walk(tomllib.loads(text), ())


def test_a_file_that_is_called_recipe_keeps_what_it_says_of_its_data(tmp_path: Path) -> None:
    path = write(tmp_path / "e.toml", "data = 'eyes'\n[evaluation]\ncount = 7\n").rename(tmp_path / "recipe 1.toml")
    assert gankit.load(path, "data.name=npz", "data.path=x.npz").evaluation.count == 7
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert gankit.load("recipe 1.toml", "data.name=npz", "data.path=x.npz").evaluation.count == 7
