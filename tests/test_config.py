"""Experiments: recipes, files, overrides, and errors that name their place."""

from __future__ import annotations

import json
import pickle
import re
import tomllib
from pathlib import Path
from typing import Any

import processes
import pytest
import tomlkit
import torch
from typer.testing import CliRunner

import gankit
from gankit.cli import app
from gankit.errors import GankitError, SettingsError
from gankit.experiments.document import SettingsDocument
from gankit.experiments.lines import json_lines, toml_lines, yaml_lines
from gankit.experiments.recipe_files import recipe_facts, recipe_names, recipe_text
from gankit.experiments.schema import schema
from gankit.experiments.values import parse_table
from gankit.interfaces import ImageSpec
from gankit.registry import registry
from gankit.studies.reading import load_study, packaged_text, study_schema


def errors(source: Any, *overrides: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        gankit.load(source, *overrides)
    return str(caught.value).splitlines()


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_load_and_round_trip(name: str, tmp_path: Path) -> None:
    experiment = gankit.load(name)
    assert gankit.load(write(tmp_path / "e.toml", experiment.toml())) == experiment
    assert gankit.load(experiment) == experiment
    assert gankit.load(tomllib.loads(recipe_text(name))) == experiment
    json_file = write(tmp_path / "e.json", json.dumps(experiment.tables()))
    assert gankit.load(json_file) == experiment
    assert recipe_text(name).startswith("#")


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_says_what_it_is_for_which_sizes_it_makes_and_how_long_it_takes_on_what(name: str) -> None:
    facts, experiment = recipe_facts(name), gankit.load(name)
    assert set(facts) == {"For", "Sizes", "Time"}
    assert re.search("GPU|CPU", facts["Time"])
    sides = sorted({int(side) for side in re.findall(r"\d+", facts["Sizes"])})
    assert experiment.data.height_width is not None
    assert sides[0] <= experiment.data.height_width[0] <= sides[-1]
    for side in sides:
        with torch.device("meta"):  # without memory or time
            for part in (experiment.generator, experiment.critic):
                part.part.build(ImageSpec(3, side, side, classes=3 if experiment.data.conditional else 0))


def test_a_run_record_round_trips(tmp_path: Path) -> None:
    record = gankit.experiments.record.RunRecord(
        versions={"torch": "2"}, image={"channels": 1, "height": 8, "width": 8}, dtype="uint16", value_range=(0, 4095),
        images=7, device="cpu", threads=1, class_names=["left eye", "rechts \"schräg\""], condition_mean=[0.1],
    )  # fmt: skip
    experiment = gankit.load("wgan-gp").with_run(record)
    folder = tmp_path / "run"
    folder.mkdir()
    write(folder / "experiment.toml", experiment.toml())
    assert gankit.load(folder) == experiment
    assert gankit.load(str(folder)) == experiment
    assert experiment.with_run(None) == gankit.load("wgan-gp")
    sizes = {"channels": 1, "height": 8, "width": 8}
    for image in ({**sizes, "height": 0}, {"channels": 1}, {**sizes, "depth": 3}, {**sizes, "width": 10**12},
                  {**sizes, "classes": 3}, {**sizes, "conditions": 2}):  # fmt: skip
        with pytest.raises(GankitError, match=r": run(\.image)?: |do not fit into any memory"):
            gankit.load({**experiment.tables(), "run": {**record.model_dump(), "image": image}})


def test_tables_that_are_missing_come_from_the_default_recipe(tmp_path: Path) -> None:
    experiment = gankit.load(write(tmp_path / "e.toml", '[augment]\nname = "diffaugment"\n[training]\nsteps = 3\n'))
    default = gankit.load("wgan-gp")
    assert experiment.data == default.data
    assert experiment.losses == default.losses
    assert experiment.training.steps == 3
    assert experiment.training.lr_decay == "none"  # a table that is there is not filled up from the recipe
    assert experiment.augment is not None
    assert gankit.load(write(tmp_path / "empty.toml", "")) == default
    assert gankit.load(write(tmp_path / "empty.yaml", "# nothing\n")) == default
    assert gankit.load({}) == default
    assert default.augment is None
    assert gankit.load("wgan-gp-diffaugment").augment is not None


def test_experiments_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        gankit.load("wgan-gp").training.steps = 3  # type: ignore[misc]


# Overrides


def test_values_of_overrides_are_toml_or_strings() -> None:
    experiment = gankit.load(
        "wgan-gp", "data.name=npz", "data.path=/a b/x=y.npz", "data.conditional=true", "training.steps=12",
        "training.generator_lr=1e-3", "training.betas=[0.5, 0.9]", 'training.device="cpu"', "data.size=[4, 8]",
        "training.optimizer_options={weight_decay = 0.1}",
    )  # fmt: skip
    assert experiment.data.name == "npz"
    assert str(experiment.data.settings.path) == "/a b/x=y.npz"
    assert experiment.data.conditional is True
    assert experiment.data.height_width == (4, 8)
    assert (experiment.training.steps, experiment.training.generator_lr) == (12, 1e-3)
    assert experiment.training.betas == (0.5, 0.9)
    assert experiment.training.device == "cpu"
    assert experiment.training.optimizer_options == {"weight_decay": 0.1}


def test_a_list_whose_quotes_the_shell_took_away_is_a_list_of_texts() -> None:
    experiment = gankit.load("wgan-gp", "data.conditional=[age, patient-sex]", "evaluation.metrics=[fid,kid,]")
    assert experiment.data.conditional == ["age", "patient-sex"]
    assert [metric.name for metric in experiment.evaluation.metrics] == ["frechet", "kid"]
    assert gankit.load("wgan-gp", "training.betas=[0.5, 0.9]").training.betas == (0.5, 0.9)
    for text in ("[{name=kid}]", "[[a]]", "['a", "[a] b"):
        assert "not " + repr(text) in errors("wgan-gp", f"data.conditional={text}")[0]


def test_a_path_given_as_a_number_a_date_or_a_word_of_toml_is_text() -> None:
    for name in ("2024", "2024-05-01", "1e3", "0x10", "true", "1_000"):
        assert str(gankit.load("wgan-gp", "data.name=npz", f"data.path={name}").data.settings.path) == name
    assert "should be a valid string" in errors({"data": {"name": "npz", "path": 2024}})[0], "a file can have quotes"
    assert "should be a valid" in errors("wgan-gp", "training.device=[1]")[0]


def test_windows_paths_in_double_quotes(tmp_path: Path) -> None:
    hint = "write Windows paths in single quotes or with /"
    for quoted, reason in (
        (r"C:\Users\me", "not TOML: Invalid hex value"),
        (r"C:\scans", r"not TOML: Unescaped '\' in a"),
    ):
        file = write(tmp_path / "a.toml", f'[data]\nname = "npz"\npath = "{quoted}"\n')
        (line,) = errors(file)
        assert line.startswith(f"{file}:3: {reason}")
        assert line.endswith(f"; {hint}")
    file = write(tmp_path / "b.toml", '[data]\nname = "npz"\npath = "C:\\temp\\new"\n')
    assert errors(file) == [
        f"{file}:3: data.path: {'C:' + chr(9) + 'emp' + chr(10) + 'ew'!r} has control characters; {hint}"
    ]
    file = write(tmp_path / "c.json", '{"data": {"name": "npz", "path": "C:\\scans"}}')
    assert hint in errors(file)[0]
    file = write(tmp_path / "d.toml", "[data]\nname = 'npz'\npath = 'C:\\temp\\new'\n")
    assert str(gankit.load(file).data.settings.path) == r"C:\temp\new"


def test_none_in_place_of_a_default_survives_a_file(tmp_path: Path) -> None:
    experiment = gankit.load({"evaluation": {"subset": None}})
    assert 'subset = "none"' in experiment.toml()
    for again in (write(tmp_path / "e.toml", experiment.toml()), experiment, experiment.tables()):
        assert gankit.load(again).evaluation.subset is None
    assert pickle.loads(pickle.dumps(experiment)) == experiment
    assert gankit.load("wgan-gp", "evaluation.subset=none") == experiment
    assert "none" not in gankit.load("wgan-gp").evaluation.model_dump_json(), "None by default is left out"


@pytest.mark.parametrize("spelling", ["none", "null", "", "None", '"none"'])
def test_every_optional_setting_can_be_unset(spelling: str, tmp_path: Path) -> None:
    data = {"name": "folder", "path": "x", "size": 8, "subset": 100, "split": "a", "grey": True, "value_range": [0, 9]}
    given = {
        "data": data,
        "augment": {"name": "diffaugment"},
        "losses": [{"name": "hinge", "weight": 2}],
        "training": {"max_minutes": 7, "generator_batch": 8, "label_fade": [1, 2]},
        "evaluation": {"features": "pixels", "count": 500},
    }  # fmt: skip
    settings = [
        "data.size", "data.subset", "data.split", "data.grey", "data.value_range", "augment", "losses.hinge.weight",
        "training.max_minutes", "training.generator_batch", "training.label_fade", "evaluation.features",
        "evaluation.count", "evaluation.subset",
    ]  # fmt: skip
    unset = gankit.load(given, *(f"{setting}={spelling}" for setting in settings))
    assert unset.data.size is unset.data.subset is unset.data.split is unset.augment is unset.losses[0].weight is None
    assert unset.data.settings.grey is unset.data.settings.value_range is None
    assert unset.training.max_minutes is unset.training.generator_batch is unset.training.label_fade is None
    assert unset.evaluation.features is unset.evaluation.count is unset.evaluation.subset is None
    in_file = tomlkit.dumps({**given, "data": {**data, "subset": spelling.strip('"')}})
    assert gankit.load(write(tmp_path / "a.toml", in_file)).data.subset is None


def test_an_error_of_an_optional_setting_says_how_to_unset_it() -> None:
    (line,) = errors("wgan-gp", "data.subset=off")
    assert line.endswith("""not 'off'; or "none" unsets it""")
    (line,) = errors("wgan-gp", "training.steps=off")
    assert "unsets" not in line


def test_a_folder_among_the_overrides_leads_to_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "for example training.steps=1000; write no spaces around =, and quote" in errors("demo", "photos")[0]
    (tmp_path / "photos").mkdir()
    settings = "data.name=folder data.path=photos"
    assert errors("demo", "photos")[0].endswith("for example " + settings)
    assert errors("photos")[0].endswith("to train on its pictures, name a recipe and add " + settings)


def test_a_setting_of_another_part_leads_to_that_part() -> None:
    (line,) = errors("demo", "data.path=photos")
    assert line.endswith("data.path: there is no such setting; folder and npz have it: set data.name=folder")
    (line,) = errors("dcgan", "generator.widths=[4, 4]")
    assert "resnet" in line
    (line,) = errors("wgan-gp", "losses.wasserstein.one_sided=true")
    assert line.endswith("there is no such setting; gradient-penalty has it")


def test_list_entries_by_number_and_by_name() -> None:
    experiment = gankit.load("wgan-gp", "losses.0.weight=2", "losses.gradient-penalty.weight=5", "losses.1.every=4")
    assert [(loss.weight, loss.every) for loss in experiment.losses] == [(2.0, 1), (5.0, 4)]
    experiment = gankit.load("wgan-gp", 'losses=["hinge", "r1"]', "losses.r1.every=16", "losses.hinge.weight=2")
    assert [(loss.name, loss.weight, loss.every) for loss in experiment.losses] == [("hinge", 2.0, 1), ("r1", None, 16)]
    assert gankit.load("wgan-gp", "losses.1=r1").losses[1].name == "r1"
    assert errors("wgan-gp", "losses.7.weight=1") == [
        "override 'losses.7.weight=1': losses has no entry '7'; it has wasserstein, gradient-penalty"
    ]
    assert "has 2 entries named 'r1'" in errors("wgan-gp", 'losses=["r1", "r1"]', "losses.r1.weight=1")[0]


@pytest.mark.parametrize(
    "overrides",
    [
        ("critic.name=dcgan", "critic.width=8", "training.steps=2"),
        ("critic.width=8", "critic.name=dcgan", "training.steps=2"),
        ("training.steps=2", "critic.width=8", "critic.name=resnet", "critic.name=dcgan"),
    ],
)
def test_a_new_name_drops_the_recipes_settings_whatever_the_order(overrides: tuple[str, ...]) -> None:
    experiment = gankit.load("wgan-gp-64", *overrides)  # its critic has settings that dcgan lacks
    assert experiment.critic.name == "dcgan"
    assert experiment.critic.settings == registry("critic").settings("dcgan")(width=8)
    assert experiment.generator == gankit.load("wgan-gp-64").generator


def test_the_same_name_keeps_the_recipes_settings() -> None:
    assert gankit.load("wgan-gp-64", "critic.name=resnet") == gankit.load("wgan-gp-64")
    assert gankit.load("wgan-gp", "losses.1.name=r1").losses[1].weight is None


def test_a_name_of_an_entry_in_a_list_that_is_new_too() -> None:
    experiment = gankit.load("wgan-gp", 'losses=["hinge", "r1"]', "losses.r2.every=3", "losses.1.name=r2")
    assert [(loss.name, loss.every) for loss in experiment.losses] == [("hinge", 1), ("r2", 3)]


def test_no_augment_and_string_shorthands() -> None:
    assert gankit.load("wgan-gp-diffaugment", "augment=none").augment is None
    assert "augment" not in gankit.load("wgan-gp-diffaugment", "augment=none").tables()
    experiment = gankit.load("wgan-gp", "augment=diffaugment", "augment.scope=real")
    assert experiment.augment is not None
    assert (experiment.augment.name, experiment.augment.scope) == ("diffaugment", "real")
    experiment = gankit.load("demo", "evaluation.features=pixels", "evaluation.features.side=4", "critic=dcgan")
    assert experiment.evaluation.features.settings.side == 4
    assert experiment.critic.name == "dcgan"


def test_overrides_do_not_change_what_they_were_given() -> None:
    tables = {"training": {"steps": 5}, "losses": ("hinge", {"name": "r1"}), "data": {"name": "eyes"}}
    experiment = gankit.load(tables, "training.steps=7", "losses.r1.weight=3", "data.flip=true")
    assert experiment.training.steps == 7
    assert [loss.weight for loss in experiment.losses] == [None, 3.0]
    assert tables == {"training": {"steps": 5}, "losses": ("hinge", {"name": "r1"}), "data": {"name": "eyes"}}
    assert gankit.load("wgan-gp", "training.steps=3") != gankit.load("wgan-gp")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("abc", "override 'abc': write key.path=value, for example training.steps=1000; write no spaces"),
        ("=3", "write key.path=value"),
        ("a..b=3", "write key.path=value"),
        ("training.steps.x=3", "override 'training.steps.x=3': training.steps holds a value, not a table"),
        ("training.device.x=3", "override 'training.device.x=3': training.device: input should be a valid string"),
        ("data.name.x=3", "override 'data.name.x=3': data: "),
        ("training.steps=1.000", "training.steps: a whole number is needed, not 1.0: write 1000 for a thousand"),
        ("training.steps='1.000'", "training.steps: a whole number is needed, not '1.000': write 1000"),
        ("training.steps=1'000", "training.steps: a whole number is needed, not \"1'000\""),
        ("data.size=[32.0, 32]", "data.size: a whole number is needed, not [32.0, 32]"),
        ("training.generator_lr=0,9", "training.generator_lr: a number is needed, not '0,9'"),
        ("training=3", "override 'training=3': training: a table is needed, not 3"),
        ("generator=3", "override 'generator=3': generator: a name, or a table with a name, is needed, not 3"),
        ("losses=3", "override 'losses=3': losses: a list is needed, not 3"),
        ("losses=[]", "override 'losses=[]': losses: a list of at least 1 is needed, not of 0"),
        ("losses=[3]", "override 'losses=[3]': losses.0: a name, or a table with a name, is needed, not 3"),
        ("augment.scope=real", "override 'augment.scope=real': augment: the table needs a name; known: "),
        ("foo.bar=3", "override 'foo.bar=3': foo: there is no such setting; known: data, generator, critic, losses"),
        ("steps=500", "override 'steps=500': steps: there is no such setting; did you mean training.steps?"),
        ("size=32", "override 'size=32': size: there is no such setting; did you mean data.size?"),
        ("--max-minutes=5", "--max-minutes: there is no such setting; did you mean training.max_minutes?"),
        ("data.part=3", "override 'data.part=3': data.part: there is no such setting"),
        ("data.size=[1, 2, 3]", "override 'data.size=[1, 2, 3]': data.size: a whole number is needed"),
        ("training.betas=[0.5]", "override 'training.betas=[0.5]': training.betas: the list is too short"),
        ("training.generator_lr=nan", "training.generator_lr: input should be a finite number, not nan"),
        ("training.optimizer=Adamm", "training.optimizer: torch.optim has no 'Adamm'; did you mean 'Adam'?"),
        ("evaluation.features={name='pixels', sde=4}", "evaluation.features.sde: there is no such setting; did you"),
        ("evaluation.features=4", "evaluation.features: a name, or a table with a name, is needed, not 4"),
        ('evaluation.metrics=[{name="frechet", x=1}]', "evaluation.metrics.0.x: there is no such setting; known: name"),
        ('evaluation.metrics=["frechett"]', "evaluation.metrics.0: there is no metric named 'frechett'; did you mean"),
        ('evaluation.metrics=["FID"]', "there is no metric named 'FID'; did you mean 'fid'?"),
    ],
)  # fmt: skip
def test_errors_name_the_override(override: str, message: str) -> None:
    (line,) = errors("wgan-gp", override)
    assert message in line
    assert line.startswith("override ")


