"""Recipes whose settings follow from the images: the rules, what they refuse, and who takes them up."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from same_runs import Killed

import gankit
from gankit import recipes
from gankit.cli import app
from gankit.errors import DataError, GankitError, PartError, SettingsError
from gankit.experiments.recipe_files import recipe_lines
from gankit.experiments.rules import recipe_tables
from gankit.interfaces import Dataset, ImageSpec
from gankit.planning import proposal
from gankit.recipes import Recipe, TrainingImages
from gankit.studies.reading import load_study
from gankit.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "recipes.md"
SIDES, COUNTS = (28, 32, 64, 128, 256), (100, 1000, 10_000)


def images(n: int, side: int = 32, **more: Any) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 1, side, side), dtype=np.uint8)
    return gankit.wrap("dataset", pixels, **more)


def of(side: int, count: int = 1000, **more: Any) -> TrainingImages:
    return TrainingImages(ImageSpec(3, side, side), count, **more)


@pytest.fixture(scope="module")
def shipped() -> Iterator[dict[str, type[Recipe]]]:
    """All recipes of this repository that follow the images, plug-ins' included, whether installed or not."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fastgan", "stylegan2", "adaptive-augment"):
            patch.syspath_prepend(str(ROOT / "plugins" / f"gankit-{name}"))
        from gankit_adaptive_augment.recipe import R3GANAda
        from gankit_fastgan.recipe import FastGAN
        from gankit_stylegan2.recipe import StyleGAN2

        yield {name: recipes.get(name) for name in recipes._registry.built_in()} | {
            "fastgan": FastGAN, "stylegan2": StyleGAN2, "r3gan-ada": R3GANAda,
        }  # fmt: skip


def decay(images: TrainingImages) -> str:
    return f"{images.averaging():.4f}"


def rows_of_rules() -> Iterator[str]:
    """The first table of the page."""
    for side in SIDES:
        for count in COUNTS:
            facts = of(side, count)
            (r1, _), policy = (recipes.get("r3gan")().settings(facts)["losses"][1:], ", ".join(facts.policy()))
            cells = [
                side, f"{count:,}", facts.batch, f"{facts.steps:,}", decay(facts), policy, f"{facts.r1_weight():g}",
                f"{r1['weight']['start']:g} to {r1['weight']['end']:g}",
            ]  # fmt: skip
            yield f"| {' | '.join(map(str, cells))} |"


def rows_of_widths(shipped: dict[str, type[Recipe]]) -> Iterator[str]:
    """The second table of the page: generators' millions of parameters."""
    for side in SIDES:
        cells = [str(side)]
        for name in ("resnet", "resnet-small"):
            cells.append("-".join(map(str, shipped[name]().settings(of(side))["generator"]["widths"])))
        yield f"| {' | '.join(cells)} |"


