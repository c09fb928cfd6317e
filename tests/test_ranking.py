"""Ranking: realism in closed form, scores by hand, ratings of people and their key, files and one-line refusals."""

from __future__ import annotations

import csv
import json
import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import gankit
from gankit.errors import DataError, GankitError, PartError, RunError
from gankit.evaluation.design import wilson
from gankit.ranking import Ranking, rank, realism_score, write_page, write_ranking
from gankit.ranking.key import Key, check_numbers, read_key
from gankit.ranking.ratings import krippendorff_alpha
from gankit.runs.networks import generate_batches

Rows = list[list[str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, gankit.Run]:
    """Trained for one step: without labels, on classes, on a float condition, and on classes with held-out images."""
    folder = tmp_path_factory.mktemp("runs")
    draw = np.random.default_rng(0)
    images = draw.integers(0, 60, (40, 3, 8, 8), dtype=np.uint8)
    labels = np.arange(40) % 2
    for image, label in zip(images, labels, strict=True):
        image[:, :, 4 * label : 4 * label + 4] += 150
    np.savez(folder / "d.npz", images=images, labels=labels, class_names=np.array(["left", "right"]),
             severity=draw.normal(5, 2, 40))  # fmt: skip
    small = ["data.name=npz", f"data.path={folder}/d.npz", "generator.width=4", "generator.latent_dim=6",
             "critic.width=4", "critic.flat_blocks=1", "training.steps=1", "training.batch=4",
             "training.generator_batch=4", "training.critic_steps=1", "evaluation.features=pixels"]  # fmt: skip
    made = {
        "plain": [], "classes": ["data.conditional=true"], "condition": ['data.conditional=["severity"]'],
        "held": ["data.conditional=true", "data.held_out=0.25"],
    }  # fmt: skip
    return {name: gankit.train(gankit.load("wgan-gp", *small, *more), folder / name) for name, more in made.items()}


@pytest.fixture
def copied_run(runs: dict[str, gankit.Run], tmp_path: Path) -> gankit.Run:
    """A run on classes in a folder of this test's own."""
    return gankit.open_run(shutil.copytree(runs["held"].path, tmp_path / "own"))


def column(values: list[float]) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.float64)[:, None]


# Realism


def test_realism_of_points_on_a_line_is_the_papers() -> None:
    # Radii to the third neighbour are 3, 2, 2, 2, 2, 2, 3: the median is 2, and the two ends are left out.
    scores = realism_score(column([0, 1, 2, 3, 4, 5, 6]), column([3.5, 8, -1, 4, 2.2]))
    np.testing.assert_allclose(scores, [4, 2 / 3, 1, math.inf, 10], rtol=1e-12)


def test_a_lonely_real_image_lends_nothing() -> None:
    # Radii 1 five times and 6: an image beside the lonely one is far from all others.
    reals = column([0, 1, 2, 3, 4, 10])
    np.testing.assert_allclose(
        realism_score(reals, column([10, 9, 2.5, -2]), k=1), [1 / 6, 1 / 5, 2, 1 / 2], rtol=1e-12
    )


def test_realism_beside_real_images_of_radius_0() -> None:
    # Four equal images have the radius 0; 6, 7 and 8 have 2; 5 and 9 have 3, above the median.
    reals = column([0, 0, 0, 0, 5, 6, 7, 8, 9])
    np.testing.assert_allclose(realism_score(reals, column([0, 1, 9, 7])), [math.inf, 0.4, 2, math.inf], rtol=1e-12)
    assert realism_score(column([1, 1, 1, 1, 1]), column([1, 2])).tolist() == [math.inf, 0]