@pytest.mark.parametrize("override", [{"training": {"steps": 3}}, 3, None])
def test_an_override_that_is_no_text_is_refused(override: object) -> None:
    with pytest.raises(SettingsError, match=r"override .*: write key.path=value"):
        gankit.load("wgan-gp", override)  # type: ignore[arg-type]


def test_an_override_into_a_list_that_is_not_there() -> None:
    (line,) = errors({"evaluation": {}}, "evaluation.metrics.frechet.x=3")
    assert line.startswith("override 'evaluation.metrics.frechet.x=3': evaluation.metrics: a list is needed")


# Places


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
    assert errors({"data": {"name": "npz"}}) == ["experiment: data.path: this setting is missing, and has no default"]


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
        ("e.toml", b"\xff\xfe[data]", r"e.toml: cannot be read: 'utf-8' codec"),
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


@pytest.mark.parametrize("name", recipe_names())
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


# The JSON schema


def valid(value: Any, rule: dict[str, Any], definitions: dict[str, Any]) -> bool:
    """As much of JSON Schema as gankit's schema uses."""
    if "$ref" in rule:
        return valid(value, definitions[rule["$ref"].removeprefix("#/$defs/")], definitions)
    types = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool,
             "null": type(None)}  # fmt: skip
    if "type" in rule and (
        not isinstance(value, types[rule["type"]]) or (rule["type"] in ("number", "integer") and value is True)
    ):
        return False
    if ("const" in rule and value != rule["const"]) or ("enum" in rule and value not in rule["enum"]):
        return False
    if "anyOf" in rule and not any(valid(value, option, definitions) for option in rule["anyOf"]):
        return False
    if "oneOf" in rule and sum(valid(value, option, definitions) for option in rule["oneOf"]) != 1:
        return False
    if isinstance(value, (int, float)) and not (
        rule.get("minimum", value) <= value <= rule.get("maximum", value)
        and rule.get("exclusiveMinimum", value - 1) < value < rule.get("exclusiveMaximum", value + 1)
    ):
        return False
    if isinstance(value, list):
        items = [*rule.get("prefixItems", []), *[rule.get("items", {})] * len(value)]
        return rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)) and all(
            valid(item, schema, definitions) for item, schema in zip(value, items, strict=False)
        )
    if isinstance(value, dict):
        known, others = rule.get("properties", {}), rule.get("additionalProperties", True)
        further = [item for key, item in value.items() if key not in known]
        if others is False and further:
            return False
        if isinstance(others, dict) and not all(valid(item, others, definitions) for item in further):
            return False
        return set(rule.get("required", [])) <= set(value) and all(
            valid(item, known[key], definitions) for key, item in value.items() if key in known
        )
    return True


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return json.loads(json.dumps(schema()))


