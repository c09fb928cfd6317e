"""Values with their context: standard error, real against real, protocol, comparison, the report page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gankit
from gankit.errors import GankitError, PartError
from gankit.evaluation.tables import text_table, title, with_error
from gankit.evaluation.uncertainty import influences, variances_of
from gankit.interfaces import Features, Metric, Pool, Resampling, Result, Rows
from gankit.report import write_report

Small = Callable[..., list[str]]


@gankit.metrics.register("mean-gap")
class MeanGap(Metric):
    """Difference of the means of the first feature: its standard error is known in closed form."""

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        assert real.logits is None
        means = [float(rows.required("features")[:, 0].mean(dtype=np.float64)) for rows in (fake, real)]
        return {"mean-gap": means[0] - means[1]}


def noise(n: int, seed: int, shift: float = 0, size: int = 8) -> np.ndarray:
    draw = np.random.default_rng(seed).normal(120 + shift, 20, (n, 1, size, size))
    return np.clip(np.rint(draw), 0, 255).astype(np.uint8)


def evaluate(fake: Any, real: Any, metrics: Any = ("frechet",), features: Any = "pixels", **more: Any) -> Any:
    return gankit.evaluate(fake, real, metrics, features, **more)


def variance(features: np.ndarray, groups: np.ndarray | None = None) -> float:
    """The jackknife's variance of the mean of the first feature of generated images."""
    pool = Pool(Rows(features=np.zeros((3, 1))), Rows(features=features, groups=groups))
    resampling = Resampling(MeanGap(), pool)
    found = variances_of(influences(resampling, "fake", {"mean-gap": float(features.mean())}))["mean-gap"]
    assert found is not None
    return found


@pytest.mark.parametrize("returned", [0.5, None, [0.5], {}, {"wrong": np.ones(3)}, {"wrong": "high"}, torch.ones(2)])
def test_a_metric_that_returns_no_numbers_by_name_is_refused_in_one_line(returned: Any) -> None:
    class Wrong(Metric):
        needs = ("images",)
        better = "lower"

        def compute(self, real: Rows, fake: Rows) -> Any:
            return returned

    gankit.metrics.register("wrong")(Wrong)
    with pytest.raises(PartError, match=r"metric Wrong: compute returned .* return numbers by name, such as \{"):
        evaluate(noise(12, 0), noise(12, 1), ["wrong"])


def test_details_that_no_file_can_hold_are_refused_in_one_line() -> None:
    class Wrong(Metric):
        def compute(self, real: Rows, fake: Rows) -> Result:
            return Result({"wrong": 1.0}, details={"step": np.int64(3)})

    gankit.metrics.register("wrong")(Wrong)
    with pytest.raises(PartError, match=r"metric Wrong: its details cannot be stored .*int64"):
        evaluate(noise(12, 0), noise(12, 1), ["wrong"])


def test_features_that_are_no_tensor_are_refused_in_one_line() -> None:
    class Wrong(Features):
        dim = 4

        def forward(self, images: torch.Tensor) -> Any:
            return images, images

    with pytest.raises(PartError, match=r"features Wrong, called with .*, returned a tuple of .*; it must return one"):
        evaluate(noise(12, 0), noise(12, 1), features=Wrong())


def test_one_metric_needs_no_list() -> None:
    for metric in ("kid", {"name": "kid"}):
        assert list(evaluate(noise(8, 0), noise(8, 1), metric)["metrics"]) == ["kid"]


def test_an_error_inside_a_metric_names_it() -> None:
    class Wrong(Metric):
        needs = ("images",)

        def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
            raise ZeroDivisionError("division by zero")

    gankit.metrics.register("wrong")(Wrong)
    with pytest.raises(PartError, match=r"^metric Wrong raised ZeroDivisionError: division by zero$"):
        evaluate(noise(12, 0), noise(12, 1), ["wrong"])


def test_a_permutation_test_that_cannot_be_made_is_said() -> None:
    report = evaluate(noise(30, 0), noise(30, 1), ["variance-ratio"], permutations=20)
    assert "p_value" not in report["metrics"]["variance-ratio"]
    assert any(warning.startswith("no p-values: of these metrics") for warning in report["protocol"]["warnings"])