@pytest.mark.parametrize("seed", range(4))
def test_realism_beside_a_loop(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gankit.metrics.precision_recall.CENTRES", 3)
    draw = np.random.default_rng(seed)
    reals, fakes, k = draw.normal(size=(31 + seed, 5)), draw.normal(size=(23, 5)), 1 + seed
    radii = [sorted(math.dist(a, b) for b in reals)[k] for a in reals]
    middle = float(np.median(radii))
    expected = [max(r / math.dist(f, a) for a, r in zip(reals, radii, strict=True) if r <= middle) for f in fakes]
    scores = realism_score(reals, fakes, k=k)
    np.testing.assert_allclose(scores, expected, rtol=1e-9)
    np.testing.assert_allclose(realism_score(reals * 8 + 3, fakes * 8 + 3, k=k), scores, rtol=1e-9)


def test_realism_refuses() -> None:
    with pytest.raises(GankitError, match="needs at least 5 real images, and there are 4"):
        realism_score(np.zeros((4, 2)), np.zeros((1, 2)))
    with pytest.raises(GankitError, match="k = 0"):
        realism_score(np.zeros((4, 2)), np.zeros((1, 2)), k=0)
    with pytest.raises(GankitError, match="differ in dimension"):
        realism_score(np.zeros((9, 2)), np.zeros((1, 3)))
    with pytest.raises(GankitError, match="NaN"):
        realism_score(np.full((9, 2), np.nan), np.zeros((1, 2)))


# The four ways


def test_critic_order_is_that_of_scores_by_hand(runs: dict[str, gankit.Run]) -> None:
    for name, label in (("plain", None), ("classes", None), ("classes", "right"), ("condition", "4.5")):
        run = runs[name]
        ranked = rank(run, 70, 5, seed=3, label=label)
        wanted: Any = [4.5] if label == "4.5" else label
        z, labels = run.draw(70, wanted, 3)
        floats = torch.cat(list(generate_batches(run.generator, z, labels)))
        there = None if labels is None else labels.to(run.device)
        scores = run.critic(floats.to(run.device), there).double().cpu()
        np.testing.assert_allclose(ranked.scores, scores.numpy(), rtol=1e-4, atol=1e-6)
        assert np.array_equal(ranked.order, np.argsort(-ranked.scores, kind="stable"))
        assert np.array_equal(ranked.best, ranked.order[:5])
        assert np.array_equal(ranked.worst, ranked.order[:-6:-1])
        assert ranked.scores[ranked.best[0]] == ranked.scores.max()
        assert ranked.scores[ranked.worst[0]] == ranked.scores.min()
        assert np.array_equal(ranked.images, run.sample(70, wanted, 3))
        assert ranked.notes == ()
    assert set(rank(runs["classes"], 12).labels) == {"left", "right"}
    assert rank(runs["plain"].path, 12).labels == ("",) * 12


class Odd(nn.Module):
    """A critic of one's own."""

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.score = score

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.score(images)


def with_critic(run: gankit.Run, score: Callable[[Tensor], Tensor]) -> gankit.Run:
    opened = gankit.open_run(run.path)
    opened.__dict__["critic"] = Odd(score)
    return opened


def test_score_maps_are_averaged_and_ties_go_by_number(runs: dict[str, gankit.Run]) -> None:
    ranked = rank(with_critic(runs["plain"], lambda x: x), 8, 2)
    floats = torch.cat(list(generate_batches(runs["plain"].generator, runs["plain"].draw(8)[0], None)))
    np.testing.assert_allclose(ranked.scores, floats.double().mean((1, 2, 3)), rtol=1e-5)
    equal = rank(with_critic(runs["plain"], lambda x: x.new_zeros(len(x))), 8, 2)
    assert equal.order.tolist() == list(range(8))


def test_a_critic_that_mixes_samples_is_told_of_and_nan_is_refused(runs: dict[str, gankit.Run]) -> None:
    mixed = rank(with_critic(runs["plain"], lambda x: x.mean((1, 2, 3)) - x.mean()), 8, 2)
    assert "depends on the other images of its batch" in mixed.notes[0]
    with pytest.raises(RunError, match="score of image 0 is not finite"):
        rank(with_critic(runs["plain"], lambda x: x.mean((1, 2, 3)) * math.nan), 8, 2)


def test_realism_is_beside_the_held_out_images(runs: dict[str, gankit.Run]) -> None:
    from gankit.evaluation.sources import run_data
    from gankit.features.pixels import Pixels

    for name, which in (("held", 1), ("classes", 0)):
        run = runs[name]
        reals = run_data(run)[which]
        assert reals is not None
        ranked = rank(run, 9, 3, "realism", seed=1)
        pixels = Pixels(run.image)
        rows = [pixels(torch.tensor(images).float()).numpy()
                for images in (reals.read(np.arange(len(reals))), run.sample(9, seed=1))]  # fmt: skip
        np.testing.assert_allclose(ranked.scores, realism_score(*rows), rtol=1e-5)
        assert ranked.notes[0] == f"reference: {len(reals)} {('training', 'held-out')[which]} images"
        assert len(ranked.notes) == 2 - which
    itself = rank(runs["held"], 9, 3, "realism", seed=1, real=runs["held"].sample(9, seed=1))
    assert np.isinf(itself.scores).sum() >= 4  # those whose radius is not above the median


def test_label_is_the_softmax_of_the_asked_class(runs: dict[str, gankit.Run], tmp_path: Path) -> None:
    class Sides(nn.Module):
        """How bright either half is."""

        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images[..., :4].mean((1, 2, 3)), images[..., 4:].mean((1, 2, 3))], 1) / 10

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        torch.jit.save(torch.jit.script(Sides()), tmp_path / "sides.pt")
    images = runs["classes"].sample(12, seed=2).astype(np.float64)
    halves = np.stack([images[..., :4].mean((1, 2, 3)), images[..., 4:].mean((1, 2, 3))], 1) / 10
    sure = np.exp(halves) / np.exp(halves).sum(1, keepdims=True)
    labels = runs["classes"].draw(12, None, 2)[1]
    assert labels is not None
    expected = sure[np.arange(12), labels.numpy()]

    class Swapped(Sides):
        class_names = ("right", "other", "left")

        def forward(self, images: Tensor) -> Tensor:
            left, right = super().forward(images).unbind(1)
            return torch.stack([right, torch.full_like(right, -1e9), left], 1)

    scripted = {"name": "torchscript", "path": str(tmp_path / "sides.pt")}
    for classifier in (Sides(), tmp_path / "sides.pt", str(tmp_path / "sides.pt"), scripted, Swapped()):
        ranked = rank(runs["classes"], 12, 3, "label", seed=2, classifier=classifier)  # type: ignore[arg-type]
        np.testing.assert_allclose(ranked.scores, expected, rtol=1e-5)
    plain = rank(runs["plain"], 12, 3, "label", label="right", classifier=Sides())
    assert plain.labels == ("right",) * 12
    assert np.array_equal(plain.images, runs["plain"].sample(12))