def test_the_schema_accepts_every_recipe(made: dict[str, Any]) -> None:
    for name in recipe_names():
        assert valid(tomllib.loads(recipe_text(name)), made, made["$defs"]), name
        assert valid(gankit.load(name).tables(), made, made["$defs"]), name
    none = {
        "data": {"name": "folder", "path": "x", "subset": "none", "grey": "none"},
        "training": {"max_minutes": "none"},
    }
    assert valid(none, made, made["$defs"])
    assert not valid({"training": {"steps": "none"}}, made, made["$defs"])
    assert valid({"augment": "none", "losses": ["hinge"], "critic": "resnet"}, made, made["$defs"])


@pytest.mark.parametrize(
    "tables",
    [
        {"trainig": {}},
        {"training": {"steps": 0}},
        {"training": {"stepz": 3}},
        {"critic": {"width": 4}},
        {"critic": {"name": "resnet", "widht": 4}},
        {"critic": {"name": "unheard-of"}},
        {"losses": []},
        {"losses": [{"name": "hinge", "weight": -1}]},
        {"augment": {"name": "diffaugment", "scope": "all"}},
    ],
)
def test_the_schema_refuses_what_loading_refuses(made: dict[str, Any], tables: dict[str, Any]) -> None:
    assert not valid(tables, made, made["$defs"])
    errors(tables)