def test_the_jackknife_is_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=(150, 1))
    assert variance(values) == pytest.approx(values.var(ddof=1) / 150)
    many = np.random.default_rng(1).normal(size=(5000, 1))
    assert variance(many) == pytest.approx(many.var(ddof=1) / 5000, rel=0.6)  # 50 groups: a chi-square of 49 degrees


def test_the_jackknife_leaves_out_whole_groups() -> None:
    """Copies of an image within a group add no information: the error is that of the group means."""
    means = np.random.default_rng(0).normal(size=40)
    found = variance(np.repeat(means, 5)[:, None], np.repeat(np.arange(40), 5))
    assert found == pytest.approx(means.var(ddof=1) / 40)


def test_values_of_a_metric_in_closed_form() -> None:
    fake, real = noise(120, 0, shift=10, size=1), noise(90, 1, size=1)
    report = evaluate(fake, real, ["mean-gap"], {"name": "pixels", "side": 1})
    entry = report["metrics"]["mean-gap"]
    means = [images.astype(float).mean((1, 2, 3)) / 255 for images in (fake, real)]
    assert entry["value"] == pytest.approx(means[0].mean() - means[1].mean(), abs=1e-6)
    error = np.sqrt(means[0].var(ddof=1) / 120 + means[1].var(ddof=1) / 90)
    assert entry["standard_error"] == pytest.approx(error, rel=1e-4)
    assert (entry["n_fake"], entry["n_real"]) == (120, 90)
    beside = entry["real_vs_real"]
    assert beside["n"] == 45
    assert abs(beside["value"]) < 4 * error
    assert beside["fake_value_at_n"] == pytest.approx(entry["value"], abs=4 * error)


def test_real_against_real_is_disjoint_and_at_equal_n() -> None:
    """Of images that are all different, two disjoint halves share none: their distance is not zero."""
    seen: list[tuple[set[float], set[float]]] = []

    @gankit.metrics.register("spy-metric")
    class Spy(Metric):
        def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
            assert real.ids is not None
            one, other = (set(rows.required("features")[:, 0].tolist()) for rows in (real, fake))
            seen.append((one, other))
            return {"spy-metric": 0.0}

    real = np.arange(41, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 4, 4), np.uint8)
    fake = 100 + np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 4, 4), np.uint8)
    report = evaluate(fake, real, ["spy-metric"], {"name": "pixels", "side": 1})
    assert report["metrics"]["spy-metric"]["real_vs_real"]["n"] == 20
    divisions = list(zip(seen[-20:-10], seen[-10:], strict=True))
    for (reference, others), (same_reference, fakes) in divisions:
        assert len(reference) == len(others) == len(fakes) == 20
        assert not reference & others
        assert reference == same_reference
        assert min(fakes) > 0.39
    assert len({tuple(sorted(reference)) for (reference, _), _ in divisions}) == 10


