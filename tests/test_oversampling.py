"""The over-sampler for pipelines of imbalanced-learn: shapes, types, strategies, no leak, its estimator checks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("imblearn")

from imblearn.over_sampling.base import BaseOverSampler
from imblearn.pipeline import make_pipeline
from imblearn.utils.estimator_checks import estimator_checks_generator
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score

import gankit
from gankit.errors import GankitError, SettingsError
from gankit.oversampling import sampler as module

SMALL = (
    "generator.name=resnet", "generator.width=2", "generator.latent_dim=4", "critic.name=resnet", "critic.width=2",
    "critic.flat_blocks=0", "augment=none", "training.steps=1", "training.batch=4", "training.critic_steps=1",
)  # fmt: skip
SHAPE = (1, 8, 8)


def images(counts: tuple[int, ...] = (20, 6)) -> tuple[Any, Any]:
    labels = np.repeat([f"class {number}" for number in range(len(counts))], counts)
    return np.random.default_rng(0).integers(0, 255, (len(labels), *SHAPE), np.uint8), labels


def sampler(**more: Any) -> gankit.GanOverSampler:
    return gankit.GanOverSampler(overrides=SMALL, random_state=0, **more)


def test_rare_classes_are_filled_and_the_given_images_come_first() -> None:
    x, y = images((20, 6, 9))
    more, labels = sampler().fit_resample(x, y)
    assert Counter(labels) == dict.fromkeys(np.unique(y), 20)
    assert np.array_equal(more[: len(x)], x)
    assert (more.dtype, more.shape[1:]) == (np.uint8, SHAPE)
    again = sampler().fit_resample(x, y)[0]
    assert np.array_equal(more, again)
    assert Counter(sampler(sampling_strategy={"class 1": 8}).fit_resample(x, y)[1])["class 1"] == 8


@pytest.mark.filterwarnings("ignore:After over-sampling")
def test_more_images_than_memory_holds_are_refused_before_the_training() -> None:
    with pytest.raises(GankitError, match=r"^sampling_strategy: 999,999,999,994 images of 1 x 8 x 8 take"):
        sampler(sampling_strategy={"class 1": 10**12}).fit(*images())


@pytest.mark.parametrize("shape", [(8, 8), (64,)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_images_come_out_as_they_went_in(shape: tuple[int, ...], dtype: Any) -> None:
    x, y = images((8, 4))
    given = x.reshape(len(x), *shape).astype(dtype)
    more, _ = sampler(image_shape=SHAPE if len(shape) == 1 else None).fit_resample(given, y)
    assert (more.dtype, more.shape) == (dtype, (16, *shape))
    assert given.min() <= more.min() <= more.max() <= given.max()


def test_settings_follow_from_the_images_whose_size_is_kept() -> None:
    x, y = np.random.default_rng(0).integers(0, 255, (40, 1, 28, 28), np.uint8), np.repeat([0, 1], (28, 12))
    brief = ("training.steps=1", "training.batch=4", "training.critic_steps=1", "data.size=32")
    more, _ = gankit.GanOverSampler("resnet-small", overrides=brief, random_state=0).fit_resample(x, y)
    assert more.shape == (56, 1, 28, 28)


def test_classes_that_are_numbers_are_not_mistaken_for_places(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = images((20, 6))
    asked, inner = [], gankit.Run.encode_labels

    def noted(run: gankit.Run, n: int, labels: Any, seed: int = 0) -> Any:
        asked.append(inner(run, n, labels, seed))
        return asked[-1]

    monkeypatch.setattr(gankit.Run, "encode_labels", noted)
    _, more = sampler().fit_resample(x, np.repeat([1, 2], (20, 6)))
    assert set(asked[-1].tolist()) == {1}
    assert Counter(more) == {1: 20, 2: 20}


def test_classes_may_differ_by_case_alone_and_nothing_is_printed_unasked(capfd: pytest.CaptureFixture[str]) -> None:
    x, _ = images((8, 4))
    y = np.repeat(["A", "a"], (8, 4))
    assert Counter(sampler().fit_resample(x, y)[1]) == {"A": 8, "a": 8}
    assert capfd.readouterr() == ("", "")
    sampler(verbose=True).fit_resample(x, y)
    assert "step 1 of 1" in capfd.readouterr().err


def test_floats_that_32_bits_round_stay_in_their_range() -> None:
    x = np.random.default_rng(1).normal(size=(12, 8, 8))
    more, _ = sampler().fit_resample(x, images((8, 4))[1])
    assert x.min() <= more.min() <= more.max() <= x.max()


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 1e9), (1e300, 0.0)])
def test_levels_that_float32_cannot_tell_apart_are_refused_by_their_range(factor: float, offset: float) -> None:
    x, y = images((8, 4))
    with pytest.raises(
        GankitError, match=rf"{offset + 254 * factor:.10g}\] leaves float32 too few levels".replace("+", r"\+")
    ):
        sampler().fit_resample(offset + factor * x.clip(0, 254), y)


def test_channels_may_come_last() -> None:
    x, y = np.random.default_rng(0).integers(0, 255, (12, 3, 8, 8), np.uint8), images((8, 4))[1]
    first, last = (sampler().fit_resample(given, y)[0] for given in (x, np.moveaxis(x, 1, 3)))
    assert np.array_equal(np.moveaxis(first, 1, 3), last)


def test_each_fold_has_a_generator_that_saw_no_test_image(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = images()
    seen, inner = [], module.train

    def noted(experiment: Any, folder: Any, *, data: Any) -> Any:
        seen.append({image.tobytes() for image in data.images})
        return inner(experiment, folder, data=data)

    monkeypatch.setattr(module, "train", noted)
    groups = np.arange(len(x)) // 2
    pipeline = make_pipeline(sampler(image_shape=SHAPE), LogisticRegression())
    folds = StratifiedGroupKFold(2)
    scores = cross_val_score(pipeline, x.reshape(len(x), -1), y, groups=groups, cv=folds, error_score="raise")
    assert len(scores) == len(seen) == 2
    for (_, test), trained in zip(folds.split(x, y, groups), seen, strict=True):
        assert not {x[place].tobytes() for place in test} & trained
        assert len(trained) == len(x) - len(test)


def test_images_have_at_most_three_axes() -> None:
    x, y = images()
    with pytest.raises(ValueError, match=r"images of shape \(1, 1, 8, 8\) are neither"):
        sampler().fit_resample(x.reshape(len(x), 1, 1, 8, 8), y)


@pytest.mark.parametrize("value_range", [(0.0,), (0.0, 1.0, 255.0), (1.0, 0.0)])
def test_a_value_range_is_two_numbers(value_range: Any) -> None:
    with pytest.raises(GankitError, match=r"^value_range = .* must be two finite numbers, black before white"):
        sampler(value_range=value_range).fit_resample(*images((8, 4)))


def test_balanced_classes_need_no_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "train", None)
    x, y = images((5, 5))
    assert np.array_equal(sampler().fit_resample(x, y)[0], x)


@pytest.mark.parametrize(
    ("changes", "more", "words"),
    [
        ({}, {"image_shape": (3, 8, 8)}, r"images of shape \(64,\) are not of image_shape \(3, 8, 8\)"),
        ({}, {"image_shape": (8, 8)}, r"images of shape \(64,\) are not of image_shape \(8, 8\)"),
        ({}, {"image_shape": (1, -8, -8)}, r"images of shape \(64,\) are not of image_shape \(1, -8, -8\)"),
        ({}, {}, "rows of 64 numbers are no images; give image_shape"),
        ({"y": np.repeat([0, 1], (25, 1))}, {"image_shape": SHAPE}, "class 1 has one image"),
        ({"y": np.zeros(7)}, {"image_shape": SHAPE}, "there are 26 images and 7 classes|inconsistent|one class"),
    ],
)
def test_mistakes(changes: dict[str, Any], more: dict[str, Any], words: str) -> None:
    x, y = images()
    with pytest.raises(ValueError, match=words):
        sampler(**more).fit_resample(x.reshape(len(x), -1), changes.get("y", y))


def test_settings_are_checked_as_everywhere() -> None:
    with pytest.raises(SettingsError, match="did you mean 'steps'"):
        gankit.GanOverSampler(overrides=("training.step=1",)).fit_resample(*images())


class OfRows(gankit.GanOverSampler, BaseOverSampler):
    """Lays short rows out as images of 8 x 8, and has the tags that the checks ask for: they know tables alone."""

    _fit_resample = None

    def _images(self, x: Any) -> Any:
        return np.pad(x, ((0, 0), (0, 64 - x.shape[1]))).reshape(len(x), *SHAPE)

    def _generate(self, *arguments: Any) -> Any:
        made = super()._generate(*arguments)
        return made.reshape(len(made), 64)[:, : self.n_features_in_]


TABLES = {"check_samplers_list": "images are arrays, no lists", "check_samplers_pandas": "images are no tables",
          "check_samplers_pandas_sparse": "images are no tables", "check_samplers_sparse": "images are dense",
          "check_sampler_get_feature_names_out_pandas": "images are no tables"}  # fmt: skip


CHECKS = list(estimator_checks_generator(OfRows(overrides=SMALL, random_state=0), legacy=True))


def named(check: Any) -> str:
    return str(getattr(check, "func", check).__name__)


@pytest.mark.parametrize("check", [check for _, check in CHECKS if named(check) not in TABLES], ids=named)
def test_the_checks_of_imbalanced_learn(check: Any) -> None:
    check(clone(CHECKS[0][0]))
