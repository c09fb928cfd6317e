"""Recipes and experiments: what they hold, their records and copies."""

from __future__ import annotations

import json
import pickle
import re
import tomllib
from pathlib import Path

import processes
import pytest
import torch
from settings_texts import write

import gankit
from gankit.errors import GankitError
from gankit.experiments.recipe_files import fixed_recipe_names, recipe_facts, recipe_text
from gankit.interfaces import ImageSpec


@pytest.mark.parametrize("name", fixed_recipe_names())
def test_recipes_load_and_round_trip(name: str, tmp_path: Path) -> None:
    experiment = gankit.load(name)
    assert gankit.load(write(tmp_path / "e.toml", experiment.toml())) == experiment
    assert gankit.load(experiment) == experiment
    assert gankit.load(tomllib.loads(recipe_text(name))) == experiment
    json_file = write(tmp_path / "e.json", json.dumps(experiment.tables()))
    assert gankit.load(json_file) == experiment
    assert recipe_text(name).startswith("#")


@pytest.mark.parametrize("name", fixed_recipe_names())
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