def test_features_with_a_class_head_classify(runs: dict[str, gankit.Run]) -> None:
    class Headed(gankit.Features):
        dim = 3

        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3))

        def logits(self, features: Tensor) -> Tensor:
            return features[:, :2] / 100

    ranked = rank(runs["classes"], 6, 2, "label", label="left", classifier=Headed())
    means = runs["classes"].sample(6, "left").mean((2, 3))[:, :2] / 100
    np.testing.assert_allclose(ranked.scores, 1 / (1 + np.exp(means[:, 1] - means[:, 0])), rtol=1e-5)


def logits(*shape: int, fill: float = 0.0) -> Callable[[Tensor], Tensor]:
    return lambda images: torch.full(shape or (len(images), 2), fill)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("plain", {"by": "beauty"}, "by 'beauty': critic, realism, label or ratings:FILE.csv is needed"),
        ("plain", {"by": "ratings"}, "ratings:FILE.csv is needed"),
        ("plain", {"by": "ratings:,"}, "by ratings: no file is named"),
        ("plain", {"by": "critic:x"}, "is needed"),
        ("plain", {"count": 0}, "count: 0 images"),
        ("plain", {"count": 3}, "keep: 10 of 3 images cannot be kept"),
        ("plain", {"keep": 0}, "keep: 0"),
        ("plain", {"features": "pixels"}, "features is for by realism, not for by critic"),
        ("plain", {"classifier": logits()}, "classifier is for by label"),
        ("plain", {"key": "key.json"}, "key is for by ratings"),
        ("plain", {"label": "right"}, "leave the label out"),
        ("plain", {"by": "label", "label": "left"}, "needs a classifier"),
        ("plain", {"by": "label", "classifier": logits()}, "name the class by --label"),
        ("plain", {"by": "label", "label": "up", "classifier": logits()}, "there is no class 'up'"),
        ("condition", {"by": "label", "classifier": logits()}, "conditioned on numbers"),
        ("classes", {"by": "label", "classifier": lambda x: x[:, :, 0, 0]}, "gives 3 logits, and there are 2 classes"),
        ("classes", {"by": "label", "classifier": logits(7)}, r"the shape \(14,\) for 100 images"),
        ("classes", {"by": "label", "classifier": logits(fill=math.nan)}, "logits of image 0 are not finite"),
        ("classes", {"by": "label", "classifier": "missing.pt"}, "missing.pt' cannot be read"),
        ("classes", {"by": "label", "classifier": "inceptio"}, "inceptio"),
    ],
)  # fmt: skip
def test_refused(runs: dict[str, gankit.Run], name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GankitError, match=message):
        rank(runs[name], **arguments)


def test_a_classifier_without_the_class(runs: dict[str, gankit.Run]) -> None:
    strange = Odd(lambda images: torch.zeros(len(images), 2))
    strange.class_names = ["left", "rigth"]  # type: ignore[assignment]
    with pytest.raises(PartError, match="the classifier has no class 'right'; did you mean 'rigth'"):
        rank(runs["classes"], by="label", label="right", classifier=strange)


# Files


