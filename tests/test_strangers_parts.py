"""Parts as strangers write them: memory format, settings, labels, data, and runs whose parts are not there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import strangers
from strangers import FEW, IMAGES, Running, Trained, Viewed, labelled
from torch import nn

import gankit
from gankit.errors import PartError, SettingsError
from gankit.registry import registry
from gankit.report import write_report

trained = strangers.trained


def test_a_critic_that_flattens_with_view_trains(trained: Trained) -> None:
    assert trained(critic=gankit.wrap("critic", Viewed)).finished


def test_a_layout_that_a_network_cannot_have_is_refused(trained: Trained) -> None:
    with pytest.raises(PartError, match=r"^training\.channels_last: critic mine has tensors of five dim"):
        trained("training.channels_last=true", critic=gankit.wrap("critic", Viewed))


def test_a_thin_strided_convolution_trains(trained: Trained) -> None:
    layers = nn.Conv2d(3, 8, 1, stride=2), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 8)
    assert trained('losses=["hinge"]', critic=gankit.wrap("critic", nn.Sequential(*layers))).finished


def test_an_augment_that_uses_view_trains_beside_own_networks(trained: Trained) -> None:
    augment = gankit.wrap("augment", lambda images: images.view(len(images), -1).view(images.shape) * 0.5)
    assert trained(augment=augment).finished


def test_a_penalty_beside_a_critic_that_mixes_samples_can_be_allowed(trained: Trained) -> None:
    mixing = ["critic.name=dcgan", 'losses=["non-saturating", "r1"]']
    with pytest.raises(PartError, match=r"mixes the samples .* training.mixed_penalties=true, as StyleGAN2 does"):
        trained(*mixing)
    assert trained(*mixing, "training.mixed_penalties=true").finished


# Settings, labels, and runs whose parts are not there


def test_a_generator_alone_is_enough_to_draw_and_show(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained("training.checkpoint_every=1", loss=Running, critic=gankit.wrap("critic", Viewed))
    monkeypatch.setattr(registry("loss"), "_registered", {})
    monkeypatch.setattr(registry("critic"), "_registered", {})
    opened = gankit.open_run(run.path)
    assert np.array_equal(opened.sample(3), run.sample(3))
    assert opened.experiment.tables() == run.experiment.tables()
    assert gankit.load(run.path).losses[1].name == "mine"
    write_report(opened)
    with pytest.raises(PartError, match="there is no critic named 'mine'"):
        opened.critic  # noqa: B018
    with pytest.raises(PartError, match="there is no critic named 'mine'"):
        gankit.train(gankit.load(run.path), run.path.parent / "other", data=labelled())
    with pytest.raises(gankit.GankitError, match="there is no loss named 'mine'"):
        gankit.load("wgan-gp", 'losses=["mine"]')


def test_a_number_is_a_name_where_names_are_numbers(trained: Trained) -> None:
    grades = gankit.wrap("dataset", IMAGES, labels=np.arange(24) % 3, class_names=("1", "2", "3"))
    run = trained("data.conditional=true", data=grades)
    for label in ("2", 2, np.int64(2)):
        assert run.encode_labels(1, label).tolist() == [1]
    for label in ("0", 0):
        with pytest.raises(gankit.GankitError, match=r"there is no class .*0"):
            run.encode_labels(1, label)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("losses.gradient-penalty.weight=true", "weight: a number is needed, not True"),
        ("training.steps=true", "training.steps: a number is needed, not True"),
        ("data.size=[true, 8]", "data.size: a number is needed"),
        ("generator.width=false", "generator.width: a number is needed, not False"),
        ("training.betas=[false, 0.9]", "training.betas: a number is needed"),
    ],
)
def test_truth_values_are_no_numbers(override: str, message: str) -> None:
    with pytest.raises(gankit.GankitError, match=re.escape(message)):
        gankit.load("wgan-gp", override)
    assert gankit.load("wgan-gp", "training.compile=true", "data.conditional=true").training.compile is True


def test_a_learning_rate_among_the_options_is_refused(trained: Trained) -> None:
    with pytest.raises(
        SettingsError, match=r"lr is not an option here; set training.generator_lr and training.critic_lr"
    ):
        trained("training.optimizer_options={lr=0.01}")


# Data of the calling program


def test_given_data_have_neither_size_nor_flip_of_a_recipe(tmp_path: Path) -> None:
    data = gankit.wrap("dataset", np.resize(IMAGES, (24, 3, 40, 48)))
    few = [text for text in FEW if not text.startswith("data.")]
    experiment = gankit.load("wgan-gp", *few)
    assert (experiment.data.size, experiment.data.flip) == (32, True)
    run = gankit.train(gankit.load(experiment, "training.steps=1"), tmp_path / "run", data=data)
    assert (run.image.height, run.image.width, run.experiment.data.flip) == (40, 48, False)
    asked = gankit.load("wgan-gp", *few, "data.size=16", "data.flip=true")
    run = gankit.train(asked, tmp_path / "asked", data=data)
    assert (run.image.height, run.experiment.data.flip) == (16, True)