def test_the_schema_has_bounds_defaults_and_every_part(made: dict[str, Any]) -> None:
    training = made["properties"]["training"]["properties"]
    assert training["steps"]["minimum"] == 1
    assert training["averaging"] == {**training["averaging"], "default": 0.999, "minimum": 0, "exclusiveMaximum": 1}
    for table, kind in (("generator", "generator"), ("critic", "critic"), ("data", "dataset"), ("augment", "augment")):
        options = made["properties"][table]["anyOf"]
        names = [option["properties"]["name"]["const"] for option in options if "properties" in option]
        assert names == registry(kind).names()
    losses = made["properties"]["losses"]["items"]["anyOf"]
    penalty = next(option for option in losses if option.get("title") == "loss gradient-penalty")["properties"]
    assert (penalty["target"]["default"], penalty["every"]["minimum"], penalty["every"]["default"]) == (1.0, 1, 1)
    references = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(made)))
    assert references <= set(made["$defs"])


PACKAGED = [name for name in registry("study").built_in() if registry("study").get(name).file]
"""Studies that come with a study file; one of readers has nothing to ask about before images are named."""


@pytest.fixture(scope="module", params=PACKAGED)
def of_study(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, json.loads(json.dumps(study_schema(request.param)))


def test_nothing_of_the_eyes_is_left_where_other_data_are_named() -> None:
    of_eyes = re.compile(r"eyes|tropia|strabismus|deviation|right eye")
    own = ["data.name=npz", "data.path=x.npz", "data.held_out=0.2"]
    for name in recipe_names():
        assert not of_eyes.search(gankit.load(name, *own).toml()), name
    for name in PACKAGED:
        assert of_eyes.search(load_study(name).toml()), name
        assert not of_eyes.search(load_study(name, None, *own).toml()), name


def test_the_schema_of_a_study_accepts_the_packaged_one(of_study: tuple[str, dict[str, Any]]) -> None:
    name, made = of_study
    text = packaged_text(registry("study").get(name))
    assert valid(tomllib.loads(text), made, made["$defs"])
    assert valid(load_study(name).tables(), made, made["$defs"])
    references = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(made)))
    assert references <= set(made["$defs"])
    assert not valid(tomllib.loads(text), schema(), schema()["$defs"])  # of an experiment without the study's table