def read(path: Path) -> Rows:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_files_of_a_ranking(runs: dict[str, gankit.Run], tmp_path: Path) -> None:
    ranked = rank(runs["condition"], 20, 4, seed=5)
    folder = write_ranking(ranked, tmp_path / "out" / "ranked")
    assert sorted(path.name for path in folder.iterdir()) == ["best", "best.png", "ranking.csv", "worst", "worst.png"]
    head, *lines = read(folder / "ranking.csv")
    assert head == ["rank", "image", "file", "score", "label", "seed"]
    assert [int(line[0]) for line in lines] == list(range(1, 21))
    assert [int(line[1]) for line in lines] == ranked.order.tolist()
    assert [float(line[3]) for line in lines] == ranked.scores[ranked.order].tolist()
    assert {line[5] for line in lines} == {"5"}
    assert [line[2] for line in lines[4:16]] == [""] * 12
    for line in (*lines[:4], *lines[16:]):
        assert np.array_equal(np.asarray(Image.open(folder / line[2])).transpose(2, 0, 1), ranked.images[int(line[1])])
        again = rank(runs["condition"], 20, 4, seed=5, label=line[4])  # the label can be asked for again
        assert np.abs(again.images[int(line[1])].astype(int) - ranked.images[int(line[1])]).max() <= 1
    for name, numbers in (("best", ranked.best), ("worst", ranked.worst)):
        assert sorted(path.name for path in (folder / name).iterdir()) == sorted(f"{n:05d}.png" for n in numbers)
        sheet = np.asarray(Image.open(folder / f"{name}.png"))
        assert np.array_equal(sheet[16 + 8, 16 + 8], ranked.images[numbers[0], :, 0, 0])  # scaled 16 times
    with pytest.raises(RunError, match="is not empty; choose another --out"):
        write_ranking(ranked, folder)


