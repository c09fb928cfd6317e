"""The command line: samples, their labels, and walks from sample to sample."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import command_line
import numpy as np
import pytest
from command_line import RUNS, Call, rows, train_runs
from PIL import Image
from torch import Tensor

import gankit
from gankit.errors import RunError
from gankit.runs.labels import encode_classes
from gankit.runs.walk import write_walk

call = command_line.call


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return train_runs(tmp_path_factory.mktemp("runs"), *RUNS)


def test_samples(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    answer = call("sample", runs["plain"], "--count", 5, "--seed", 3, "--out", out)
    assert answer.code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *(f"{i:05d}.png" for i in range(5)),
        "grid.png",
        "labels.csv",
    ]
    assert rows(out) == [["file"], *([f"{i:05d}.png"] for i in range(5))]
    expected = gankit.open_run(runs["plain"]).sample(5, seed=3)
    for i in range(5):
        assert np.array_equal(np.asarray(Image.open(out / f"{i:05d}.png")).transpose(2, 0, 1), expected[i])
    assert "is not empty; choose another --out" in call("sample", runs["plain"], "--out", out).line
    assert "leave truncation at 1" in call("sample", runs["plain"], "--truncation", 0.7, "--out", tmp_path / "x").line
    assert "leave the label out" in call("sample", runs["plain"], "--label", "0", "--out", tmp_path / "x").line
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").write_text("")
    assert "is a file" in call("sample", runs["plain"], "--out", tmp_path / "file").line
    (tmp_path / "made").mkdir()
    assert call("sample", runs["plain"], "--count", 1, "--out", tmp_path / "made").code == 0


def test_a_class_is_found_in_another_spelling_where_one_is_meant() -> None:
    def record(*names: str) -> Any:
        return SimpleNamespace(class_names=names, label_counts=[1] * len(names), image={"classes": len(names)})

    def encode(label: str, *names: str) -> list[int]:
        return encode_classes(label, 1, record(*names), Path("run")).tolist()

    assert encode("RBC", "wbc", "rbc") == encode("rbc", "Rbc", "rbc", "RBC") == [1]
    with pytest.raises(RunError, match="there is no class 'rBC' in run; known: 0 rbc, 1 RBC"):
        encode("rBC", "rbc", "RBC")


def test_samples_of_classes(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    for label, name in (("right", "right"), ("RIGHT", "right"), ("1", "right"), ("0", "left")):
        out = tmp_path / f"drawn-{label}"
        assert call("sample", runs["classes"], "--count", 3, "--label", label, "--out", out).code == 0
        assert rows(out) == [["file", "label"], *([f"{i:05d}.png", name] for i in range(3))]
    assert call("sample", runs["classes"], "--count", 12, "--out", tmp_path / "mixed").code == 0
    assert {row[1] for row in rows(tmp_path / "mixed")[1:]} == {"left", "right"}
    line = call("sample", runs["classes"], "--label", "up", "--out", tmp_path / "x").line
    assert "there is no class 'up'" in line
    assert "known: 0 left, 1 right" in line
    assert not (tmp_path / "x").exists()


def test_samples_of_conditions(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    assert call("sample", runs["condition"], "--count", 2, "--label", "6.5", "--out", tmp_path / "drawn").code == 0
    assert rows(tmp_path / "drawn") == [["file", "severity"], ["00000.png", "6.5"], ["00001.png", "6.5"]]
    for wrong in ("high", "1,2", "nan", ""):
        line = call("sample", runs["condition"], "--label", wrong, "--out", tmp_path / "x").line
        assert f"--label: {wrong!r} is not 1 number(s), separated by commas" in line
    assert not (tmp_path / "x").exists()


def test_samples_of_16_bit_images(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    assert call("sample", runs["grey"], "--count", 2, "--out", tmp_path / "drawn").code == 0
    expected = gankit.open_run(runs["grey"]).sample(2)
    assert expected.dtype == np.uint16
    assert expected.max() > 255
    read = np.asarray(Image.open(tmp_path / "drawn" / "00001.png"))
    assert np.array_equal(read.astype(np.uint16), expected[1, 0])
    again = gankit.build("dataset", "folder", path=str(tmp_path / "drawn"), table="labels.csv", unlisted="skip")
    assert again.images.dtype == np.uint16
    assert np.array_equal(again.images, expected)


def test_samples_by_default_lie_in_the_run(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    assert call("sample", run, "--count", 1, "--seed", 4).code == 0
    assert (run / "drawn-4" / "00000.png").is_file()
    (run / "generator.safetensors").unlink()
    assert "there is no generator yet" in call("sample", run).line


# Walking


def tiles(path: Path) -> np.ndarray[Any, Any]:
    """(rows, columns, 8, 8, 3) images of a picture of 8x8 images that are enlarged 16 times."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))[8::16, 8::16]
    sheet = pixels[1:, 1:].reshape(len(pixels) // 9, 9, -1, 9, 3)
    return sheet.swapaxes(1, 2)[:, :, :8, :8]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demo", "--steps", 500, "--out", "x"], "override '--steps=500': .*; did you mean training.steps?"),
        (["demo", "training.batch=4", "--steps=500"], "did you mean training.steps?"),
        (["demo", "--data.size", 32], "did you mean 'data'?"),
        (["demo", "--steps"], "override '--steps': write key.path=value"),
        (
            ["--steps", 500, "demo"],
            "there is no such option; a setting comes after a recipe .*: demo training.steps=500",
        ),
    ],
)
def test_a_setting_in_the_place_of_an_option_is_told_how_it_is_written(call: Call, words: list[Any], said: str) -> None:
    assert re.search(said.replace("?", r"\?"), call("train", *words).line)