@pytest.mark.parametrize(
    ("study", "text"),
    [
        ("agreement", "[study]\nthreshold = [0.5]"),
        ("agreement", "[study]\nthresholds = [1.5]"),
        ("agreement", '[study]\ncontrols = ["no-subset"]'),
        ("agreement", "[classifier]\nseeds = 2"),
        ("agreement", '[data]\nname = "eyes"\nmin_agreement = 0.5'),
        ("agreement", '[data]\nname = "eyes"\nsubset = 9'),
        ("agreement", "[training]\nmax_minutes = 5.0"),
        ("classifier", "[classifier]\nseed = 2"),
        ("classifier", '[classifier]\narms = ["unreal"]'),
        ("classifier", "[classifier]\ngroupings = {none = []}"),
        ("classifier", "[classifier.classical]\nrotation = 3"),
        ("classifier", "[classifier.classical]\nrotate = 181"),
        ("classifier", "[study]\nseeds = 2"),
        ("classifier", "[training]\nmax_minutes = 5.0"),
    ],
)
def test_the_schema_of_a_study_refuses_what_loading_refuses(study: str, text: str, tmp_path: Path) -> None:
    made = study_schema(study)
    assert not valid(tomllib.loads(text), made, made["$defs"])
    with pytest.raises(SettingsError):
        load_study(study, write(tmp_path / "study.toml", text))