def test_a_folder_appears_only_when_it_is_complete(
    runs: dict[str, gankit.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    ranked = rank(runs["plain"], 6, 2)
    with monkeypatch.context() as patch:
        patch.setattr("gankit.ranking.grid_png", stop)
        with pytest.raises(KeyboardInterrupt):
            write_ranking(ranked, tmp_path / "ranked")
    assert not list(tmp_path.iterdir())
    (tmp_path / "ranked").mkdir()
    assert write_ranking(ranked, tmp_path / "ranked").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["ranked"]


# Agreement


def test_alpha_of_the_published_example() -> None:
    # Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section D.
    rows = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."]
    table = [[math.nan if cell == "." else float(cell) for cell in row.split()] for row in rows]
    nominal, interval = krippendorff_alpha(table, "nominal"), krippendorff_alpha(table, "interval")
    assert nominal == pytest.approx(0.743, abs=5e-4)
    assert interval == pytest.approx(0.849, abs=5e-4)
    assert krippendorff_alpha([[1, 2, 3], [1, 2, 3]], "interval") == 1
    assert krippendorff_alpha([[1, 1], [1, 1]], "nominal") is None
    assert krippendorff_alpha([[1, math.nan], [math.nan, 1]], "nominal") is None


# Ratings by number


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_scores_of_several_raters_are_averaged(runs: dict[str, gankit.Run], tmp_path: Path) -> None:
    one = write(tmp_path / "ada.csv", "image,score,diagnosis", "0,1,left", "1,5,right", "2,3,left", "3,2,left")
    two = write(
        tmp_path / "bo.csv", "\ufefffile;score", "00003.png;4", "drawn/00001.png;3", "00000.png;2", "00002.png;3"
    )
    ranked = rank(runs["classes"], 4, 2, f"ratings:{one},{two}", label="left")
    assert ranked.scores.tolist() == [1.5, 4, 3, 3]
    assert ranked.order.tolist() == [1, 2, 3, 0]
    assert np.array_equal(ranked.images, runs["classes"].sample(4, "left"))
    by_what = {finding.what: finding for finding in ranked.findings}
    alpha = by_what["Krippendorff's alpha of scores"]
    assert alpha.value == pytest.approx(krippendorff_alpha([[1, 5, 3, 2], [2, 3, 3, 4]], "interval"))
    diagnosed = by_what["generated images diagnosed as asked"]
    assert (diagnosed.rater, diagnosed.value, diagnosed.n) == ("ada", 0.75, 4)
    assert (diagnosed.low, diagnosed.high) == wilson(3, 4)
    together = write(tmp_path / "all.csv", "rater,image,score", *(f"ada,{i},{i}" for i in range(4)),
                     *(f"bo,{i},{3 - i}" for i in range(4)))  # fmt: skip
    both = rank(runs["classes"], 4, 2, f"ratings:{together}")
    assert both.scores.tolist() == [1.5] * 4
    assert both.order.tolist() == [0, 1, 2, 3]
    alone = rank(runs["plain"], 4, 2, f"ratings:{one}")
    assert (alone.findings, alone.notes) == ((), ())


GOOD = ("0,1", "1,2", "2,3")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "no column `image`"),
        (("image,grade", "0,1"), "no column `score`"),
        (("image,score",), "has a header and no rows"),
        (("image,score", "0,good"), "line 2: the score 'good' is no number"),
        (("image,score", "0,nan"), "the score 'nan' is no number"),
        (("image,score", "0,1e308"), "the score '1e308' is no number up to 1e+100 in size"),
        (("image,score", *GOOD[:2], "9" * 900 + ",1"), "there is no image '999"),
        (("image,score", *GOOD[:2], "9" * 5000 + ",1"), "line 4: image has more than 1000 characters"),
        (("image,score", "0,1,2"), "line 2 has 3 cells where the header has 2"),
        (("image,score", *GOOD, "0,2"), "line 5: r has rated image 0 twice"),
        (("image,score", *GOOD, "00000.png,2"), "has rated image 0 twice"),
        (("image,score", *GOOD[:2]), "gives no score for 1 of 3 images, 2 first"),
        (("image,score", *GOOD, "3,1"), "there is no image '3'; the images are 0 to 2"),
        (("image,score", *GOOD, "cat.png,1"), "there is no image 'cat.png'"),
        (("image,score,call", "0,1,maybe"), "the call 'maybe' is neither real nor generated"),
        (("image,score", '0,"1'), "cannot be read"),
        (("image,score,key", "0,1,", "1,1,abc", "2,1,abc"), "of different pages"),
        (("image,score,key", "0,1,abc", "1,1,abc", "2,1,abc"), "the key abc... of the ratings is not in"),
    ],
)
def test_bad_ratings_are_one_line(
    runs: dict[str, gankit.Run], tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    path = write(tmp_path / "r.csv", *lines)
    with pytest.raises(DataError) as raised:
        rank(runs["plain"], 3, 1, f"ratings:{path}")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_ratings_may_be_the_progress_of_a_page_and_lack_answers(runs: dict[str, gankit.Run], tmp_path: Path) -> None:
    answers = {str(i): {"score": str(i + 1), "diagnosis": "left"} for i in range(3)} | {"3": {}}
    path = write(tmp_path / "r.json", json.dumps({"key": "", "rater": "Ada", "answers": answers}))
    assert rank(runs["plain"], 3, 1, f"ratings:{path}").scores.tolist() == [1, 2, 3]
    path = write(tmp_path / "r.csv", "image,score,diagnosis", "0,1,", "1,,left", "2,3,")
    with pytest.raises(DataError, match="r gives no score for 1 of 3 images, 1 first"):
        rank(runs["plain"], 3, 1, f"ratings:{path}")


def test_files_that_are_missing_or_given_twice(runs: dict[str, gankit.Run], tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "image,score", *GOOD)
    with pytest.raises(DataError, match="cannot be read"):
        rank(runs["plain"], 3, 1, f"ratings:{path},{tmp_path}/none.csv")
    with pytest.raises(DataError, match="r is the rater of two files"):
        rank(runs["plain"], 3, 1, f"ratings:{path},{path}")
    with pytest.raises(GankitError, match="count: 0 images cannot be ranked"):
        rank(runs["plain"], 0, 1, f"ratings:{path}")
    with pytest.raises(DataError, match="the ratings name no key"):
        rank(runs["plain"], 3, 1, f"ratings:{path}", key=path)


# Ratings of a page


def rate(page: Path, name: str, score: Callable[[Any], int], call: Callable[[Any], str] = lambda image: "") -> Path:
    """The ratings of a person who sees what the images are."""
    key, digest = read_key(page.parent / "key.json", Key)
    rows = [f"{image.id},{score(image)},{image.label},{call(image)},{name},{digest}" for image in key.images]
    return write(page.parent / f"{name}.csv", "image,score,diagnosis,call,rater,key", *rows)


def test_ratings_of_a_page_find_their_key_and_images(copied_run: gankit.Run, tmp_path: Path) -> None:
    page = write_page(copied_run, copied_run.path / "rating-7", 9, seed=7, real=6)
    ada = rate(page, "ada", lambda image: 5 if image.real else image.number % 5 + 1, lambda image: "real")
    bo = rate(page, "bo", lambda image: 1, lambda image: "real" if image.real else "generated")
    ranked = rank(copied_run, None, 3, f"ratings:{ada},{bo}")
    assert ranked.seed == 7
    assert ranked.scores.tolist() == [(number % 5 + 2) / 2 for number in range(9)]
    assert ranked.order.tolist() == [4, 3, 8, 2, 7, 1, 6, 0, 5]
    assert np.array_equal(ranked.images, copied_run.sample(9, seed=7))
    value = {(finding.rater, finding.what): (finding.value, finding.n) for finding in ranked.findings}
    assert value["ada", "real images recognised"] == (1, 6)
    assert value["ada", "generated images taken for real"] == (1, 9)
    assert value["bo", "generated images taken for real"] == (0, 9)
    assert value["bo", "generated images diagnosed as asked"] == (1, 9)
    assert value["bo", "real images diagnosed as labelled"] == (1, 6)
    assert value["all", "Krippendorff's alpha of diagnoses"] == (1, 15)
    low = next(finding for finding in ranked.findings if finding.what == "real images recognised")
    assert (low.low, low.high) == wilson(6, 6)
    assert str(low) == "ada: real images recognised 1, 95 % interval 0.61 to 1.00 (n = 6)"
    written = write_ranking(ranked, tmp_path / "ranked")
    assert read(written / "findings.csv")[0] == ["rater", "what", "value", "low", "high", "n"]
    assert len(read(written / "findings.csv")) == 1 + len(ranked.findings)
    # Elsewhere the key is found in the run's folder, or given.
    moved = Path(shutil.copy(ada, tmp_path / "ada.csv"))
    assert rank(copied_run, 9, 3, f"ratings:{moved}", seed=7).scores[4] == 5
    hidden = page.parent.rename(tmp_path / "hidden")
    with pytest.raises(DataError, match="give it by --key"):
        rank(copied_run, None, 3, f"ratings:{moved}")
    assert rank(copied_run, None, 3, f"ratings:{moved}", key=hidden / "key.json").scores[4] == 5
    with pytest.raises(GankitError, match="count: the rating page has 9, not 8"):
        rank(copied_run, 8, 3, f"ratings:{moved}", key=hidden / "key.json")
    with pytest.raises(GankitError, match="label: the rating page has None, not left"):
        rank(copied_run, None, 3, f"ratings:{moved}", key=hidden / "key.json", label="left")


def test_ratings_that_do_not_fit_the_page(copied_run: gankit.Run) -> None:
    page = write_page(copied_run, copied_run.path / "rating", 4, real=2)
    path = rate(page, "ada", lambda image: 3, lambda image: "" if image.real else "generated")
    with pytest.raises(DataError, match=r"ada gives no call for 2 of 6 images, \w+ first"):
        rank(copied_run, None, 2, f"ratings:{path}")
    lines = path.read_text().splitlines()
    write(path, *lines[:-1])
    with pytest.raises(DataError, match="gives no score for 1 of 6 images"):
        rank(copied_run, None, 2, f"ratings:{path}")
    write(path, *lines, lines[-1].replace(lines[-1].split(",")[0], "0123456789ab"))
    with pytest.raises(DataError, match="there is no image '0123456789ab'; it is none of the 6 of the key"):
        rank(copied_run, None, 2, f"ratings:{path}")


def test_a_key_that_was_changed_is_noticed(copied_run: gankit.Run) -> None:
    page = write_page(copied_run, copied_run.path / "rating", 4, real=2)
    path, key = rate(page, "ada", lambda image: 3, lambda image: "real"), page.parent / "key.json"
    assert len(rank(copied_run, None, 2, f"ratings:{path}").order) == 4
    table = json.loads(key.read_text())
    for image in table["images"]:
        image["real"] = not image["real"]
    key.write_text(json.dumps(table, indent=1) + "\n")
    with pytest.raises(DataError, match="is not the key that the page was sealed with, or it was changed"):
        rank(copied_run, None, 2, f"ratings:{path}")
    key.write_text("{}")
    with pytest.raises(RunError, match="is no key of a rating page"):
        rank(copied_run, None, 2, f"ratings:{path}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": "1"}, "valid integer"), ({"seed": -1}, "greater than or equal to 0"), ({"seed": 2**63}, "less than"),
        ({"sources": [{"name": "a", "content": "b", "best": 1}]}, "valid boolean"),
        ({"label": 3}, "valid string"), ({"images": {}}, "valid array"),
        ({"images": [{"id": "a", "real": False, "number": 1, "label": ""}]}, "not numbered 0, 1, 2"),
        ({"images": [{"id": "a", "real": False, "number": 0, "label": ""}] * 2}, "not numbered 0, 1, 2"),
        ({"images": [{"id": "a", "real": real, "number": 0, "label": ""} for real in (True, False)]}, "have one id"),
        ({"images": [{"id": "a", "real": False, "number": True, "label": ""}]}, "valid integer"),
        ({"sources": [], "images": [{"id": "a", "real": True, "number": 0, "label": ""}]}, "names no source"),
    ],
)  # fmt: skip
def test_a_forged_key_is_one_line(
    runs: dict[str, gankit.Run], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    page = write_page(runs["plain"], tmp_path / "page", 3)
    path = page.parent / "key.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunError, match="is no key of a rating page") as caught:
        check_numbers(read_key(path, Key)[0], path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"format": 1, "format": 1}', "9" * 5000, "\x00"])
def test_what_is_no_key_at_all_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(text)
    with pytest.raises(RunError, match="is no key of a rating page"):
        read_key(path, Key)


def test_ratings_of_another_generator_are_refused(copied_run: gankit.Run, runs: dict[str, gankit.Run]) -> None:
    page = write_page(copied_run, copied_run.path / "rating", 4)
    path = rate(page, "ada", lambda image: 3)
    with pytest.raises(RunError, match="its generator is not the one of the rated images"):
        rank(runs["classes"], None, 2, f"ratings:{path}")


def test_a_key_of_an_older_page_is_read(copied_run: gankit.Run) -> None:
    page = write_page(copied_run, copied_run.path / "rating", 4, real=2)
    path = page.parent / "key.json"
    table = json.loads(path.read_text())
    (origin,) = table.pop("sources")
    table |= {"format": 1, "run": origin["name"], "generator": origin["content"], "best": origin["best"]}
    for image in table["images"]:
        del image["source"]
    path.write_text(json.dumps(table))
    ada = rate(page, "ada", lambda image: image.number + 1, lambda image: "real")
    ranked = rank(copied_run, None, 2, f"ratings:{ada}")
    assert ranked.scores.tolist() == [1, 2, 3, 4]


# Ratings of several sources


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Eight dark and six bright pictures of strangers in class folders, of the size of the runs' images."""
    made, draw = [], np.random.default_rng(3)
    for name, count, level in (("murky", 8, 20), ("sunny", 6, 200)):
        for number in range(count):
            path = tmp_path / name / ("left" if number % 2 else "right") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(level, level + 20, (8, 8, 3), dtype=np.uint8)).save(path)
        made.append(tmp_path / name)
    return made


