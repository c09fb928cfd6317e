"""Overrides: their values, what they may change, and the errors that name them."""

from __future__ import annotations

import operator
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import tomlkit
from pydantic import BaseModel
from settings_texts import errors, write

import gankit
from gankit.errors import SettingsError
from gankit.experiments.experiment import Experiment
from gankit.registry import registry
from gankit.registry.plugins import PART_KINDS
from gankit.studies.reading import load_study


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


def test_another_spelling_of_a_name_keeps_the_settings_of_its_table() -> None:
    exact = gankit.load("demo", "data.name=eyes", "generator.name=resnet", "losses.gradient-penalty.weight=5")
    loose = gankit.load("Demo", "data.name=Eyes", "generator.name=ResNet", "losses.gradient_penalty.weight=5")
    assert loose.data.size == exact.data.size == 32
    assert loose.generator.settings == exact.generator.settings
    assert loose.losses == exact.losses
    assert loose.evaluation.count == exact.evaluation.count == 500


def test_a_recipe_in_another_spelling_hides_no_file_of_that_name() -> None:
    with registry("recipe").isolated():

        @gankit.recipes.register("Demo")
        class Other(gankit.recipes.Recipe):
            def settings(self, images: gankit.recipes.TrainingImages) -> dict[str, object]:
                return {}

        assert gankit.load("demo").generator.settings.widths == [128, 64, 32, 16]


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


def optional_settings() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Of each setting of gankit that may be None: the table it stands in, its name, and what else the table needs."""

    def names(model: type[BaseModel]) -> Iterator[str]:
        fields = model.model_fields.items()
        return (name for name, field in fields if type(None) in get_args(field.annotation))

    for table in ("data", "training", "evaluation"):
        model: Any = Experiment.model_fields[table].annotation
        needed = {"name": "eyes"} if table == "data" else {}
        yield from ((table, name, needed) for name in names(model))
    places = {"dataset": "data", "features": "evaluation.features", "metric": "evaluation.metrics", "loss": "losses"}
    for kind in PART_KINDS:
        for part in registry(kind).built_in():
            model = registry(kind).settings(part)
            needed = {key: "x" for key, field in model.model_fields.items() if field.is_required()}
            yield from ((places.get(kind, kind), name, {"name": part, **needed}) for name in names(model))


@pytest.mark.parametrize("spelling", ["none", "null", ""])
def test_every_optional_setting_of_the_schema_can_be_unset_in_files_and_overrides(spelling: str) -> None:
    known = list(optional_settings())
    assert len(known) >= 30
    for place, name, needed in known:
        outer, _, inner = place.partition(".")
        table = {**needed, name: spelling}
        in_file = {outer: {inner: [table] if inner == "metrics" else table} if inner else table}
        part = f"{place}.{needed['name']}" if inner == "metrics" else place
        without = {key: value for key, value in table.items() if key != name}
        override = f"{part}.{name}={spelling}"
        given = {outer: {inner: [without] if inner == "metrics" else without} if inner else without}
        for experiment in (gankit.load(in_file), gankit.load(given, override)):
            holder = operator.attrgetter(place)(experiment)
            holder = holder[0] if inner == "metrics" else holder
            settings = holder if name in type(holder).model_fields else holder.settings
            assert getattr(settings, name) is None, override


def test_a_study_file_can_unset_a_setting(tmp_path: Path) -> None:
    text = '[data]\nname = "eyes"\nsplit_seed = {}\n[evaluation]\nfeatures = {}\n'
    given = load_study("agreement", write(tmp_path / "a.toml", text.format(3, "'pixels'"))).experiment
    assert (given.data.split_seed, given.evaluation.features and given.evaluation.features.name) == (3, "pixels")
    unset = load_study("agreement", write(tmp_path / "b.toml", text.format("'none'", "''"))).experiment
    assert unset.data.split_seed is unset.evaluation.features is None


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
        ("losses=[]", "override 'losses=[]': losses: a list of length 1 or more is needed, not of length 0"),
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
        ('evaluation.metrics=["FIDS"]', "there is no metric named 'FIDS'; did you mean 'fid'?"),
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
