from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gankit import Batch, GankitError, build
from gankit.interfaces import Metric, Pool, Resampling, Rows
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.inception_score import InceptionScore
from gankit.metrics.intra_class import IntraClass
from gankit.metrics.kid import Kid, kernel_distance
from gankit.metrics.precision_recall import PrecisionRecall, precision_recall
from gankit.metrics.variance_ratio import VarianceRatio

Array = NDArray[Any]


def side(counts: list[int], d: int = 4, seed: int = 0, scale: float = 1.0) -> tuple[Array, Array]:
    """Features and labels, so many of each class, mixed."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
    return random.normal(size=(len(labels), d)) * scale + labels[:, None] ** 2, labels


def batches(features: Array, labels: Array, real: bool, size: int = 10**9, **more: Any) -> list[Batch]:
    return [
        Batch(real=real, features=features[i : i + size], labels=labels[i : i + size], **more)
        for i in range(0, len(labels), size)
    ]


def filled(metric: Metric, real: tuple[Array, Array], fake: tuple[Array, Array], size: int = 10**9) -> Metric:
    for batch in [*batches(*real, True, size), *batches(*fake, False, size)]:
        metric.update(batch)
    return metric


def pool(real: tuple[Array, Array], fake: tuple[Array, Array], **names: Any) -> Pool:
    rows = [Rows({"features": f, "labels": labels}, len(labels), **names) for f, labels in (real, fake)]
    return Pool(rows[0], rows[1])


REAL, FAKE = side([20, 12, 9], seed=1), side([14, 15, 8], seed=2, scale=1.2)


def test_each_class_by_itself() -> None:
    values = filled(IntraClass(), REAL, FAKE).compute()
    own = [frechet_distance(REAL[0][REAL[1] == c], FAKE[0][FAKE[1] == c]) for c in range(3)]
    expected = {"frechet within classes": np.mean(own)} | {f"frechet of {c}": own[c] for c in range(3)}
    assert list(values) == list(expected)
    assert values == pytest.approx(expected, rel=1e-12)


def test_a_generator_that_ignores_its_labels_is_found_out() -> None:
    features, labels = side([40, 40], seed=3)
    ignoring = side([40, 40], seed=4)[0], labels
    shuffled = ignoring[0], np.random.default_rng(0).permutation(labels)
    right = filled(IntraClass(metric=Kid()), (features, labels), side([40, 40], seed=4)).compute()
    wrong = filled(IntraClass(metric=Kid()), (features, labels), shuffled).compute()
    assert wrong["kid within classes"] > right["kid within classes"] + 0.1
    assert kernel_distance(features, ignoring[0])[0] < 0.1


def test_the_mean_is_not_weighted_by_numbers() -> None:
    real, fake = side([200, 10], seed=5), side([200, 10], seed=6)
    fake[0][fake[1] == 1] += 5
    values = filled(IntraClass(), real, fake).compute()
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
        values = filled(metric, REAL, FAKE).compute()
        assert list(values) == [f"{name} within classes", *(f"{name} of {c}" for c in range(3))]


def test_settings_and_defaults() -> None:
    assert type(build("metric", "intra-class").metric).__name__ == "Frechet"
    assert type(IntraClass().metric).__name__ == "Frechet"
    nested = build("metric", "intra-class", metric={"name": "precision-recall", "k": 2})
    assert nested.metric.k == 2
    assert build("metric", "intra-class", metric="inception-score").needs == ("logits", "labels")
    with pytest.raises(GankitError, match="there is no metric named 'kidd'"):
        build("metric", "intra-class", metric="kidd")
    filled(nested, REAL, FAKE).compute()
    assert nested.details() == {"classes": {"0": {"k": 2}, "1": {"k": 2}, "2": {"k": 2}}}


def test_classes_have_their_names_and_numbers() -> None:
    names = ("red eye", "white", "yellow")
    metric = IntraClass(metric=PrecisionRecall(k=1))
    for batch in [*batches(*REAL, True, class_names=names), *batches(*FAKE, False)]:
        metric.update(batch)
    values = metric.compute()
    assert list(values) == ["precision within classes", *(f"precision of {name}" for name in names)]
    # Precision brings both sides to equal numbers.
    assert metric.counts() == {
        "precision within classes": (34, 34), "precision of red eye": (14, 14), "precision of white": (12, 12),
        "precision of yellow": (8, 8),
    }  # fmt: skip
    metric = filled(IntraClass(metric=Kid()), REAL, FAKE)
    metric.compute()
    assert metric.counts() == {
        "kid within classes": (41, 37), "kid of 0": (20, 14), "kid of 1": (12, 15), "kid of 2": (9, 8)
    }  # fmt: skip
    assert metric.details() == {}


def test_classes_are_matched_by_name() -> None:
    # A folder of generated images without the first class numbers the others from 0.
    expected = filled(IntraClass(metric=Kid()), REAL, FAKE).compute()
    metric = IntraClass(metric=Kid())
    kept = FAKE[1] > 0
    for batch in [
        *batches(FAKE[0][kept], FAKE[1][kept] - 1, False, class_names=("b", "c")),
        *batches(*REAL, True, class_names=("a", "b", "c")),
    ]:
        metric.update(batch)
    values = metric.compute()
    assert list(values) == ["kid within classes", "kid of b", "kid of c"]
    assert values["kid of b"] == expected["kid of 1"]
    assert values["kid of c"] == expected["kid of 2"]
    (caution,) = metric.cautions({})
    assert "class a is left out of the mean (20 real and 0 generated images): it has no generated images" in caution
    metric.update(Batch(real=False, features=FAKE[0], labels=FAKE[1]))
    with pytest.raises(GankitError, match="label 0 has no class name, and the names that others have differ"):
        metric.compute()


def test_numbers_and_names_of_one_side_are_joined() -> None:
    names = ("a", "b", "c")
    metric = IntraClass(metric=Kid())
    for batch in [
        *batches(REAL[0][:9], REAL[1][:9], True),
        *batches(REAL[0][9:], REAL[1][9:], True, class_names=names),
        *batches(*FAKE, False),
    ]:
        metric.update(batch)
    expected = filled(IntraClass(metric=Kid()), REAL, FAKE).compute()
    for _ in range(2):
        assert list(metric.compute().values()) == pytest.approx(list(expected.values()), rel=1e-12)
    assert metric.counts()["kid of a"] == (20, 14)
    metric.update(Batch(real=False, features=np.zeros((1, 4)), labels=np.array([3])))
    with pytest.raises(GankitError, match="label 3 and only 3 class names"):
        metric.compute()


def test_classes_that_cannot_be_judged_are_named() -> None:
    real, fake = side([20, 12, 0, 1, 8], seed=1), side([9, 0, 7, 6, 2], seed=2)
    metric = filled(IntraClass(metric=PrecisionRecall(k=1)), real, fake)
    values = metric.compute()
    assert list(values) == ["precision within classes", "precision of 0"]
    told = metric.cautions({})
    assert [f"class {c} is left out of the mean" in text for c, text in zip((1, 2, 3, 4), told, strict=True)] == [
        True
    ] * 4
    assert "(12 real and 0 generated images): it has no generated images" in told[0]
    assert "(0 real and 7 generated images): it has no real images" in told[1]
    assert "(1 real and 6 generated images): features of the real images: 1 rows; at least 3" in told[2]
    assert "at least 3" in told[3]
    assert metric.counts()["precision within classes"] == (9, 9)
    with pytest.raises(GankitError, match=r"no class has enough images on both sides .*1: it has no generated"):
        filled(IntraClass(), side([0, 5]), side([5, 0])).compute()
    with pytest.raises(GankitError, match="no class has enough images"):
        IntraClass().compute()


def test_cautions_of_the_metric_are_passed_on() -> None:
    metric = filled(IntraClass(metric=PrecisionRecall(k=1)), REAL, FAKE)
    metric.compute()
    told = metric.cautions({"precision of 1": 0.99, "precision of 0": 0.5, "precision within classes": 0.99})
    assert len(told) == 1
    assert told[0].startswith("class 1: precision between real images is 0.99 already")


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(2, 8), min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1), size=st.integers(1, 9)
)
def test_order_and_batches_change_nothing(counts: list[int], seed: int, size: int) -> None:
    real, fake = side(counts, seed=seed), side(counts[::-1], seed=seed + 1)
    whole = filled(IntraClass(metric=Kid()), real, fake).compute()
    random = np.random.default_rng(seed)
    orders = [random.permutation(len(labels)) for labels in (real[1], fake[1])]
    mixed = [(each[0][order], each[1][order]) for each, order in zip((real, fake), orders, strict=True)]
    kernel = (1 + max(np.square(real[0]).sum(1).max(), np.square(fake[0]).sum(1).max()) / 4) ** 3
    values = filled(IntraClass(metric=Kid()), mixed[0], mixed[1], size).compute()
    assert list(values) == list(whole)
    assert values == pytest.approx(whole, abs=1e-12 * kernel)


def test_merged_is_whole_and_reset_forgets() -> None:
    def halves(of: tuple[Array, Array], cut: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        return (of[0][:cut], of[1][:cut]), (of[0][cut:], of[1][cut:])

    whole = filled(IntraClass(metric=VarianceRatio()), REAL, FAKE).compute()
    (real_a, real_b), (fake_a, fake_b) = halves(REAL, 25), halves(FAKE, 4)
    first = filled(IntraClass(metric=VarianceRatio()), real_a, fake_a)
    second = filled(IntraClass(metric=VarianceRatio()), real_b, fake_b)
    alone = second.compute()
    first.merge(second)
    assert first.compute() == pytest.approx(whole, rel=1e-12)
    first.merge(filled(IntraClass(metric=VarianceRatio()), REAL, FAKE))
    assert second.compute() == alone
    first.reset()
    empty = IntraClass(metric=VarianceRatio())
    empty.merge(second)
    empty.merge(filled(IntraClass(metric=VarianceRatio()), real_a, fake_a))
    assert second.compute() == alone
    first.merge(empty)
    assert first.compute() == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("inner", ["frechet", "kid", "precision-recall", "variance-ratio"])
def test_resampling_equals_a_fresh_metric(inner: str) -> None:
    everything = pool(REAL, FAKE)
    metric = build("metric", "intra-class", metric=inner)
    shared, plain = metric.resampling(everything), Resampling(metric, everything)
    assert type(shared) is not Resampling
    assert list(shared.values(everything.reals, everything.fakes)) == list(metric_values(metric, REAL, FAKE))
    random = np.random.default_rng(0)
    for n, m in ((30, 40), (25, 20)):
        order = random.permutation(78)
        found, expected = (each.values(order[:n], order[-m:]) for each in (shared, plain))
        assert found == pytest.approx(expected, rel=1e-7, abs=1e-11)
    patients = np.arange(41) // 5
    parts = [everything.reals[patients == patient] for patient in range(9)] + list(everything.fakes[:, None])
    # The Frechet distance's shared leave-outs are accurate to some 1e-8 of what they change.
    for found, expected in zip(shared.left_out(parts), plain.left_out(parts), strict=True):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-11)


def metric_values(metric: Metric, real: tuple[Array, Array], fake: tuple[Array, Array]) -> dict[str, float]:
    metric.reset()
    values = filled(metric, real, fake).compute()
    metric.reset()
    return values


def test_leave_outs_that_empty_a_class_give_no_mean() -> None:
    # The mean over fewer classes is another quantity.
    real, fake = side([10, 3], seed=1), side([10, 5], seed=2)
    everything = pool(real, fake)
    for inner in (Kid(), PrecisionRecall(k=1)):
        name = "kid" if isinstance(inner, Kid) else "precision"
        shared = IntraClass(metric=inner).resampling(everything)
        rare, common = np.flatnonzero(real[1] == 1), np.flatnonzero(real[1] == 0)
        left = shared.left_out([rare[:2], rare, common[:2], rare[:1]])
        assert list(left[0]) == list(left[1]) == [f"{name} of 0"]
        assert list(left[2]) == [f"{name} within classes", f"{name} of 0", f"{name} of 1"]
        assert (f"{name} of 1" in left[3]) == (name == "kid")
    with pytest.raises(GankitError, match="no class has enough"):
        shared.left_out([np.arange(13)])


def test_resampling_with_classes_that_one_side_lacks() -> None:
    real, fake = side([9, 0, 6, 1], seed=1), side([8, 7, 0, 4], seed=2)
    everything = pool(real, fake)
    for inner in ("frechet", "kid", "precision-recall", "variance-ratio"):
        metric = build("metric", "intra-class", metric=inner)
        shared, plain = metric.resampling(everything), Resampling(metric, everything)
        assert len(shared.values(everything.reals, everything.fakes)) == 2
        random = np.random.default_rng(1)
        for _ in range(3):
            order = random.permutation(35)
            expected = plain.values(order[:20], order[20:])
            assert shared.values(order[:20], order[20:]) == pytest.approx(expected, rel=1e-7, abs=1e-11)
        for found, whole in zip(
            shared.left_out([everything.reals[:3]]), plain.left_out([everything.reals[:3]]), strict=True
        ):
            assert found == pytest.approx(whole, rel=1e-6)


def test_resampling_matches_names_and_needs_labels() -> None:
    kept = FAKE[1] > 0
    real = Rows({"features": REAL[0], "labels": REAL[1]}, 41, class_names=("a", "b", "c"))
    fake = Rows({"features": FAKE[0][kept], "labels": FAKE[1][kept] - 1}, int(kept.sum()), class_names=("b", "c"))
    everything = Pool(real, fake)
    metric = IntraClass(metric=Kid())
    found = metric.resampling(everything).values(everything.reals, everything.fakes)
    expected = Resampling(metric, everything).values(everything.reals, everything.fakes)
    assert found == pytest.approx(expected, rel=1e-9)
    assert list(found) == ["kid within classes", "kid of b", "kid of c"]
    with pytest.raises(GankitError, match="the generated images have no labels"):
        metric.resampling(Pool(real, Rows({"features": FAKE[0]}, 37)))


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

    def __init__(self) -> None:
        self.add_state("seen", lambda: [[], [], []], lambda a, b: [x + y for x, y in zip(a, b, strict=True)])

    def update(self, batch: Batch) -> None:
        which = 2 if batch.training else int(batch.real)
        self.seen[which].extend(self.wanted(batch, "features")[:, 0].tolist())

    def compute(self) -> dict[str, float]:
        fake, _, training = map(np.array, self.seen)
        if not len(training):
            raise GankitError("no training images")
        return {"nearest": float(np.abs(fake[:, None] - training).min(1).mean())}


def test_training_images_go_to_their_classes() -> None:
    training = side([6, 5, 7], seed=9)
    metric = IntraClass(metric=Nearest())
    assert metric.needs == ("features", "training", "labels")
    everything = pool(REAL, FAKE)
    everything = Pool(everything.real, everything.fake, Rows({"features": training[0], "labels": training[1]}, 18))
    found = metric.resampling(everything).values(everything.reals, everything.fakes)
    assert found == Resampling(metric, everything).values(everything.reals, everything.fakes)
    filled(metric, REAL, FAKE)
    metric.update(Batch(real=True, training=True, features=training[0], labels=training[1]))
    assert metric.compute() == found
    assert metric.counts()["nearest of 0"] == (20, 14)
    own = np.abs(FAKE[0][FAKE[1] == 2][:, :1] - training[0][training[1] == 2][:, 0]).min(1).mean()
    assert found["nearest of 2"] == pytest.approx(own)


def test_logits_by_class() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 3)) * 3
    labels = np.arange(20) % 2
    metric = IntraClass(metric=InceptionScore())
    metric.update(Batch(real=True, logits=logits, labels=labels))
    metric.update(Batch(real=False, logits=logits[::-1], labels=labels[::-1]))
    values = metric.compute()
    assert list(values) == ["inception-score within classes", "inception-score of 0", "inception-score of 1"]


def test_float32_and_memory_are_left_alone() -> None:
    features, labels = REAL[0].astype(np.float32), REAL[1].astype(np.int32)
    before = features.copy()
    metric = IntraClass(metric=PrecisionRecall(k=1))
    metric.update(Batch(real=True, features=features, labels=labels))
    features[:] = 0
    metric.update(Batch(real=False, features=before, labels=labels))
    assert metric.compute() == {"precision within classes": 1, **{f"precision of {c}": 1 for c in range(3)}}
    one = before[labels == 1]
    assert precision_recall(one, one, k=1)["precision"] == 1


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (Batch(real=True, features=np.zeros((3, 2))), "real images have no labels; give a data set with classes"),
        (Batch(real=False, features=np.zeros((3, 2))), "generated images have no labels; train conditionally, or give"),
        (
            Batch(real=True, features=np.zeros((3, 2)), labels=np.zeros((3, 2), dtype=np.float32)),
            r"real images are float32 of the shape \(3, 2\); train on classes",
        ),
        (Batch(real=True, features=np.zeros((3, 2)), labels=np.zeros(3)), "float64"),
        (
            Batch(real=True, features=np.zeros((2, 2)), labels=np.array([0, -1])),
            "label -1; classes are numbered from 0",
        ),
        (
            Batch(real=False, features=np.zeros((2, 2)), labels=np.array([0, 2]), class_names=("a", "b")),
            "generated images have the label 2 and 2 class names, for 0 to 1",
        ),
        (Batch(real=True, labels=np.zeros(3, dtype=np.int64)), "IntraClass needs features"),
        (
            Batch(real=True, features=np.full((3, 2), np.nan), labels=np.zeros(3, dtype=np.int64)),
            "features of the real images have values that are NaN",
        ),
        (
            Batch(real=True, features=np.zeros((3, 2)), labels=np.zeros(2, dtype=np.int64)),
            "real images have 2 labels for 3 images",
        ),
    ],
)
def test_refused(batch: Batch, message: str) -> None:
    with pytest.raises(GankitError, match=message):
        IntraClass().update(batch)