def test_a_walk_goes_from_sample_to_sample_and_back(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    answer = call("walk", runs["plain"], "--stops", 2, "--frames", 8, "--seed", 3, "--out", tmp_path / "walk")
    assert answer.code == 0
    assert sorted(path.name for path in (tmp_path / "walk").iterdir()) == ["progress.png", "walk.gif", "walk.png"]
    assert "progress.png: the same latents at steps 0, 1" in answer.out
    strip = tiles(tmp_path / "walk" / "walk.png")
    samples = gankit.open_run(runs["plain"]).sample(8, seed=3).transpose(0, 2, 3, 1)
    assert strip.shape == (4, 9, 8, 8, 3)
    assert np.array_equal(strip[:, 0], samples[:4])
    assert np.array_equal(strip[:, 8], samples[4:])
    with Image.open(tmp_path / "walk" / "walk.gif") as animated:
        assert 8 < animated.n_frames <= 16  # equal neighbours are one frame
        assert animated.info["loop"] == 0
    progress = tiles(tmp_path / "walk" / "progress.png")
    for step in (0, 1):
        assert np.array_equal(progress[:, step], tiles(runs["plain"] / "samples" / f"step-{step:08d}.png")[:, 0])
    begun = shutil.copytree(runs["plain"], tmp_path / "begun")
    (begun / "samples" / "step-00000001.png").unlink()
    answer = call("walk", begun, "--stops", 2, "--frames", 2, "--out", tmp_path / "no-progress")
    assert answer.code == 0
    assert "progress" not in answer.out.replace("no-progress", ""), "one grid shows no course"


class Shrinks(gankit.Generator):
    """Another generator, which truncates by moving its latents towards 0."""

    def __init__(self, inner: gankit.Generator, share: float = 1.0) -> None:
        super().__init__()
        self.inner, self.share, self.latent_dim = inner, share, inner.latent_dim

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.inner(self.share * z, labels)

    def truncated(self, truncation: float) -> Shrinks:
        return Shrinks(self.inner, truncation)


def test_a_generator_that_truncates_is_swept(runs: dict[str, Path], tmp_path: Path) -> None:
    run = gankit.open_run(runs["classes"])
    samples = run.sample(8, [0, 1] * 4, seed=2).transpose(0, 2, 3, 1)
    run.__dict__["generator"] = Shrinks(run.generator)
    assert "truncation.png: from top to bottom 1, 0.85, 0.7, 0.5, 0.3, 0" in write_walk(run, tmp_path / "w", seed=2)
    sweep = tiles(tmp_path / "w" / "truncation.png")
    assert sweep.shape[:2] == (6, 8)
    assert np.array_equal(sweep[0], samples)
    assert all(np.array_equal(sweep[5, k], sweep[5, k % 2]) for k in range(8))  # the mean image of either class


def test_classes_walk_along_the_same_latents(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    answer = call("walk", runs["classes"], "--frames", 2, "--animation", "png", "--out", tmp_path / "walk")
    assert "rows: left, right" in answer.out
    strip = tiles(tmp_path / "walk" / "walk.png")
    run = gankit.open_run(runs["classes"])
    assert [len(strip), len(tiles(tmp_path / "walk" / "walk-animated.png"))] == [2, 1]
    for row, name in zip(strip, ["left", "right"], strict=True):
        assert np.array_equal(row[[0, 8]], run.sample(2, name).transpose(0, 2, 3, 1))
    answer = call("walk", runs["classes"], "--label", "right", "--frames", 1, "--out", tmp_path / "right")
    assert np.array_equal(tiles(tmp_path / "right" / "walk.png")[0, 0], strip[1, 0])


def test_a_walk_passes_over_pictures_of_others_among_the_grids(
    call: Call, runs: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["grey"], run)
    steps = sorted((run / "samples").glob("step-*.png"))
    shutil.copy(steps[0], run / "samples" / "step-best.png")
    (run / "samples" / "step-00000099.png").symlink_to("/dev/zero")
    answer = call("walk", run, "--stops", 2, "--frames", 1, "--out", tmp_path / "walk")
    assert f"at steps {', '.join(str(int(path.stem[5:])) for path in steps)}" in answer.out


@pytest.mark.parametrize("damage", ["another format", "cut"])
def test_a_walk_opens_no_grid_that_a_training_cannot_have_written(
    damage: str, call: Call, runs: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["grey"], run)
    path = next((run / "samples").glob("step-*.png"))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        Image.new("L", (8, 8)).save(path, "EPS")  # which Pillow would have Ghostscript read
    answer = call("walk", run, "--stops", 2, "--frames", 1, "--out", tmp_path / "walk")
    assert answer.line.startswith(f"gankit: {path} cannot be ")
    assert not (tmp_path / "walk").exists()


def test_walks_that_cannot_be_gone(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    for options, message in (
        (("--label", "up"), "there is no class 'up'"),
        (("--truncation", "0.5"), "generator resnet cannot truncate"),
        (("--stops", "1"), "--stops"),
        (("--animation", "mp4"), "--animation"),
    ):
        answer = call("walk", runs["classes"], *options, "--out", tmp_path / "walk")
        assert answer.code == 2
        assert message in answer.err
        assert not (tmp_path / "walk").exists()
    assert call("walk", runs["grey"], "--frames", 1, "--out", tmp_path / "grey").code == 0
    assert call("walk", runs["condition"], "--frames", 1, "--label", "6.5", "--out", tmp_path / "number").code == 0
    assert "not empty" in call("walk", runs["grey"], "--out", tmp_path / "grey").line