def test_the_schema_of_a_study_tells_its_own_defaults(made: dict[str, Any], tmp_path: Path) -> None:
    def held_out(of: dict[str, Any]) -> set[float]:
        tables = [option["properties"] for option in of["properties"]["data"]["anyOf"] if "properties" in option]
        return {table["held_out"]["default"] for table in tables}

    file = write(tmp_path / "study.toml", '[data]\nname = "eyes"')
    for name in PACKAGED:
        assert held_out(study_schema(name)) == {load_study(name, file).experiment.data.held_out}, name
    assert held_out(made) == {gankit.load(file).data.held_out} == {0.0}


@pytest.mark.parametrize("overrides", [[], ["augment.name=diffaugment", "training.seed=3"]])
def test_an_experiment_can_be_sent_to_another_process(overrides: list[str], tmp_path: Path) -> None:
    """As joblib does, whose workers know nothing of the models of settings that this process has made."""
    experiment = gankit.load("wgan-gp", *overrides)
    sent = pickle.loads(pickle.dumps(experiment))
    assert sent == experiment
    assert not sent.for_given_data().data.flip, "a recipe's setting for its own images"
    file = tmp_path / "experiment.pickle"
    file.write_bytes(pickle.dumps(experiment))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).toml(), end='')"
    done = processes.run(str(file), code=code)
    assert done.stdout == experiment.toml(), done.stderr


