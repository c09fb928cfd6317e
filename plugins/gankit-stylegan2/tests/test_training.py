"""The example experiment: it is valid, trains, resumes exactly, shares its work, and its samples can be truncated."""

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
    "data.size=16", "data.counts=[5, 5, 10]", "generator.width=4", "generator.max_width=6", "generator.latent_dim=6",
    "generator.style_dim=6", "generator.mapping_layers=2", "critic.width=4", "critic.max_width=6", "training.batch=4",
    "training.device=cpu", "training.threads=1",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def small(*more):
    """The example with small networks and few images."""
    return gankit.load(FOLDER / "stylegan2.toml", *SMALL, *more)


@pytest.fixture(scope="module")
def run(tmp_path_factory, _own_cache):
    """Eight steps with averaged weights, and the lines of their log."""
    rows = []
    experiment = small("training.steps=8", "training.tick_every=1", "training.checkpoint_every=4")
    made = gankit.train(experiment, tmp_path_factory.mktemp("runs") / "whole", on_tick=rows.append)
    made.rows = rows
    return made


def test_every_loss_is_due_when_it_should_be(run):
    """All are finite; the penalty and the path length on every fourth update."""
    due = {}
    for row in run.rows:
        for name, value in row.items():
            if "/" in name:
                assert np.isfinite(value)
                due.setdefault(name.rpartition(":")[2].rpartition("/")[2] + f" {name[:6]}", []).append(row["step"])
    assert due["non-saturating critic"] == due["non-saturating genera"] == list(range(1, 9))
    assert due["r1 critic"] == due["stylegan2-path-length genera"] == [1, 5]
    assert [row["step"] for row in run.rows if "path_length" in row] == [1, 5]


class Stopped(Exception):
    """The program that trains is stopped."""


def test_resumes_exactly(run, tmp_path):
    """Stopped in the seventh of eight steps, the run ends bitwise as the one that never stopped."""

    def stop(row):
        if row["step"] == 7:
            raise Stopped

    with pytest.raises(Stopped):
        gankit.train(run.experiment, tmp_path / "stopped", on_tick=stop)
    assert gankit.open_run(tmp_path / "stopped").steps == 4
    torch.manual_seed(5)  # what torch draws elsewhere must not matter
    resumed = gankit.resume(tmp_path / "stopped")
    assert resumed.finished
    assert resumed.exported.read_bytes() == run.exported.read_bytes()


def test_samples_depend_on_seed_and_number_alone(run):
    """The same image whatever the batch it is drawn in, and however often."""
    many = run.sample(70, seed=3)
    for n in (1, 65):
        assert np.array_equal(run.sample(n, seed=3), many[:n])
    assert not np.array_equal(run.sample(1, seed=4), many[:1])


def test_samples_are_truncated_on_request(run):
    """0 gives one image for all, 1 what is drawn without."""
    whole, mean = run.sample(3), run.sample(3, truncation=0)
    assert np.array_equal(run.sample(3, truncation=1), whole)
    assert np.array_equal(mean[0], mean[1])
    assert not np.array_equal(whole[0], whole[1])
    with pytest.raises(gankit.GankitError, match=r"^truncation is 1\.5: choose a value from 0 to 1$"):
        run.sample(1, truncation=1.5)


def test_halves_of_a_batch_train_as_the_whole(run, tmp_path):
    """As two processes do: groups of neighbours stay together, so that the penalty's gradients are the same."""
    from gankit.losses.r1 import R1

    torch.manual_seed(0)
    critic = gankit.build("critic", "stylegan2", gankit.ImageSpec(3, 8, 8), width=4, max_width=6).double()
    images = torch.randn(8, 3, 8, 8, dtype=torch.float64)

    def gradients(real):
        turn = gankit.interfaces.Turn(
            "critic", run.generator, critic, real=lambda: real, labels=None, latents=real, step=0, random=None
        )
        loss = R1().critic(turn) + critic(real).mean()
        return torch.autograd.grad(loss, list(critic.parameters()))

    halves = [gradients(half) for half in images.chunk(2)]
    for whole, first, second in zip(gradients(images), *halves, strict=True):
        torch.testing.assert_close(whole, (first + second) / 2)


