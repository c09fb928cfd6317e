"""Metrics within each class: names, means, classes that cannot be judged."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gankit import GankitError, build
from gankit.interfaces import Metric, Pool, Resampling, Result, Rows
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.inception_score import InceptionScore
from gankit.metrics.intra_class import IntraClass
from gankit.metrics.kid import Kid, kernel_distance
from gankit.metrics.memorisation import Memorisation
from gankit.metrics.precision_recall import PrecisionRecall, precision_recall

Array = NDArray[Any]


def side(counts: list[int], d: int = 4, seed: int = 0, scale: float = 1.0) -> tuple[Array, Array]:
    """Features and labels, so many of each class, mixed."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
    return random.normal(size=(len(labels), d)) * scale + labels[:, None] ** 2, labels


def rows(labelled: tuple[Array, Array], names: tuple[str, ...] | None = None) -> Rows:
    return Rows(features=labelled[0], labels=labelled[1], class_names=names)


def result(metric: Metric, real: tuple[Array, Array], fake: tuple[Array, Array]) -> Result:
    return Result.of(metric, rows(real), rows(fake))


def pool(real: tuple[Array, Array], fake: tuple[Array, Array]) -> Pool:
    return Pool(rows(real), rows(fake))


REAL, FAKE = side([20, 12, 9], seed=1), side([14, 15, 8], seed=2, scale=1.2)


def test_each_class_by_itself() -> None:
    values = result(IntraClass(), REAL, FAKE).values
    own = [frechet_distance(REAL[0][REAL[1] == c], FAKE[0][FAKE[1] == c]) for c in range(3)]
    expected = {"frechet within classes": np.mean(own)} | {f"frechet of {c}": own[c] for c in range(3)}
    assert list(values) == list(expected)
    assert values == pytest.approx(expected, rel=1e-12)


def test_a_generator_that_ignores_its_labels_is_found_out() -> None:
    features, labels = side([40, 40], seed=3)
    ignoring = side([40, 40], seed=4)[0], labels
    shuffled = ignoring[0], np.random.default_rng(0).permutation(labels)
    right = result(IntraClass(metric=Kid()), (features, labels), side([40, 40], seed=4)).values
    wrong = result(IntraClass(metric=Kid()), (features, labels), shuffled).values
    assert wrong["kid within classes"] > right["kid within classes"] + 0.1
    assert kernel_distance(features, ignoring[0])[0] < 0.1


def test_the_mean_is_not_weighted_by_numbers() -> None:
    real, fake = side([200, 10], seed=5), side([200, 10], seed=6)
    fake[0][fake[1] == 1] += 5
    values = result(IntraClass(), real, fake).values
    assert values["frechet within classes"] == pytest.approx((values["frechet of 0"] + values["frechet of 1"]) / 2)
    assert values["frechet within classes"] > 40


@pytest.mark.parametrize(
    ("inner", "name", "better"),
    [
        ("frechet", "frechet", "lower"), ("kid", "kid", "lower"), ("precision-recall", "precision", "higher"),
        ("variance-ratio", "variance-ratio", None),
    ],
)  # fmt: skip
def test_any_metric_by_name_or_table(inner: str, name: str, better: str | None) -> None:
    for setting in (inner, {"name": inner}):
        metric = build("metric", "intra-class", metric=setting)
        assert metric.better == better
        assert metric.needs == ("features", "labels")
        values = result(metric, REAL, FAKE).values
        assert list(values) == [f"{name} within classes", *(f"{name} of {c}" for c in range(3))]


def test_settings_and_defaults() -> None:
    assert type(build("metric", "intra-class").metric).__name__ == "Frechet"
    assert type(IntraClass().metric).__name__ == "Frechet"
    nested = build("metric", "intra-class", metric={"name": "precision-recall", "k": 2})
    assert nested.metric.k == 2
    assert build("metric", "intra-class", metric="inception-score").needs == ("logits", "labels")
    with pytest.raises(GankitError, match="there is no metric named 'kidd'"):
        build("metric", "intra-class", metric="kidd")
    assert result(nested, REAL, FAKE).details == {"classes": {"0": {"k": 2}, "1": {"k": 2}, "2": {"k": 2}}}


