"""Ranking drawn images: realism, the ways to order them, files and the command."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from raters import rate, read
from torch import Tensor, nn

import gankit
from gankit.errors import GankitError, PartError, RunError
from gankit.ranking import Ranking, rank, realism_score, write_ranking
from gankit.ranking.scores import wanted_classes
from gankit.runs.networks import generate_batches


def column(values: list[float]) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.float64)[:, None]


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


def test_critic_order_is_that_of_scores_by_hand(one_step_runs: dict[str, gankit.Run]) -> None:
    for name, label in (("plain", None), ("classes", None), ("classes", "right"), ("condition", "4.5")):
        run = one_step_runs[name]
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
    assert set(rank(one_step_runs["classes"], 12).labels) == {"left", "right"}
    assert rank(one_step_runs["plain"].path, 12).labels == ("",) * 12


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


def test_scores_are_float32_whatever_the_calling_program_allows(one_step_runs: dict[str, gankit.Run]) -> None:
    run, seen = one_step_runs["plain"], set()
    hook = run.critic.register_forward_pre_hook(lambda *_: seen.add(torch.get_float32_matmul_precision()))
    torch.set_float32_matmul_precision("medium")
    try:
        rank(run, 4, 2)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
        hook.remove()
    assert seen == {"highest"}


def test_score_maps_are_averaged_and_ties_go_by_number(one_step_runs: dict[str, gankit.Run]) -> None:
    ranked = rank(with_critic(one_step_runs["plain"], lambda x: x), 8, 2)
    floats = torch.cat(
        list(generate_batches(one_step_runs["plain"].generator, one_step_runs["plain"].draw(8)[0], None))
    )
    np.testing.assert_allclose(ranked.scores, floats.double().mean((1, 2, 3)), rtol=1e-5)
    equal = rank(with_critic(one_step_runs["plain"], lambda x: x.new_zeros(len(x))), 8, 2)
    assert equal.order.tolist() == list(range(8))


def test_a_critic_that_mixes_samples_is_told_of_and_nan_is_refused(one_step_runs: dict[str, gankit.Run]) -> None:
    mixed = rank(with_critic(one_step_runs["plain"], lambda x: x.mean((1, 2, 3)) - x.mean()), 8, 2)
    assert "depends on the other images of its batch" in mixed.notes[0]
    with pytest.raises(RunError, match="score of image 0 is not finite"):
        rank(with_critic(one_step_runs["plain"], lambda x: x.mean((1, 2, 3)) * math.nan), 8, 2)


def test_realism_is_beside_the_held_out_images(one_step_runs: dict[str, gankit.Run]) -> None:
    from gankit.evaluation.sources import run_data
    from gankit.features.pixels import Pixels

    for name, which in (("held", 1), ("classes", 0)):
        run = one_step_runs[name]
        reals = run_data(run)[which]
        assert reals is not None
        ranked = rank(run, 9, 3, "realism", seed=1)
        pixels = Pixels(run.image)
        rows = [pixels(torch.tensor(images).float()).numpy()
                for images in (reals.read(np.arange(len(reals))), run.sample(9, seed=1))]  # fmt: skip
        np.testing.assert_allclose(ranked.scores, realism_score(*rows), rtol=1e-5)
        assert ranked.notes[0] == f"reference: {len(reals)} {('training', 'held-out')[which]} images"
        assert len(ranked.notes) == 2 - which
    itself = rank(one_step_runs["held"], 9, 3, "realism", seed=1, real=one_step_runs["held"].sample(9, seed=1))
    assert np.isinf(itself.scores).sum() >= 4  # those whose radius is not above the median


def test_label_is_the_softmax_of_the_asked_class(one_step_runs: dict[str, gankit.Run], tmp_path: Path) -> None:
    class Sides(nn.Module):
        """How bright either half is."""

        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images[..., :4].mean((1, 2, 3)), images[..., 4:].mean((1, 2, 3))], 1) / 10

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        torch.jit.save(torch.jit.script(Sides()), tmp_path / "sides.pt")
    images = one_step_runs["classes"].sample(12, seed=2).astype(np.float64)
    halves = np.stack([images[..., :4].mean((1, 2, 3)), images[..., 4:].mean((1, 2, 3))], 1) / 10
    sure = np.exp(halves) / np.exp(halves).sum(1, keepdims=True)
    labels = one_step_runs["classes"].draw(12, None, 2)[1]
    assert labels is not None
    expected = sure[np.arange(12), labels.numpy()]

    class Swapped(Sides):
        class_names = ("right", "other", "left")

        def forward(self, images: Tensor) -> Tensor:
            left, right = super().forward(images).unbind(1)
            return torch.stack([right, torch.full_like(right, -1e9), left], 1)

    scripted = {"name": "torchscript", "path": str(tmp_path / "sides.pt")}
    for classifier in (Sides(), tmp_path / "sides.pt", str(tmp_path / "sides.pt"), scripted, Swapped()):
        ranked = rank(one_step_runs["classes"], 12, 3, "label", seed=2, classifier=classifier)  # type: ignore[arg-type]
        np.testing.assert_allclose(ranked.scores, expected, rtol=1e-5)
    side = Enum("Side", {"RIGHT": "right"}, type=str)  # whose member prints as Side.RIGHT
    for label in ("right", side.RIGHT):
        plain = rank(one_step_runs["plain"], 12, 3, "label", label=label, classifier=Sides())
        assert plain.labels == ("right",) * 12
    assert np.array_equal(plain.images, one_step_runs["plain"].sample(12))


def test_features_with_a_class_head_classify(one_step_runs: dict[str, gankit.Run]) -> None:
    class Headed(gankit.Features):
        dim = 3

        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3))

        def logits(self, features: Tensor) -> Tensor:
            return features[:, :2] / 100

    ranked = rank(one_step_runs["classes"], 6, 2, "label", label="left", classifier=Headed())
    means = one_step_runs["classes"].sample(6, "left").mean((2, 3))[:, :2] / 100
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
        ("plain", {"features": "pixels"}, "features is used only with 'by realism', not with 'by critic'"),
        ("plain", {"classifier": logits()}, "classifier is used only with 'by label'"),
        ("plain", {"key": "key.json"}, "key is used only with 'by ratings'"),
        ("plain", {"label": "right"}, "leave the label out"),
        ("plain", {"by": "label", "label": "left"}, "needs a classifier"),
        ("plain", {"by": "label", "classifier": logits()}, "name the class with --label"),
        ("plain", {"by": "label", "label": "up", "classifier": logits()}, "there is no class 'up'"),
        ("condition", {"by": "label", "classifier": logits()}, "conditioned on numbers"),
        ("classes", {"by": "label", "classifier": lambda x: x[:, :, 0, 0]}, "gives 3 logits, and there are 2 classes"),
        ("classes", {"by": "label", "classifier": logits(7)}, r"the shape \(14,\) for 100 images"),
        ("classes", {"by": "label", "classifier": logits(fill=math.nan)}, "logits of image 0 are not finite"),
        ("classes", {"by": "label", "classifier": "missing.pt"}, "missing.pt' cannot be read"),
        ("classes", {"by": "label", "classifier": "inceptio"}, "inceptio"),
    ],
)  # fmt: skip
def test_refused(one_step_runs: dict[str, gankit.Run], name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GankitError, match=message):
        rank(one_step_runs[name], **arguments)


def test_a_class_is_named_as_for_sampling(one_step_runs: dict[str, gankit.Run]) -> None:
    grades = SimpleNamespace(image=one_step_runs["plain"].image, class_names=["1", "2", "3"], path=Path("run"))
    assert wanted_classes(grades, None, "3", 2).tolist() == [2, 2]  # type: ignore[arg-type]
    with pytest.raises(GankitError, match="there is no class '0' in run; known: 0 1, 1 2, 2 3"):
        wanted_classes(grades, None, "0", 2)  # type: ignore[arg-type]


def test_a_classifier_without_the_class(one_step_runs: dict[str, gankit.Run]) -> None:
    strange = Odd(lambda images: torch.zeros(len(images), 2))
    strange.class_names = ["left", "rigth"]  # type: ignore[assignment]
    with pytest.raises(PartError, match="the classifier has no class 'right'; did you mean 'rigth'"):
        rank(one_step_runs["classes"], by="label", label="right", classifier=strange)


def test_files_of_a_ranking(one_step_runs: dict[str, gankit.Run], tmp_path: Path) -> None:
    ranked = rank(one_step_runs["condition"], 20, 4, seed=5)
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
        again = rank(one_step_runs["condition"], 20, 4, seed=5, label=line[4])  # the label can be asked for again
        assert np.abs(again.images[int(line[1])].astype(int) - ranked.images[int(line[1])]).max() <= 1
    for name, numbers in (("best", ranked.best), ("worst", ranked.worst)):
        assert sorted(path.name for path in (folder / name).iterdir()) == sorted(f"{n:05d}.png" for n in numbers)
        sheet = np.asarray(Image.open(folder / f"{name}.png"))
        assert np.array_equal(sheet[16 + 8, 16 + 8], ranked.images[numbers[0], :, 0, 0])  # scaled 16 times
    with pytest.raises(RunError, match="is not empty; choose another --out"):
        write_ranking(ranked, folder)


def test_a_folder_appears_only_when_it_is_complete(
    one_step_runs: dict[str, gankit.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    ranked = rank(one_step_runs["plain"], 6, 2)
    with monkeypatch.context() as patch:
        patch.setattr("gankit.ranking.grid_png", stop)
        with pytest.raises(KeyboardInterrupt):
            write_ranking(ranked, tmp_path / "ranked")
    assert not list(tmp_path.iterdir())
    (tmp_path / "ranked").mkdir()
    assert write_ranking(ranked, tmp_path / "ranked").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["ranked"]


def test_command(
    one_step_runs: dict[str, gankit.Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
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

    run = shutil.copytree(one_step_runs["held"].path, tmp_path / "run")
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
         "gankit: --against: how many of these real images are to be on the page? add --real NUMBER"),
    ):  # fmt: skip
        assert call(*arguments) == (2, [], [message])
    assert not (tmp_path / "x").exists()
    code, out, _ = call(run, run, "--page", "--count", 3, "--against", run, "--real", 2, "--out", tmp_path / "two")
    assert (code, out[0]) == (0, f"page: {tmp_path / 'two' / 'page.html'}")
    ratings = rate(tmp_path / "two" / "page.html", "ada", lambda image: 3, lambda image: "real")
    code, out, _ = call(run, run, "--by", f"ratings:{ratings}", "--keep", 2, "--out", tmp_path / "both")
    assert "mean score of run-2 less that of run 0 (n = 6)" in out, out
