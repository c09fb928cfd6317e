"""The example experiment: it is valid, trains, resumes exactly, and its samples depend on (seed, i) alone."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import gankit
import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[1]
SMALL = (
    "data.size=32", "data.subset=16", "data.counts=[5, 5, 10]", "generator.width=2", "generator.latent_dim=6",
    "critic.width=2", "training.batch=4", "training.device=cpu", "training.threads=1",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def small(*more):
    """The example with small networks and few images."""
    return gankit.load(FOLDER / "fastgan.toml", *SMALL, *more)


@pytest.fixture(scope="module")
def run(tmp_path_factory, _own_cache):
    """Four steps with averaged weights, and the lines of their log."""
    rows = []
    experiment = small("training.steps=4", "training.checkpoint_every=2", "training.tick_every=1")
    made = gankit.train(experiment, tmp_path_factory.mktemp("runs") / "whole", on_tick=rows.append)
    made.rows = rows
    return made


def test_every_loss_is_logged(run):
    """All are finite, and both networks move."""
    assert run.finished
    names = [name for name in run.rows[-1] if name.startswith("critic/")]
    assert sorted(name.rpartition(":")[2].rpartition("/")[2] for name in names) == [
        "fastgan-hinge",
        "fastgan-reconstruction",
    ]
    assert all(np.isfinite(row[name]) for row in run.rows for name in names)
    assert not any("reconstruction" in name for name in run.rows[-1] if name.startswith("generator/"))
    assert run.rows[0][names[1]] != run.rows[1][names[1]]


@pytest.mark.slow
def test_classes_train(tmp_path):
    """Each class has samples of its own."""
    made = gankit.train(small("training.steps=2", "data.conditional=true"), tmp_path / "run")
    assert not np.array_equal(made.sample(2, "exotropia", seed=1), made.sample(2, "normal", seed=1))


def test_noise_has_been_learned(run):
    """Its factors leave 0, so that the tests of samples below test it."""
    assert any(parameter.item() != 0 for name, parameter in run.generator.named_parameters() if "factor" in name)


class Stopped(Exception):
    """The program that trains is stopped."""


def test_resumes_exactly(run, tmp_path):
    """Stopped in the third of four steps, the run ends bitwise as the one that never stopped."""

    def stop(row):
        if row["step"] == 3:
            raise Stopped

    with pytest.raises(Stopped):
        gankit.train(run.experiment, tmp_path / "stopped", on_tick=stop)
    assert gankit.open_run(tmp_path / "stopped").steps == 2
    torch.manual_seed(5)  # what torch draws elsewhere must not matter
    resumed = gankit.resume(tmp_path / "stopped")
    assert resumed.finished
    assert resumed.exported.read_bytes() == run.exported.read_bytes()


def test_samples_depend_on_seed_and_number_alone(run):
    """The same image whatever the batch it is drawn in, and however often."""
    many = run.sample(70, seed=3)
    torch.manual_seed(1)
    for n in (1, 3, 65):
        assert np.array_equal(run.sample(n, seed=3), many[:n])
    assert not np.array_equal(many[0], many[1])
    assert not np.array_equal(run.sample(1, seed=4), many[:1])


def test_the_readme_s_experiment_is_the_example_s():
    """The fragment says what the file says."""
    (text,) = re.findall(r"```toml\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.S)
    whole = tomllib.loads((FOLDER / "fastgan.toml").read_text(encoding="utf-8"))
    assert {name: whole[name] for name in ("generator", "critic", "losses", "augment")} == tomllib.loads(text)


def test_settings_of_the_readme_are_those_of_the_parts():
    """Names and defaults in the table."""
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`(?:generator|critic)\..*?) \| (.*?) \|", readme, re.MULTILINE)
    told = {
        name: tomllib.loads(f"x = {default}")["x"] for names, default in rows for name in re.findall("`(.*?)`", names)
    }
    tables = gankit.load({kind: {"name": "fastgan"} for kind in ("generator", "critic")}).tables()
    found = {f"{kind}.{key}": tables[kind][key] for kind in ("generator", "critic") for key in tables[kind]}
    assert told == {key: value for key, value in found.items() if not key.endswith(".name")}


@pytest.mark.slow
def test_a_gradient_penalty_needs_another_normalisation(tmp_path):
    """gankit refuses batch statistics beside it; with "layer" it trains."""
    losses = 'losses=[{name="wasserstein"}, {name="gradient-penalty"}, {name="fastgan-reconstruction"}]'
    with pytest.raises(gankit.GankitError, match=r"critic\.norm: .*mixes the samples"):
        gankit.train(small(losses, "training.steps=1"), tmp_path / "batch")
    assert gankit.train(small(losses, "training.steps=1", "critic.norm=layer"), tmp_path / "layer").finished


def test_the_reconstruction_needs_a_critic_that_draws(tmp_path):
    """Another critic is refused before training, in one line that says what is lacking."""
    with pytest.raises(gankit.GankitError, match=r"^loss \S*fastgan-reconstruction needs a Reconstructs"):
        gankit.train(small("critic.name=resnet", "critic.width=4"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_recipe_follows_the_images(tmp_path):
    """Sizes and counts decide the batch; other sizes are refused."""
    few = gankit.load("fastgan", "data.subset=100", "data.size=64")
    assert (few.training.batch, few.generator.settings.width) == (32, 64)
    assert gankit.load("fastgan", "data.size=256").training.batch == 16
    with pytest.raises(gankit.GankitError, match="recipe fastgan makes images of 28 to 256 pixels"):
        gankit.load("fastgan", "data.size=16")
    tiny = gankit.load(gankit.load("fastgan"), *SMALL, "data.size=28", "training.steps=1")
    assert gankit.train(tiny, tmp_path / "run").finished