def test_classes_have_their_names_and_numbers() -> None:
    names = ("red eye", "white", "yellow")
    found = IntraClass(metric=PrecisionRecall(k=1)).compute(rows(REAL, names), rows(FAKE))
    assert list(found.values) == ["precision within classes", *(f"precision of {name}" for name in names)]
    # Precision brings both sides to equal numbers.
    assert found.counts == {
        "precision within classes": (34, 34), "precision of red eye": (14, 14), "precision of white": (12, 12),
        "precision of yellow": (8, 8),
    }  # fmt: skip
    found = result(IntraClass(metric=Kid()), REAL, FAKE)
    assert found.counts == {
        "kid within classes": (41, 37), "kid of 0": (20, 14), "kid of 1": (12, 15), "kid of 2": (9, 8)
    }  # fmt: skip
    assert found.details == {}


def test_classes_are_matched_by_name() -> None:
    # A folder of generated images without the first class numbers the others from 0.
    expected = result(IntraClass(metric=Kid()), REAL, FAKE).values
    kept = FAKE[1] > 0
    metric, real = IntraClass(metric=Kid()), rows(REAL, ("a", "b", "c"))
    found = metric.compute(real, rows((FAKE[0][kept], FAKE[1][kept] - 1), ("b", "c")))
    assert list(found.values) == ["kid within classes", "kid of b", "kid of c"]
    assert found.values["kid of b"] == expected["kid of 1"]
    assert found.values["kid of c"] == expected["kid of 2"]
    (warning,) = found.warnings
    assert "class a is left out of the mean (20 real and 0 generated images): it has no generated images" in warning


def test_numbers_that_no_single_list_of_names_explains() -> None:
    training = rows(REAL, ("x", "y", "z"))
    real = dataclasses.replace(rows(REAL, ("a", "b", "c")), training=training)
    with pytest.raises(GankitError, match="label 0 has no class name, and the other images come with different names"):
        IntraClass(metric=Nearest()).compute(real, rows(FAKE))
    with pytest.raises(GankitError, match="label 3 and 3 class names, for 0 to 2"):
        IntraClass().compute(rows(REAL, ("a", "b", "c")), rows(side([0, 0, 4, 4])))


def test_classes_that_cannot_be_judged_are_named() -> None:
    real, fake = side([20, 12, 0, 1, 8], seed=1), side([9, 0, 7, 6, 2], seed=2)
    found = result(IntraClass(metric=PrecisionRecall(k=1)), real, fake)
    assert list(found.values) == ["precision within classes", "precision of 0"]
    told = found.warnings
    assert [f"class {c} is left out of the mean" in text for c, text in zip((1, 2, 3, 4), told, strict=True)] == [
        True
    ] * 4
    assert "(12 real and 0 generated images): it has no generated images" in told[0]
    assert "(0 real and 7 generated images): it has no real images" in told[1]
    assert "(1 real and 6 generated images): features of the real images: 1 row; at least 3" in told[2]
    assert "at least 3" in told[3]
    assert found.counts["precision within classes"] == (9, 9)
    with pytest.raises(GankitError, match=r"no class has enough images on both sides .*1: it has no generated"):
        result(IntraClass(), side([0, 5]), side([5, 0]))
    with pytest.raises(GankitError, match="no class has enough images"):
        result(IntraClass(), side([0]), side([0]))


def test_warnings_of_the_metric_are_passed_on() -> None:
    metric = IntraClass(metric=PrecisionRecall(k=5))
    assert result(metric, REAL, FAKE).warnings[0].startswith("class 0: precision: k = 5 is more than a fifth of 14")
    told = metric.warnings({"precision of 1": 0.99, "precision of 0": 0.5, "precision within classes": 0.99})
    assert len(told) == 1
    assert told[0].startswith("class 1: precision between real images is 0.99 already")


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.integers(2, 8), min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_order_changes_nothing(counts: list[int], seed: int) -> None:
    real, fake = side(counts, seed=seed), side(counts[::-1], seed=seed + 1)
    whole = result(IntraClass(metric=Kid()), real, fake).values
    random = np.random.default_rng(seed)
    orders = [random.permutation(len(labels)) for labels in (real[1], fake[1])]
    mixed = [(each[0][order], each[1][order]) for each, order in zip((real, fake), orders, strict=True)]
    kernel = (1 + max(np.square(real[0]).sum(1).max(), np.square(fake[0]).sum(1).max()) / 4) ** 3
    values = result(IntraClass(metric=Kid()), mixed[0], mixed[1]).values
    assert list(values) == list(whole)
    assert values == pytest.approx(whole, abs=1e-12 * kernel)