def test_the_page_has_what_the_rules_give(shipped: dict[str, type[Recipe]]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = [row for row in (*rows_of_rules(), *rows_of_widths(shipped)) if row not in page]
    assert not missing, "\n".join(missing)


def test_the_rules_are_those_of_their_sources() -> None:
    assert of(256).r1_weight() == pytest.approx(0.0002 * 256**2 / 16, rel=1e-3)  # StyleGAN2-ADA
    assert of(64).averaging() ** (10_000 / 64) == pytest.approx(0.5, abs=1e-3)
    gamma = {side: recipes.get("r3gan")().settings(of(side))["losses"][1]["weight"]["start"] for side in SIDES}
    assert (gamma[64], 100 < gamma[256] < 150, 0.05 < gamma[32] < 0.5) == (2.0, True, True)
    assert [of(32, n).policy() for n in (100, 5000, 60_000)] == [
        ["color", "translation", "cutout"], ["color", "translation"], [],
    ]  # fmt: skip
    assert of(32, 100, pictures=False).policy() == ["translation", "cutout"]


def test_the_average_of_a_short_training_looks_back_a_twentieth_of_it() -> None:
    assert of(32, given_steps=100).averaging() ** 5 == pytest.approx(0.5, abs=1e-4)


def test_the_recipe_for_cpus_only_moves_pictures_and_takes_small_batches() -> None:
    small, large = (gankit.load(name, "data.subset=200") for name in ("resnet-small", "resnet"))
    assert (small.training.batch, large.training.batch) == (32, 64)
    assert small.augment.settings.policy == ("translation",)  # type: ignore[union-attr]
    assert large.augment.settings.policy == ("color", "translation", "cutout")  # type: ignore[union-attr]
    assert small.training.steps == recipes.IMAGES_SHOWN // 32 // 100 * 100
    for side, levels in {32: ((16, 32, 64, 128), 0), 28: ((32, 64), 1), 48: ((16, 32, 64, 128), 0)}.items():
        critic = gankit.load("resnet-small", f"data.size={side}").critic.settings
        assert (tuple(critic.widths), critic.flat_blocks) == levels


@pytest.mark.parametrize("side", SIDES)
def test_every_recipe_builds_at_every_size_that_it_takes(side: int, shipped: dict[str, type[Recipe]]) -> None:
    for name in recipes._registry.built_in():
        experiment = gankit.load(name, f"data.size={side}", "data.conditional=true")
        with torch.device("meta"):
            for part in (experiment.generator, experiment.critic):
                part.part.build(ImageSpec(3, side, side, classes=3))
    assert {side for recipe in shipped.values() for side in recipe.sides} == {28, 256}


def test_what_the_user_sets_stays_and_the_rest_follows_from_it() -> None:
    own = gankit.load("resnet", "training.batch=16", "training.steps=700", "training.critic_lr=1e-3")
    assert (own.training.batch, own.training.steps, own.training.critic_lr) == (16, 700, 1e-3)
    assert own.training.averaging == of(32, given_batch=16, given_steps=700).averaging()
    losses = gankit.load("r3gan", "training.steps=700", "losses.r2.weight=3").losses
    assert (losses[1].weight.steps, losses[2].weight) == (140, 3.0)  # type: ignore[union-attr]


def test_settings_follow_from_the_selected_images() -> None:
    few = gankit.load("resnet", "data.subset=100", "data.size=[32, 64]")
    assert few.training.batch == 32
    assert few.augment is not None
    assert few.augment.settings.policy == ("color", "translation", "cutout")
    assert len(gankit.load("resnet", "data.size=64").generator.settings.widths) == 5
    assert gankit.load("resnet").training.batch == 64


def test_a_run_keeps_the_resolved_settings(tmp_path: Path) -> None:
    data = images(24, 28)
    small = ["training.steps=1", "training.batch=2", "training.critic_steps=1", "generator.widths=[2, 2, 2]"]
    experiment = gankit.load("resnet-small", *small, "critic.widths=[2, 2]", "training.device=cpu", data=data)
    run = gankit.train(experiment, tmp_path / "run", data=data)
    kept = gankit.load(tmp_path / "run")
    assert kept.training == experiment.training
    assert "recipe" not in (tmp_path / "run" / "experiment.toml").read_text()
    assert gankit.load(run.experiment, "data.subset=20").augment == experiment.augment


def test_images_of_the_program_are_followed_or_the_experiment_is_refused(tmp_path: Path) -> None:
    data = images(40, 64)
    given = gankit.load("resnet", "training.steps=5", data=data)
    assert (given.data.size, given.data.flip, len(given.generator.settings.widths)) == (None, False, 5)
    for experiment in (gankit.load("resnet"), gankit.load(gankit.load("resnet"), "training.steps=1")):
        with pytest.raises(SettingsError, match="settings of recipe resnet follow from the images"):
            gankit.train(experiment, tmp_path / "run", data=data)
        with pytest.raises(SettingsError, match=r"gankit\.load\('resnet', data=\.\.\.\)"):
            gankit.load(experiment, "training.steps=2", data=data)
    assert gankit.load(given, "training.steps=2", data=data).generator == given.generator
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.size=16"], r"data\.size: recipe resnet makes images of 28 to 256 pixels a side, not 16 x 16; set"),
        (["data.size=[256, 512]"], "not 256 x 512"),
        (["data.counts=[6, 6, 7]"], "19 training images to learn from"),
        (["data.name=folder", "data.path=nowhere"], "nowhere"),
        (["data.sise=32"], "did you mean 'size'"),
        (["training.batch=many"], r"override 'training\.batch=many'"),
    ],
)
def test_what_a_recipe_cannot_follow_is_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(GankitError, match=message) as caught:
        gankit.load("resnet", *overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("recipe", ["demo", "resnet-small"])
def test_a_rare_class_is_warned_of_by_every_recipe_before_anything_is_written(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(trainer: Trainer) -> None:
        assert not any(trainer.folder.glob("[a-z]*"))
        raise Killed

    monkeypatch.setattr(Trainer, "create_folder", stop)
    rare = ("data.counts=[9, 12, 12]", "data.held_out=0", "data.size=32", "data.conditional=true", "training.batch=4")
    experiment = gankit.load(recipe, *rare, "generator.widths=[4,4,4,4]", "critic.widths=[4,4,4,4]")
    with pytest.raises(Killed):
        gankit.train(experiment, tmp_path / "run")
    warning = "warning: data.conditional: fewer than 10 training images of class exotropia: merge it with another"
    assert capsys.readouterr().err.count(warning) == 1


def test_a_plug_in_s_recipe_is_loaded_listed_and_proposed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain(Recipe):
        purpose, time, sides, proposed_on = "tests", "no time on a CPU", (32, 64), ("cuda",)

        def settings(self, images: TrainingImages) -> dict[str, Any]:
            return {
                "generator": {"name": "dcgan", "width": images.image.height}, "critic": "dcgan",
                "losses": ["hinge"], "training": {"steps": images.steps, "batch": 4},
            }  # fmt: skip

    with recipes._registry.isolated():
        recipes.register("plain")(Plain)
        assert gankit.load("plain").generator.settings.width == 32
        with pytest.raises(DataError, match=r"set data\.size=64"):
            gankit.load("plain", "data.size=128")
        monkeypatch.setattr(sys, "argv", ["gankit", "list", "recipes"])
        with pytest.raises(SystemExit, match="0"):
            app()
        assert "plain                32x32 to 64x64" in capsys.readouterr().out
        monkeypatch.setattr(proposal, "time_training", lambda experiment: 0.01)
        monkeypatch.setattr(proposal, "choose_device", lambda name: torch.device("cuda"))
        np.savez(tmp_path / "a.npz", images=images(30, 100).images[:, 0])
        said = list(proposal.plan(str(tmp_path / "a.npz"), 60, tmp_path / "a.toml"))
        assert any(line.startswith("recipe plain") for line in said)
        assert gankit.load(tmp_path / "a.toml").generator.settings.width == 64  # 128 and 256 it does not make
        other = tmp_path / "b.toml"
        assert list(proposal.plan(str(tmp_path / "a.npz"), 60, other, "r3gan"))
        written = gankit.load(other)
        assert written.losses[1].weight.steps == written.training.steps // 5  # type: ignore[union-attr]
        with pytest.raises(GankitError, match=r"--recipe demo: its settings are fixed; take one .*: .*plain"):
            list(proposal.plan(str(tmp_path / "a.npz"), 60, tmp_path / "c.toml", "demo"))


@pytest.mark.parametrize(
    ("shape", "size", "said"),
    [
        ((28, 28), 28, "28 pixels a side"),
        ((28, 40), [28, 40], ""),
        ((32, 3200), [32, 256], "100 times as long as wide"),
    ],
)
def test_a_proposed_size_is_one_that_the_recipe_makes(
    shape: tuple[int, int], size: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposal, "time_training", lambda experiment: 0.01)
    monkeypatch.setattr(proposal, "choose_device", lambda name: torch.device("cpu"))
    pixels = np.random.default_rng(0).integers(0, 256, (24, *shape), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels)
    lines = list(proposal.plan(str(tmp_path / "a.npz"), 60, tmp_path / "a.toml"))
    experiment = gankit.load(tmp_path / "a.toml")
    assert experiment.data.height_width == tuple(size if isinstance(size, list) else [size, size])
    assert any(said in line for line in lines)
    with torch.device("meta"):
        for part in (experiment.generator, experiment.critic):
            part.part.build(ImageSpec(1, *experiment.data.height_width))


def test_a_study_takes_such_a_recipe() -> None:
    study = load_study("classifier", "resnet-small", "data.size=64", "training.steps=9")
    assert len(study.experiment.generator.settings.widths) == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fact", "wrong"), [("purpose", None), ("time", b"x"), ("sides", (32,)), ("sides", "ab"), ("data", "eyes")]
)
def test_a_recipe_with_a_wrong_fact_is_refused_where_it_is_defined(fact: str, wrong: Any) -> None:
    with pytest.raises(PartError, match=rf"^recipe Own: {fact} is {re.escape(repr(wrong))}: \w"):
        type("Own", (Recipe,), {fact: wrong})


def test_a_recipe_that_fails_is_named_and_shares_no_table(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=images(30).images[:, 0])

    class Own(Recipe):
        purpose, time = "tests", "no time"
        tables: Any = None

        def settings(self, images: TrainingImages) -> Any:
            return self.tables[images.count] if isinstance(self.tables, list) else self.tables

    with recipes._registry.isolated():
        recipes.register("own")(Own)
        for wrong in None, {"data": {"name": "eyes", "size": 64}}, {"run": {}}:
            Own.tables = wrong
            said = rf"recipe own returned {re.escape(repr(wrong))}; it must return tables by name, without data and run"
            with pytest.raises(PartError, match=said):
                gankit.load("own")
        Own.tables = {"evaluation": [1]}
        with pytest.raises(GankitError, match=r"recipe own: evaluation: a table is needed, not \[1\]"):
            gankit.load("own", "data.name=npz", f"data.path={tmp_path / 'a.npz'}")
        Own.tables = []
        with pytest.raises(PartError, match=r"recipe own failed to compute settings for T.*Images\(.*: IndexError"):
            gankit.load("own")
        network = {"name": "resnet", "width": 8}
        Own.tables = {"generator": network, "critic": network}
        assert gankit.load("own", "critic.width=4").generator.settings.width == 8


def test_a_broken_plug_in_stops_neither_the_list_nor_a_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    get = recipes.get

    def get_unless_broken(name: str) -> type[Recipe]:
        if name == "broken":
            raise PartError("recipe 'broken' cannot be imported")
        return get(name)

    monkeypatch.setattr(recipes, "names", lambda: ["broken", "resnet-small"])
    monkeypatch.setattr(recipes, "get", get_unless_broken)
    (line,) = [line for line in recipe_lines() if line.startswith("broken")]
    assert line.endswith("fails: recipe 'broken' cannot be imported")
    assert proposal._proposed("cpu") == "resnet-small"


def test_following_depends_on_nothing_else() -> None:
    table = gankit.load("resnet").data
    assert recipe_tables("resnet", table, images(50)) == recipe_tables("resnet", table, images(50))


def test_spaces_round_an_override_change_nothing_that_follows() -> None:
    assert gankit.load("resnet", " training.batch = 16") == gankit.load("resnet", "training.batch=16")


def test_a_huge_batch_leaves_steps_to_train() -> None:
    assert gankit.load("resnet", "training.batch=1000000").training.steps == 100