@pytest.mark.parametrize(
    "override", [f"training.optimizer={'A' * 5000}", f"data.name={'x' * 3000}", f"data.name={'x' * 3000}:{'y' * 3000}"]
)
def test_long_names_are_shortened_in_errors(override: str) -> None:
    with pytest.raises(gankit.GankitError) as caught:
        gankit.load("wgan-gp", override)
    assert max(map(len, str(caught.value).splitlines())) < 2000


def test_an_override_of_several_lines_is_not_read_in_part() -> None:
    (line,) = errors("wgan-gp", "training.steps=5\ntraining.batch=3")
    assert line.endswith(
        r"training.steps: '5\ntraining.batch=3' has control characters; pass each key=value as an argument of its own"
    )
    assert gankit.load("wgan-gp", "training.betas=[\n0.5,\n0.9 # less\n]").training.betas == (0.5, 0.9)


def test_a_file_that_is_called_recipe_keeps_what_it_says_of_its_data(tmp_path: Path) -> None:
    path = write(tmp_path / "e.toml", "data = 'eyes'\n[evaluation]\ncount = 7\n").rename(tmp_path / "recipe 1.toml")
    assert gankit.load(path, "data.name=npz", "data.path=x.npz").evaluation.count == 7
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert gankit.load("recipe 1.toml", "data.name=npz", "data.path=x.npz").evaluation.count == 7