def test_a_page_of_two_folders_tells_them_apart_only_by_its_key(folders: list[Path], tmp_path: Path) -> None:
    page = write_page([*map(str, folders)], tmp_path / "page", seed=5, real=3, against=str(folders[0]))
    key = read_key(page.parent / "key.json", Key)[0]
    assert [Path(origin.name).name for origin in key.sources] == ["murky", "sunny"]
    assert [(image.source, image.number) for image in key.generated] == [(s, n) for s in (0, 1) for n in range(6)]
    assert sum(image.real for image in key.images) == 3
    text = page.read_text()
    assert not any(word in text for word in ("murky", "sunny", key.secret, str(tmp_path)))
    assert '"classes": ["left", "right"]' in text
    ada = rate(page, "ada", lambda image: 2 + 2 * image.source + image.number % 2, lambda image: "real")
    bo = rate(page, "bo", lambda image: 2 + 2 * image.source + image.number % 2,
              lambda image: "real" if image.real or image.source else "generated")  # fmt: skip
    ranked = rank(folders, None, 3, f"ratings:{ada},{bo}")
    assert ranked.scores.tolist() == [2, 3] * 3 + [4, 5] * 3
    assert ranked.images[:6].max() < 100 < ranked.images[6:].min()
    value = {(finding.rater, finding.what): finding for finding in ranked.findings}
    dark, bright = map(str, folders)
    assert value["all", f"mean score of {bright}"].value == 4.5
    lead = value["all", f"mean score of {bright} less that of {dark}"]
    assert (lead.value, lead.n) == (2, 12)
    half = 2.5706 * math.sqrt(2 * 0.3 / 6)  # Student's quantile for 5 degrees of freedom; variances are 0.3
    assert (lead.low, lead.high) == pytest.approx((2 - half, 2 + half), abs=1e-3)
    assert value["bo", f"images of {dark} taken for real"].value == 0
    assert value["bo", f"images of {bright} taken for real"].value == 1
    assert value["bo", "generated images diagnosed as asked"].value == 1
    rows = read(write_ranking(ranked, tmp_path / "ranked") / "ranking.csv")
    assert rows[0][-1] == "source"
    assert {row[-1] for row in rows[1:] if int(row[1]) >= 6} == {str(path) for path in folders[1].rglob("*.png")}