def test_the_part_of_the_reals_that_plays_the_generator_has_one_image_of_each_of_its_own_groups() -> None:
    """Patients whose images are copies: parts that shared patients would show a distance that is too small.

    And a generator's images have nothing in common: the part in their place has one image of a patient.
    """
    shared: list[int] = []

    @gankit.metrics.register("group-spy")
    class Spy(Metric):
        needs = ("groups",)

        def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
            if real.groups is not None and fake.groups is not None:
                shared.append(len(set(real.groups.tolist()) & set(fake.groups.tolist())))
                assert len(set(fake.groups.tolist())) == fake.count == 5
                assert real.count == 20
            return {"group-spy": 0.0}

    real = gankit.wrap("dataset", noise(41, 0), groups=np.arange(41) // 4)
    report = evaluate(noise(30, 1), real, ["group-spy"])
    assert report["metrics"]["group-spy"]["real_vs_real"]["n"] == 5  # of 11 patients, one is in the first half in part
    assert shared == [0] * 10
    assert "; the side that stands for a generator has 5 images, one of each group\n" in repr(report)
    assert "each" not in repr(report).partition("fake-real: ")[2].partition("\n")[0]  # the other half has 20
    grouped = gankit.wrap("dataset", noise(30, 1), groups=np.arange(30) // 3)
    assert "stands for a generator has 10 images\n" in repr(evaluate(grouped, noise(41, 0), ["group-spy"]))
    entry = report["metrics"]["group-spy"]
    report["metrics"]["other"] = {**entry, "real_vs_real": {**entry["real_vs_real"], "n": 4}}
    shown = repr(report)
    assert '; the side that stands for a generator has the images of the column "at n", one of each group\n' in shown
    assert "  at n" in shown.splitlines()[2]


def test_a_standard_error_that_cannot_be_told_is_none() -> None:
    one_patient = gankit.wrap("dataset", noise(20, 0), groups=np.zeros(20, int))
    few = {"name": "pixels", "side": 1}
    for fake, real in ((noise(20, 1), one_patient), (noise(2, 1), noise(20, 0))):
        report = evaluate(fake, real, features=few)
        assert report["metrics"]["frechet"]["standard_error"] is None
        assert "+-" not in text_table(report)
        assert gankit.compare(report, report)["frechet"]["standard_error"] is None


def test_few_images_are_warned_of_and_too_few_refused() -> None:
    report = evaluate(noise(20, 0), noise(30, 1), features="pixels")
    assert "20 images in 64 dimensions" in report["protocol"]["warnings"][0]
    assert "warning: 20 images" in text_table(report)
    assert "FD (pixels) " in text_table(report)
    enough = evaluate(noise(80, 0), noise(80, 1), features="pixels")
    assert enough["protocol"]["warnings"] == []
    with pytest.raises(GankitError, match="real: 1 image; at least 2"):
        evaluate(noise(5, 0), noise(1, 1))
    small = evaluate(noise(5, 0), noise(3, 1), features={"name": "pixels", "side": 1})
    assert small["metrics"]["frechet"]["real_vs_real"] is None


def test_the_distance_tells_sets_apart_and_does_not_depend_on_order() -> None:
    real, same, other = noise(80, 0), noise(80, 1), noise(80, 2, shift=30)
    values = [evaluate(fake, real)["metrics"]["frechet"]["value"] for fake in (real, same, other, other[::-1])]
    assert values[0] == 0
    assert values[1] < values[2] / 3
    assert values[2] == pytest.approx(values[3], rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluate(noise(5, 0).astype(np.float32), noise(5, 1)), "fake images: images are float32, and"),
        (lambda: evaluate(noise(5, 0), noise(5, 1).astype(np.uint16)), "real images: images are uint16, and"),
        (lambda: evaluate(noise(5, 0)[:, 0], noise(5, 1)), r"\(n, channels, height, width\) is needed"),
        (
            lambda: evaluate(np.repeat(noise(5, 0), 3, 1), noise(5, 1)),
            "pixels features are for 1 channels here, .* read both sets as grey or both as colour",
        ),
        (lambda: evaluate(noise(5, 0), noise(5, 1), ["frechett"]), "did you mean 'frechet'"),
        (lambda: evaluate(noise(5, 0), noise(5, 1), []), "metrics: name at least one"),
        (lambda: evaluate(noise(5, 0), noise(5, 1), [{"name": "frechet", "x": 1}]), "x"),
        (lambda: evaluate(noise(5, 0), noise(5, 1), [{}]), "needs a name"),
        (lambda: evaluate("nowhere.npz", noise(5, 1)), r"nowhere\.npz"),
        (lambda: evaluate(noise(5, 0, size=0), noise(5, 1)), r"shape \(5, 1, 0, 0\); \(n, channels"),
        (lambda: evaluate(noise(5, 0), noise(5, 1), pictures=__file__), r"pictures: .*\.py is a file; name a folder"),
        (lambda: gankit.compare("nowhere.json", "nowhere.json"), "is not a metrics file"),
        (lambda: gankit.compare({}, {}), "only evaluations can be compared: give what gankit.evaluate returned"),
        (lambda: evaluate(noise(5, 0), noise(5, 1), features=""), "there are no features named ''"),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(GankitError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_sixteen_bits_are_scaled_by_their_range() -> None:
    narrow = noise(80, 0)
    wide = gankit.wrap("dataset", narrow.astype(np.uint16) * 16, value_range=(0, 4080))
    report = evaluate(wide, narrow)
    assert report["metrics"]["frechet"]["value"] == pytest.approx(0, abs=1e-9)


def test_compare_wants_equal_protocols() -> None:
    real = noise(60, 0)
    a, b = (evaluate(noise(60, seed, shift=seed), real) for seed in (1, 9))
    compared = gankit.compare(a, b)["frechet"]
    assert compared["difference"] == b["metrics"]["frechet"]["value"] - a["metrics"]["frechet"]["value"]
    assert compared["difference"] > compared["standard_error"] > 0
    fewer = evaluate(noise(50, 9), real)
    with pytest.raises(GankitError, match="n_fake: 60 and 50"):
        gankit.compare(a, fewer)
    assert "frechet" in gankit.compare(a, fewer, force=True)


def test_a_run_beside_its_own_data_and_its_report(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("data.held_out=0.25")), tmp_path / "run<b>")
    report = evaluate(run, run, count=12)
    assert report["protocol"]["real"] == "held-out images"
    assert report["protocol"]["n_real"] == 8 + 4 * (report["protocol"]["n_real"] == 12)  # whole groups of four
    assert evaluate(str(run.path), run, count=12) == report
    (attack,) = report["protocol"]["membership"].values()  # by no other: these metrics need no features of training
    assert attack["by"] == "critic score"
    assert 0 <= attack["low"] <= attack["area"] <= attack["high"] <= 1
    page = write_report(run).read_text()
    assert "gankit evaluate" in page
    (run.path / "metrics.json").write_text(json.dumps(report))
    page = write_report(run).read_text()
    assert "FD (pixels)" in page
    entry = report["metrics"]["frechet"]
    assert with_error(entry["value"], entry["standard_error"]) in page
    assert page.count("data:image/png;base64,") == 5  # real images, samples, the nearest ones, two curves
    assert "<b>" not in page  # names are escaped
    assert "http" not in page.replace("http-equiv", "")  # self-contained
    everything = gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "all")
    assert "the reference is the training images" in evaluate(everything, everything)["protocol"]["warnings"][-1]
    images = gankit.wrap("dataset", np.zeros((20, 3, 8, 8), np.uint8))
    other = gankit.train(gankit.load("wgan-gp", *small("training.steps=1")), tmp_path / "other", data=images)
    warnings = evaluate(other, everything)["protocol"]["warnings"]  # those of another generator
    assert not any("the reference is the training images" in warning for warning in warnings)


def test_a_stranger_s_extractor() -> None:
    def brightness(images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.float32
        assert images.min() >= 0
        assert images.max() <= 255
        return images.mean((2, 3))

    report = evaluate(noise(20, 0), noise(20, 1, 50), ["mean-gap"], gankit.wrap("features", brightness, dim=1))
    assert report["metrics"]["mean-gap"]["value"] == pytest.approx(-50, abs=3)


def test_the_default_is_a_whole_report() -> None:
    report = gankit.evaluate(noise(40, 0, 3), noise(50, 1), features="pixels")
    names = ["frechet", "kid", "precision", "recall", "density", "coverage", "variance-ratio", "memorisation"]
    assert list(report["metrics"])[:8] == names
    for entry in report["metrics"].values():
        assert {"value", "standard_error", "n_real", "n_fake", "real_vs_real", "metric"} <= set(entry)
    assert report["metrics"]["precision"]["details"] == {"k": 4}
    assert report["metrics"]["kid"]["metric"]["name"] == "kid"
    lines = text_table(report).splitlines()
    assert len({len(line) for line in lines[2 : 3 + len(report["metrics"])]}) == 1  # columns stand below each other
    json.dumps(report)  # plain numbers only


def test_titles_keep_the_name_fid_for_inception() -> None:
    assert title("frechet", "inception-v3") == "FID"
    assert title("frechet", "efficientnet-lite0") == "FD (efficientnet-lite0)"
    assert title("frechet-infinity", "inception-v3") == "FID at infinity"
    assert title("frechet of wbc", "pixels") == "FD of wbc (pixels)"
    assert title("kid", "inception-v3") == "KID (inception-v3)"
    assert title("precision", "pixels") == "precision (pixels)"
    assert title("leakage", "") == "leakage"


def test_training_images_are_told_from_held_out_ones(tmp_path: Path) -> None:
    """A copycat of images that the reference does not hold: seen only where the training images are given."""
    training, held_out, new = noise(60, 0), noise(60, 1), noise(60, 2)
    alone = evaluate(training[:30], held_out, ["memorisation"])["metrics"]
    assert alone["near-copies"]["value"] < 0.2
    given = evaluate(training[:30], held_out, ["memorisation"], training=training, pictures=tmp_path)
    assert given["metrics"]["near-copies"]["value"] == 1
    assert given["metrics"]["memorisation"]["value"] == 1
    assert (given["protocol"]["training"], given["protocol"]["n_training"]) == ("training", 60)
    assert any("near copies" in warning for warning in given["protocol"]["warnings"])
    pairs = given["metrics"]["memorisation"]["details"]["pairs"]
    assert len(pairs) == 8
    assert all(pair["fake"] == pair["real"] and pair["distance"] == 0 for pair in pairs)
    with Image.open(tmp_path / "memorisation-pairs.png") as picture:
        shown = np.asarray(picture)
    assert shown.shape[0] < shown.shape[1] / 3
    cell = 9 * 16  # eight pixels and a line, enlarged 16 times
    np.testing.assert_array_equal(shown[:cell], shown[cell : 2 * cell])  # copies: both rows are equal
    fine = evaluate(new, held_out, ["memorisation"], training=training)
    assert fine["metrics"]["near-copies"]["value"] < 0.2


def test_pairs_of_unlike_sizes_and_colours_are_shown(tmp_path: Path) -> None:
    evaluate(noise(20, 0, size=8), noise(20, 1, size=16), ["memorisation"], pictures=tmp_path)
    assert (tmp_path / "memorisation-pairs.png").is_file()


def test_a_run_s_own_training_images_serve_beside_another_reference(small: Small, tmp_path: Path, arrays: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("training.steps=1", "data.held_out=0.25")), tmp_path / "run")
    other = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    protocol = evaluate(run, other, ["memorisation"])["protocol"]
    assert protocol["training"] == "training images"
    assert protocol["n_training"] in (28, 32)
    assert "training" not in evaluate(run, other)["protocol"]  # frechet asks for none
    with np.load(arrays) as whole:
        one_less = {name: whole[name][:-1] for name in whole}
    np.savez(arrays, **one_less)  # of which other images would be held out, some that the generator has seen
    with pytest.raises(GankitError, match=r"data are not those .* \((images|held_out|label_counts) was .*; put them"):
        evaluate(run, run)


def test_the_seed_decides_everything() -> None:
    fake, real = noise(250, 0), noise(260, 1)
    first, again, other = (evaluate(fake, real, ["frechet"], permutations=19, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["metrics"]["frechet"]["value"] == other["metrics"]["frechet"]["value"]
    assert first["metrics"]["frechet"]["real_vs_real"] != other["metrics"]["frechet"]["real_vs_real"]


def test_compare_knows_the_reals_and_the_settings() -> None:
    fake = noise(60, 2)
    a, b = (evaluate(fake, noise(60, seed)) for seed in (0, 1))
    with pytest.raises(GankitError, match="real_content"):
        gankit.compare(a, b)
    real = noise(60, 0)
    c, d = (evaluate(fake, real, [{"name": "precision-recall", "k": k}]) for k in (2, 3))
    with pytest.raises(GankitError, match=r"precision\.metric"):
        gankit.compare(c, d)
    newer = json.loads(json.dumps(a))
    newer["protocol"]["features_protocol"]["versions"] = "torch 99"
    assert gankit.compare(a, newer)["frechet"]["difference"] == 0


@pytest.mark.parametrize("metrics", [5, gankit.metrics.get("kid")(), [5]])
def test_a_metric_that_is_no_name_table_or_part_is_refused(metrics: Any) -> None:
    with pytest.raises(PartError, match="metric: a name, or a table with a name, is needed"):
        gankit.evaluate(noise(4, 0), noise(4, 1), metrics, "pixels")
