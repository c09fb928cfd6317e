"""Experiment files of others: whatever they hold, there is one line, soon, and in little memory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import gankit
from gankit.cli import app, main
from gankit.errors import DataError, GankitError, PartError, RunError, SettingsError
from gankit.evaluation.sources import Drawn
from gankit.experiments.selection import open_dataset
from gankit.experiments.tables import DataTable
from gankit.images.room import memory
from gankit.studies.reading import load_study
from gankit.training.assembly import experiment_warnings
from gankit.training.rehearsal import check

ALIAS_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
)
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [*a{level - 1}, *a{level - 1}]}}\n" for level in range(1, 40)
)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("e.yaml", ALIAS_BOMB, "not YAML: there are more than 100,000 values"),
        ("e.yaml", MERGE_BOMB, "not YAML: there are more than 100,000 values"),
        ("e.yaml", "data: &a {name: npz, more: *a}", "not YAML: there are more than 100,000 values"),
        ("e.yaml", "training: {steps: 1, steps: 2}", "duplicate key"),
        ("e.yaml", "training: {? [1, 2] : 3}", "a key must be a text"),
        ("e.yaml", "- " * 5000, "nested more than 32 deep"),
        ("e.yaml", "{a: " * 40 + "1" + "}" * 40, "nested more than 32 deep"),
        ("e.yaml", "training: {seed: " + "9" * 5000 + "}", "a number has thousands of digits"),
        ("e.yaml", "training: {seed: 0x" + "f" * 5000 + "}", "training.seed: a whole number must fit into 64 bits"),
        ("e.yaml", "x: 1\n" * 50_001, "250,005 characters are too long for settings"),
        ("e.json", "[" * 100_000, "not JSON: tables and lists are nested more than 32 deep"),
        ("e.json", '{"training": {"steps": 1, "steps": 2}}', "the key 'steps' comes twice in one table"),
        ("e.json", '{"training": {"generator_lr": NaN}}', "JSON has no NaN"),
        ("e.json", '{"training": {"generator_lr": 1e999}}', "input should be a finite number"),
        ("e.json", '{"training": {"seed": ' + "9" * 5000 + "}}", "a number has thousands of digits"),
        ("e.json", '{"data": {"name": "\\ud800"}}', "data.name: '\\ud800' is not in UTF-8"),
        ("e.toml", "a = " + "[" * 5000, "not TOML: tables and lists are nested more than 32 deep"),
        ("e.toml", ".".join("a" * 50_000) + " = 1", "not TOML: tables and lists are nested more than 32 deep"),
        ("e.toml", "[training]\nseed = " + "9" * 5000, "a number has thousands of digits"),
        ("e.toml", "[training]\nseed = 99999999999999999999", "training.seed: a whole number must fit into 64 bits"),
        ("e.toml", "x = [" + "1, " * 120_000 + "]", "there are more than 100,000 values"),
        ("e.toml", "#" * 2_000_000, "2,000,000 characters are too long for settings"),
        ("e.toml", "[evaluation]\n" + "x" * 5000 + " = 1", "the key is longer than 200 characters"),
        ("e.toml", "[training]\nsteps = '" + "x" * 4_000 + "'", "a whole number is needed"),
        ("e.toml", "[data]\npath = '" + "x" * 5_000 + "'", "data.path: the text is longer than 4,096 characters"),
    ],
)  # fmt: skip
def test_a_file_beyond_bounds_is_refused_in_one_short_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(SettingsError) as caught:
        gankit.load(path)
    assert time.process_time() - start < 5
    line = str(caught.value)
    assert line.startswith(f"{path}:")
    assert said in line
    assert "\n" not in line
    assert len(line) < 600


@pytest.mark.parametrize(
    "override",
    ["training.seed=" + "9" * 5000, "x=" + "[" * 5000, ".".join("a" * 5000) + "=1", f"losses.{'9' * 5000}.weight=1",
     "training.steps=\udcff", "training.seed=0x" + "f" * 5000],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_an_override_beyond_bounds_is_refused_in_one_short_line(override: str) -> None:
    with pytest.raises(SettingsError) as caught:
        gankit.load("wgan-gp", override)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


def test_tables_of_a_program_that_hold_themselves_are_refused() -> None:
    table: dict[str, Any] = {"name": "resnet"}
    table["width"] = table
    with pytest.raises(SettingsError, match="critic: tables and lists are nested more than 32 deep"):
        gankit.load({"critic": table})


def test_what_yaml_shares_by_an_alias_is_overridden_in_one_place(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("generator: &network {name: resnet, width: 8}\ncritic: *network\n")
    experiment = gankit.load(path, "critic.width=4")
    assert (experiment.generator.settings.width, experiment.critic.settings.width) == (8, 4)


@pytest.mark.parametrize("name", ["~nobody-of-this-name", "~nobody-of-this-name/e.toml"])
def test_the_home_of_nobody_is_named(name: str) -> None:
    with pytest.raises(GankitError, match="~ does not stand for a home folder here"):
        gankit.load(name)


# Values


@pytest.mark.parametrize(
    "override",
    ["training.steps=true", "training.betas=[false, 0.9]", "data.size=[true, 32]", "generator.width=true",
     "losses.gradient-penalty.weight=true", "evaluation.metrics=[{name = 'precision-recall', k = true}]",
     "data.counts=[true, 8, 10]"],
)  # fmt: skip
def test_true_is_no_number(override: str) -> None:
    with pytest.raises(SettingsError, match=r"a number is needed, not .*(True|False)"):
        gankit.load("wgan-gp", override)


def test_true_stays_true_where_it_is_asked_for() -> None:
    experiment = gankit.load("wgan-gp", "data.flip=true", "data.conditional=true", "training.compile=true",
                             "training.optimizer_options={amsgrad=true}")  # fmt: skip
    assert experiment.data.flip
    assert experiment.data.conditional
    assert experiment.training.compile is True
    assert experiment.training.optimizer_options == {"amsgrad": True}


@pytest.mark.parametrize("override", ["losses.gradient-penalty.target=nan", "losses.gradient-penalty.target=inf"])
def test_settings_of_parts_are_finite(override: str) -> None:
    with pytest.raises(SettingsError, match="input should be a finite number"):
        gankit.load("wgan-gp", override)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{lr = 0.01}", "lr is not an option here; set training.generator_lr and training.critic_lr"),
        ("{betas = [0.5]}", "betas is not an option here; set training.betas"),
        ("{params = 1}", "params is not an option here; remove it"),
    ],
)
def test_options_of_optimisers_leave_alone_what_has_a_setting(options: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        gankit.load("wgan-gp", f"training.optimizer_options={options}")


@pytest.mark.parametrize("value", [float("nan"), np.float32(1e-8), {1, 2}, object()])
def test_options_of_optimisers_are_what_a_file_can_hold(value: object) -> None:
    tables = {"training": {"optimizer_options": {"eps": value}}}
    with pytest.raises(
        SettingsError, match=r"optimizer_options: .* cannot be kept in the run's file .* finite numbers"
    ):
        gankit.load(tables)


@pytest.mark.parametrize("what", [None, 5, ["wgan-gp"]])
def test_an_experiment_is_a_name_a_file_or_tables(what: Any) -> None:
    with pytest.raises(SettingsError, match=r"an experiment is a recipe's name, a file, .*, not "):
        gankit.load(what)


# What only a look at machine and files can tell: `check` sees all that `train` would


@pytest.mark.parametrize(
    ("override", "error", "said"),
    [
        ("training.batch=1000000000000000", PartError, "training.batch: 1,000,000,000,000,000 images"),
        ("training.generator_batch=1000000000000000", PartError, "training.generator_batch"),
        ("evaluation.count=1000000000000000", PartError, "evaluation.count: 1,000,000,000,000,000 images of 3 x 8 x 8"),
        ("training.device=cuda:99", RunError, "training.device: 'cuda:99' cannot be used here"),
        ("training.device=meta", RunError, "training.device: 'meta' cannot be used here"),
        ("training.start_from=nowhere", RunError, "training.start_from: nowhere: there is no run here"),
        ("training.start_from=eyes", RunError, "eyes has no checkpoint to start from, and an exported generator is"),
        ("training.optimizer_options={eps = 'x'}", PartError, "training.optimizer_options: Adam refuses them"),
        ("generator.width=1000000000", PartError, "cannot be built"),
        ("generator.width=1000000", PartError, "GB of weights, and training takes 4 times that; this machine has "),
        ("data.size=1000000000", DataError, "images of 1000000000 x 1000000000 pixels do not fit into any memory"),
        ("data.value_range=[-1e38, 1e38]", DataError, "leaves float32 too few levels"),
        ("losses.gradient-penalty.weight=1e308", SettingsError, "a number up to 1e+38 in size is needed, not 1e+308"),
    ],
)
def test_check_finds_what_training_would(
    small: Callable[..., list[str]], override: str, error: type[GankitError], said: str
) -> None:
    result = CliRunner().invoke(app, ["check", "wgan-gp", *small(override)])
    assert isinstance(result.exception, error)
    assert said in str(result.exception)


@pytest.mark.parametrize(
    ("study", "override"),
    [
        (None, "training.critic_steps=1000000"), (None, "critic.flat_blocks=1000000"),
        (None, "generator={name='r3gan', blocks=1000000}"), (None, "data={name='eyes', counts=[1, 1, 2000000]}"),
        (None, "evaluation.metrics=[{name='mind', projections=1000000}]"),
        ("augmentation", "augmentation.views=100000"), ("augmentation", "augmentation.repeats=100000"),
        ("classifier", "classifier.seeds=100000"), ("agreement", "study.seeds=100000"),
    ],
)  # fmt: skip
def test_what_is_done_or_built_again_and_again_has_a_bound(study: str | None, override: str) -> None:
    with pytest.raises(SettingsError, match="less than or equal to 1000"):
        gankit.load("wgan-gp", override) if study is None else load_study(study, None, override)


def test_more_threads_than_cores_are_a_warning() -> None:
    cores = os.cpu_count() or 1
    assert experiment_warnings(gankit.load("wgan-gp", f"training.threads={cores}")) == []
    (line,) = experiment_warnings(gankit.load("wgan-gp", f"training.threads={cores + 1}"))
    assert line.startswith(f"training.threads={cores + 1}: this machine has {cores} cores")


@pytest.mark.parametrize(
    ("recipe", "override", "said"),
    [
        ("demo", "generator.width=8", "generator.width: it has no effect beside generator.widths; set"),
        ("wgan", "training.betas=[0.5, 0.9]", "training.betas: RMSprop has none"),
        ("wgan", "training.lazy_scaling=true", "training.lazy_scaling: it does nothing where no loss has `every`"),
    ],
)
def test_a_setting_without_effect_is_a_warning(recipe: str, override: str, said: str) -> None:
    assert experiment_warnings(gankit.load(recipe)) == []
    (line,) = experiment_warnings(gankit.load(recipe, override))
    assert line.startswith(said)


def test_images_that_no_memory_holds_are_not_begun() -> None:
    with pytest.raises(RunError, match=r"1,000,000,000,000 images of .* GB, too much for the memory; use few"):
        gankit.open_run("eyes").sample(10**12)
    with pytest.raises(RunError, match=r"1,000,000,000,000 images of"):
        Drawn(gankit.open_run("eyes"), 10**12)


@pytest.mark.parametrize(
    ("own", "file"),
    [
        ("", "memory.max"),
        ("0::/jobs/7\n", "jobs/memory.max"),
        ("0::/\n9:cpu,memory:/docker/a\n", "memory/memory.limit_in_bytes"),
        ("9:memory:/slurm/7\n1:cpu:/x\n", "memory/slurm/7/memory.limit_in_bytes"),
    ],
)
def test_the_memory_of_a_container_or_a_job_is_that_of_its_control_groups(
    own: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").write_text(own)
    monkeypatch.setattr("gankit.images.room._OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr("gankit.images.room._GROUPS", tmp_path)
    whole = memory()
    limit = tmp_path / file
    limit.parent.mkdir(parents=True, exist_ok=True)
    limit.write_text("1000\n")
    assert memory() == 1000
    limit.write_text("max\n")
    assert memory() == whole


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"name": "eyes", "counts": [4, 4, 4]},
            "eyes: counts: 12 images of 3 x 64 x 64 take 0.0 GB, too much for",
        ),
        ({"name": "npz", "path": "arrays.npz", "size": 64}, "data.size: 40 images of 3 x 64 x 64"),
        ({"name": "folder", "path": "p", "size": [200, 300]}, "0.png and the others: 2 images of 1 x 200 x 300"),
        ({"name": "torchvision", "dataset": "FakeData"}, "torchvision FakeData: 1,000 images of 3 x 224 x 224"),
    ],
)
def test_images_that_this_machine_cannot_hold_are_refused_before_they_are_made(
    table: dict[str, Any], said: str, arrays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(arrays.parent)
    monkeypatch.setattr("gankit.images.room.memory", lambda: 1e5)
    Path("p").mkdir()
    for number in range(2):
        Image.new("L", (8, 8)).save(f"p/{number}.png")
    with pytest.raises(DataError, match=said):
        _ = open_dataset(DataTable.model_validate(table)).images


@pytest.mark.parametrize(
    ("study", "override", "said"),
    [
        ("agreement", "study.drawn=1000000000000", "study.drawn: 1,000,000,000,000 images of 3 x 8 x 8"),
        ("classifier", "classifier.batch=1000000000000", "classifier.batch: 1,000,000,000,000 images of 3 x 8 x 8"),
        (
            "classifier",
            "classifier.width=1000000000",
            "classifier.network small has .* GB of weights, .* lower classifier",
        ),
    ],
)
def test_what_memory_cannot_hold_is_refused_before_a_study_trains(
    study: str, override: str, said: str, small: Callable[..., list[str]], tmp_path: Path
) -> None:
    more = ["study.thresholds=[0]"] if study == "agreement" else []
    with pytest.raises(GankitError, match=said):
        load_study(study, "wgan-gp", *small(*more, override)).work(tmp_path)


@pytest.mark.parametrize(
    ("study", "override"),
    [
        ("augmentation", f"augmentation.network={'x' * 4000}"), ("augmentation", f"augmentation.ratios={[1] * 2000}"),
        ("agreement", f"study.thresholds={[1] * 2000}"), (None, f"generator={{name='resnet', width={2**63 - 1}}}"),
        (None, f"data={{name='npz', path='arrays.npz', images='{'x' * 4000}'}}"),
    ],
)  # fmt: skip
def test_what_is_refused_is_shown_in_short(
    study: str | None, override: str, small: Callable[..., list[str]], arrays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(arrays.parent)
    with pytest.raises(GankitError) as caught:
        load_study(study, None, override) if study else list(check("wgan-gp", *small(), override))
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("label", ["\u00b2", "9" * 5000, -1, 3])
def test_a_label_of_no_class_is_said_in_one_short_line(label: str | int) -> None:
    with pytest.raises(RunError, match="there is no class") as caught:
        gankit.open_run("eyes").sample(1, label)
    assert len(str(caught.value)) < 600


def test_a_name_that_is_not_in_utf8_is_said_once() -> None:
    with pytest.raises(SettingsError, match=r"^override 'data\.path=\\udcff': '\\udcff' is not in UTF-8"):
        gankit.load("wgan-gp", "data.path=\udcff")


def test_facts_whose_squares_overflow_are_refused(tmp_path: Path) -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "d.npz", images=images, big=np.array([1e308, 1, 2, 3]), small=np.array([1e-308, 1, 2, 3]))
    for setting, said in (
        ('data.conditional=["big"]', "big has values beyond 1e"),
        ("data.weights=big", "big has values beyond 1e"),
        ("data.weights=small", "weights are 0, or numbers above 1e-100"),
    ):
        experiment = gankit.load("wgan-gp", "data.name=npz", f"data.path={tmp_path / 'd.npz'}", setting)
        with pytest.raises(DataError, match=said):
            gankit.train(experiment, tmp_path / "run")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 PiB"),
        RuntimeError("x: can't allocate memory: y"),
        RuntimeError("Storage size calculation overflowed with sizes=[9, 3]"),
    ],
)
def test_too_little_memory_is_said_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr("gankit.cli.app", fail)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"gankit: not enough memory ({error}")


def test_json_that_is_valid_reads_as_before(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps(gankit.load("wgan-gp").tables()))
    assert gankit.load(path) == gankit.load("wgan-gp")