def test_a_run_beside_a_folder(copied_run: gankit.Run, folders: list[Path], tmp_path: Path) -> None:
    page = write_page([copied_run, folders[0]], tmp_path / "page", 4, seed=7, real=2)
    ada = rate(page, "ada", lambda image: 1 + image.source, lambda image: "real")
    ranked = rank([copied_run, folders[0]], None, 3, f"ratings:{ada}")
    assert np.array_equal(ranked.images[:4], copied_run.sample(4, seed=7))
    assert ranked.scores.tolist() == [1] * 4 + [2] * 4
    lead = next(finding for finding in ranked.findings if "less that of" in finding.what)
    assert (lead.value, lead.low, lead.high) == (1, None, None)  # no score differs from another of its source
    for sources, message in (
        ([folders[0], copied_run], "its images are not the rated ones"),
        ([copied_run], "the rating page shows images of 2 sources: give own, "),
    ):
        with pytest.raises(GankitError, match=message):
            rank(sources, None, 3, f"ratings:{ada}")
    Image.new("RGB", (8, 8)).save(folders[0] / "left" / "1.png")
    with pytest.raises(RunError, match="murky: its images are not the rated ones"):
        rank([copied_run, folders[0]], None, 3, f"ratings:{ada}")


def test_deep_images_are_ranked_beside_8_bit_ones(folders: list[Path], tmp_path: Path) -> None:
    deep = (np.arange(4 * 3 * 64).reshape(4, 3, 8, 8) * 80).astype(np.uint16)
    np.savez(tmp_path / "deep.npz", images=deep)
    table = {"name": "npz", "path": str(tmp_path / "deep.npz"), "value_range": [0, 65535]}
    page = write_page([folders[0], table], tmp_path / "page", 4)
    ranked = rank([folders[0], table], None, 3, f"ratings:{rate(page, 'ada', lambda image: 3)}")
    assert ranked.images.dtype == np.uint8
    assert np.array_equal(ranked.images[4:], np.rint(deep / 257).astype(np.uint8))