@pytest.mark.parametrize("inner", ["frechet", "kid", "precision-recall", "variance-ratio"])
def test_resampling_equals_a_fresh_metric(inner: str) -> None:
    everything = pool(REAL, FAKE)
    metric = build("metric", "intra-class", metric=inner)
    shared, plain = metric.resampling(everything), Resampling(metric, everything)
    assert type(shared) is not Resampling
    assert list(shared.values(everything.real_places, everything.fake_places)) == list(
        result(metric, REAL, FAKE).values
    )
    random = np.random.default_rng(0)
    for n, m in ((30, 40), (25, 20)):
        order = random.permutation(78)
        found, expected = (each.values(order[:n], order[-m:]) for each in (shared, plain))
        assert found == pytest.approx(expected, rel=1e-7, abs=1e-11)
    patients = np.arange(41) // 5
    parts = [everything.real_places[patients == patient] for patient in range(9)] + list(
        everything.fake_places[:, None]
    )
    # The Frechet distance's shared leave-outs are accurate to some 1e-8 of what they change.
    for found, expected in zip(shared.values_without(parts), plain.values_without(parts), strict=True):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-11)


def test_leave_outs_that_empty_a_class_give_no_mean() -> None:
    # The mean over fewer classes is another quantity.
    real, fake = side([10, 3], seed=1), side([10, 5], seed=2)
    everything = pool(real, fake)
    for inner in (Kid(), PrecisionRecall(k=1)):
        name = "kid" if isinstance(inner, Kid) else "precision"
        shared = IntraClass(metric=inner).resampling(everything)
        rare, common = np.flatnonzero(real[1] == 1), np.flatnonzero(real[1] == 0)
        left = shared.values_without([rare[:2], rare, common[:2], rare[:1]])
        assert list(left[0]) == list(left[1]) == [f"{name} of 0"]
        assert list(left[2]) == [f"{name} within classes", f"{name} of 0", f"{name} of 1"]
        assert (f"{name} of 1" in left[3]) == (name == "kid")
    with pytest.raises(GankitError, match="no class has enough"):
        shared.values_without([np.arange(13)])


def test_resampling_with_classes_that_one_side_lacks() -> None:
    real, fake = side([9, 0, 6, 1], seed=1), side([8, 7, 0, 4], seed=2)
    everything = pool(real, fake)
    for inner in ("frechet", "kid", "precision-recall", "variance-ratio"):
        metric = build("metric", "intra-class", metric=inner)
        shared, plain = metric.resampling(everything), Resampling(metric, everything)
        assert len(shared.values(everything.real_places, everything.fake_places)) == 2
        random = np.random.default_rng(1)
        for _ in range(3):
            order = random.permutation(35)
            expected = plain.values(order[:20], order[20:])
            assert shared.values(order[:20], order[20:]) == pytest.approx(expected, rel=1e-7, abs=1e-11)
        (found,), (expected,) = (each.values_without([everything.real_places[:3]]) for each in (shared, plain))
        assert found == pytest.approx(expected, rel=1e-6)


def test_resampling_matches_names_and_needs_labels() -> None:
    kept = FAKE[1] > 0
    real = rows(REAL, ("a", "b", "c"))
    everything = Pool(real, rows((FAKE[0][kept], FAKE[1][kept] - 1), ("b", "c")))
    metric = IntraClass(metric=Kid())
    found = metric.resampling(everything).values(everything.real_places, everything.fake_places)
    expected = Resampling(metric, everything).values(everything.real_places, everything.fake_places)
    assert found == pytest.approx(expected, rel=1e-9)
    assert list(found) == ["kid within classes", "kid of b", "kid of c"]
    with pytest.raises(GankitError, match="the generated images have no labels"):
        metric.resampling(Pool(real, Rows(features=FAKE[0])))


def test_standard_errors_are_those_of_a_mean_of_independent_values() -> None:
    everything = pool(REAL, FAKE)
    errors = IntraClass(metric=Kid()).resampling(everything).standard_errors()
    assert errors is not None
    own = [kernel_distance(REAL[0][REAL[1] == c], FAKE[0][FAKE[1] == c])[1] for c in range(3)]
    assert [errors[f"kid of {c}"] for c in range(3)] == pytest.approx(own, rel=1e-9)
    assert errors["kid within classes"] == pytest.approx(math.sqrt(sum(e**2 for e in own)) / 3)
    assert IntraClass(metric=PrecisionRecall()).resampling(everything).standard_errors() is None


class Nearest(Metric):
    """Looks at the training images too."""

    needs = ("features", "training")
    better = "higher"

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        if real.training is None or not real.training.count:
            raise GankitError("no training images")
        own, training = (each.required("features")[:, 0] for each in (fake, real.training))
        return {"nearest": float(np.abs(own[:, None] - training).min(1).mean())}