def test_a_batch_in_parts_trains_as_the_whole(tmp_path):
    """Where no sample draws or mixes: the running means of styles and of path lengths are those of the whole batch."""
    same = ("critic.group=1", "generator.mixing=0.0", "generator.noise=false", "training.precision=float64")
    more = (*same, "augment=none", "training.steps=3", "losses.stylegan2-path-length.every=1")
    runs = [
        gankit.train(small(*more, f"training.accumulate={count}"), tmp_path / str(count)).generator.state_dict()
        for count in (1, 4)
    ]
    for name, value in runs[0].items():
        torch.testing.assert_close(runs[1][name], value, rtol=1e-6, atol=1e-6, msg=name)
    said = r"accumulate: critic \S*stylegan2 mixes the samples of a batch .*; set critic\.group=1, or a smaller"
    with pytest.raises(gankit.GankitError, match=said):
        gankit.train(small("training.accumulate=2"), tmp_path / "mixed")
    penalty = ("training.mixed_penalties=false", 'losses=["hinge", "gradient-penalty"]')
    with pytest.raises(gankit.GankitError, match=r"^critic\.group: .* choose critic\.group=1, or another critic"):
        gankit.train(small(*penalty), tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


@pytest.mark.parametrize("conditional", ["true", pytest.param('["deviation"]', marks=pytest.mark.slow)])
def test_labels_train(conditional, tmp_path):
    """Classes and float conditions, each with the losses of the example."""
    assert gankit.train(small("training.steps=1", f"data.conditional={conditional}"), tmp_path / "run").finished


def test_the_path_length_needs_styles(tmp_path):
    """Another generator is refused before training, in one line that says what is lacking."""
    with pytest.raises(gankit.GankitError, match=r"^loss \S*stylegan2-path-length needs a MapsLatents"):
        gankit.train(gankit.load("wgan-gp", 'losses=["hinge", "stylegan2-path-length"]'), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_readme_s_experiment_is_the_example_s():
    """The fragment says what the file says."""
    (text,) = re.findall(r"```toml\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.S)
    whole = tomllib.loads((FOLDER / "stylegan2.toml").read_text(encoding="utf-8"))
    assert {name: whole[name] for name in ("generator", "critic", "losses", "augment")} == tomllib.loads(text)


def test_settings_of_the_readme_are_those_of_the_parts():
    """Names and defaults in the table."""
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`(?:generator|critic)\..*?) \| (.*?) \|", readme, re.MULTILINE)
    told = {
        name: tomllib.loads(f"x = {default}")["x"] for names, default in rows for name in re.findall("`(.*?)`", names)
    }
    tables = gankit.load({kind: {"name": "stylegan2"} for kind in ("generator", "critic")}).tables()
    found = {f"{kind}.{key}": tables[kind][key] for kind in ("generator", "critic") for key in tables[kind]}
    assert told == {key: value for key, value in found.items() if not key.endswith(".name")}


def test_the_recipe_follows_the_images(tmp_path):
    """Size and batch decide gamma; grey levels that may be measurements stay."""
    whole = gankit.load("stylegan2", "data.size=64")
    assert whole.losses[1].weight == pytest.approx(0.0002 * 64**2 / 64, rel=1e-2)
    assert gankit.load("stylegan2", "data.size=64", "training.batch=8").losses[1].weight == pytest.approx(0.102)
    counts = gankit.wrap("dataset", np.zeros((40, 1, 32, 32), np.uint16))
    inner = gankit.load("stylegan2", data=counts).augment.settings.inner.settings
    names = ("brightness", "contrast", "flip", "shift")
    assert [getattr(inner, name) for name in names] == [False, False, False, True]
    tiny = gankit.load(gankit.load("stylegan2"), *SMALL, "training.steps=1")
    assert gankit.train(tiny, tmp_path / "run").finished