def test_sources_that_no_page_can_show(folders: list[Path], runs: dict[str, gankit.Run], tmp_path: Path) -> None:
    Image.new("RGB", (9, 8)).save(tmp_path / "wide.png")
    (tmp_path / "wide").mkdir()
    for number in range(2):
        shutil.copy(tmp_path / "wide.png", tmp_path / "wide" / f"{number}.png")
    for sources, arguments, message in (
        ([folders[0], tmp_path / "wide"], {}, r"wide: its images are 3 x 8 x 9 .* give one as a table with a size"),
        (folders, {"count": 7}, "7 images are asked for, and there are 6"),
        (folders, {"real": 2}, "no run among the sources has real images: say which to mix in by --against"),
        (folders, {"label": "left"}, "only a run can be asked for a label"),
        ([], {}, "no source of images is given"),
    ):
        with pytest.raises(GankitError, match=message):
            write_page(sources, tmp_path / "page", **arguments)
    with pytest.raises(GankitError, match="by critic: images of one run are ranked so"):
        rank([runs["plain"], runs["classes"]])
    numbered = write(tmp_path / "r.csv", "image,score", *(f"{number},{number}" for number in range(6)))
    with pytest.raises(GankitError, match="give one"):
        rank(folders, by=f"ratings:{numbered}", keep=2)
    assert rank(folders[1], by=f"ratings:{numbered}", keep=2).best.tolist() == [5, 4]


# The command line


def test_command(
    runs: dict[str, gankit.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gankit.cli import main

    def call(*arguments: object) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr("sys.argv", ["gankit", "rank", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        shown = capsys.readouterr()
        return code, shown.out.splitlines(), shown.err.splitlines()

    run = shutil.copytree(runs["held"].path, tmp_path / "run")
    code, out, _ = call(run, "--count", 12, "--keep", 2, "--seed", 4)
    ranked: Ranking = rank(run, 12, 2, seed=4)
    assert code == 0
    assert out == [
        "best:  " + ", ".join(f"{n} ({ranked.scores[n]:.4g})" for n in ranked.best),
        "worst:  " + ", ".join(f"{n} ({ranked.scores[n]:.4g})" for n in ranked.worst),
        f"ranking.csv, best.png and worst.png in {run / 'ranked-critic-4'}",
    ]
    code, out, _ = call(run, "--count", 12, "--keep", 2, "--by", "realism", "--features", '{name="pixels",side=4}')
    assert (code, out[2]) == (0, "reference: 10 held-out images")
    code, out, _ = call(run, "--page", "--count", 5, "--real", 3)
    page = run / "rating-0" / "page.html"
    assert (code, out) == (
        0,
        [f"page: {page}", f"key:  {page.parent / 'key.json'} (sealed: give raters the page alone)"],
    )
    ratings = rate(page, "ada", lambda image: 3, lambda image: "real")
    code, out, _ = call(run, "--by", f"ratings:{ratings}", "--keep", 2)
    assert (code, out[0]) == (0, "best:  0 (3), 1 (3)")
    assert out[2] == "ada: real images recognised 1, 95 % interval 0.44 to 1.00 (n = 3)"
    assert (run / "ranked-ratings-0" / "ranking.csv").is_file()
    for arguments, message in (
        ([run, "--real", 3], "gankit: --real mixes real images into a page: add --page"),
        ([run, "--page"], f"gankit: {run / 'rating-0'} is not empty; choose another --out"),
        ([run, "--page", "--real", 11, "--out", tmp_path / "x"],
         "gankit: real: 11 real images are to be mixed in, and there are 10 held-out images: mix in fewer"),
        ([run, "--by", "ratings:none.csv"],
         "gankit: none.csv cannot be read (No such file or directory); give a CSV file in UTF-8"),
        ([tmp_path], f"gankit: {tmp_path}: there is no run here (no experiment.toml); did you mean {run}?"),
        ([run, "--page", "--against", run, "--out", tmp_path / "x"],
         "gankit: --against: how many of these real images the page shows is not said: add --real NUMBER"),
    ):  # fmt: skip
        assert call(*arguments) == (2, [], [message])
    assert not (tmp_path / "x").exists()
    code, out, _ = call(run, run, "--page", "--count", 3, "--against", run, "--real", 2, "--out", tmp_path / "two")
    assert (code, out[0]) == (0, f"page: {tmp_path / 'two' / 'page.html'}")
    ratings = rate(tmp_path / "two" / "page.html", "ada", lambda image: 3, lambda image: "real")
    code, out, _ = call(run, run, "--by", f"ratings:{ratings}", "--keep", 2, "--out", tmp_path / "both")
    assert "mean score of run-2 less that of run 0 (n = 6)" in out, out