def test_training_images_go_to_their_classes() -> None:
    training = side([6, 5, 7], seed=9)
    metric = IntraClass(metric=Nearest())
    assert metric.needs == ("features", "training", "labels")
    everything = Pool(dataclasses.replace(rows(REAL), training=rows(training)), rows(FAKE))
    values = metric.resampling(everything).values(everything.real_places, everything.fake_places)
    assert values == Resampling(metric, everything).values(everything.real_places, everything.fake_places)
    found = metric.compute(everything.real, everything.fake)
    assert found.values == values
    assert found.counts["nearest of 0"] == (20, 14)
    own = np.abs(FAKE[0][FAKE[1] == 2][:, :1] - training[0][training[1] == 2][:, 0]).min(1).mean()
    assert values["nearest of 2"] == pytest.approx(own)


def test_faults_of_training_labels_are_told_of_the_training_images() -> None:
    for labels, fault in ((None, "no labels; give a data set with classes"), (np.full(5, -1), "the label -1")):
        real = dataclasses.replace(rows(REAL), training=Rows(features=np.zeros((5, 2)), labels=labels))
        with pytest.raises(GankitError, match=f"the training images have {fault}"):
            IntraClass(metric=Nearest()).compute(real, rows(FAKE))


def test_a_class_without_training_images_is_named() -> None:
    """Also where the metric's own resampling refuses it."""
    training = rows(side([6, 5], seed=9))
    reals, fakes = (dataclasses.replace(rows(of), ids=np.arange(len(of[1]))) for of in (REAL, FAKE))
    everything = Pool(dataclasses.replace(reals, training=dataclasses.replace(training, ids=np.arange(11))), fakes)
    found = IntraClass(metric=Memorisation()).resampling(everything).whole()
    assert list(found.values) == ["memorisation within classes", "memorisation of 0", "memorisation of 1"]
    assert any("class 2 is left out" in text and "no training images" in text for text in found.warnings)


def test_logits_by_class() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 3)) * 3
    labels = np.arange(20) % 2
    real, fake = Rows(logits=logits, labels=labels), Rows(logits=logits[::-1], labels=labels[::-1])
    found = IntraClass(metric=InceptionScore()).compute(real, fake)
    assert list(found.values) == ["inception-score within classes", "inception-score of 0", "inception-score of 1"]


def test_float32() -> None:
    images = REAL[0].astype(np.float32), REAL[1].astype(np.int32)
    values = result(IntraClass(metric=PrecisionRecall(k=1)), images, images).values
    assert values == {"precision within classes": 1, **{f"precision of {c}": 1 for c in range(3)}}
    one = images[0][images[1] == 1]
    assert precision_recall(one, one, k=1)["precision"] == 1


CLASSES = np.zeros(3, dtype=np.int64)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        ((np.zeros((3, 2)), None), REAL, "real images have no labels; give a data set with classes"),
        (REAL, (np.zeros((3, 2)), None), "generated images have no labels; train conditionally, or give"),
        (
            (np.zeros((3, 2)), np.zeros((3, 2), dtype=np.float32)), REAL,
            r"real images are float32 of the shape \(3, 2\); train on classes",
        ),
        ((np.zeros((3, 2)), np.zeros(3)), REAL, "float64"),
        ((np.zeros((2, 2)), np.array([0, -1])), REAL, "label -1; classes are numbered from 0"),
        ((None, CLASSES), (np.zeros((3, 2)), CLASSES), "0: the real images have no features"),
        (
            (np.full((3, 2), np.nan), CLASSES), (np.zeros((3, 2)), CLASSES),
            "0: features of the real images have values that are NaN",
        ),
        ((np.zeros((3, 2)), CLASSES[:2]), REAL, "one row per image, but there are 3 features, 2 labels"),
    ],
)  # fmt: skip
def test_refused(real: tuple[Any, Any], fake: tuple[Any, Any], message: str) -> None:
    with pytest.raises(GankitError, match=message):
        result(IntraClass(), real, fake)


def test_labels_without_a_class_name_are_refused() -> None:
    real = rows((np.zeros((2, 2)), np.array([0, 1])))
    with pytest.raises(GankitError, match="generated images have the label 2 and 2 class names, for 0 to 1"):
        IntraClass().compute(real, rows((np.zeros((2, 2)), np.array([0, 2])), ("a", "b")))
