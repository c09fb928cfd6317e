"""`gankit plan`: what it finds in images, what it proposes for them, and the file that it writes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gankit
from gankit.cli import app
from gankit.errors import GankitError
from gankit.interfaces import Dataset, ImageSpec, Known
from gankit.planning import proposal
from gankit.planning.findings import findings


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU that takes a hundredth of a second a step, whatever the step."""
    monkeypatch.setattr(proposal, "time_training", lambda experiment: 0.01)
    monkeypatch.setattr(proposal, "choose_device", lambda name: torch.device("cpu"))


def noise(n: int, *shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def arrays(path: Path, images: np.ndarray[Any, Any], **facts: Any) -> str:
    np.savez(path, images=images, **facts)
    return str(path)


def lines(place: str, out: Path, minutes: float = 60, recipe: str | None = None) -> list[str]:
    return list(proposal.plan(place, minutes, out, recipe))


class Divided(Dataset):
    """Images of which the first eight are for training and the others for a test."""

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], patients: Any) -> None:
        self._images = images
        splits = {"train": np.arange(8), "test": np.arange(8, len(images))}
        self._known = Known(labels=labels, class_names=("a", "b"), groups=patients, splits=splits)

    @property
    def image(self) -> ImageSpec:
        return ImageSpec(*self._images.shape[1:], classes=2)

    @property
    def images(self) -> np.ndarray[Any, Any]:
        return self._images

    @property
    def known(self) -> Known:
        return self._known


def test_copies_leaks_and_empty_images_are_found() -> None:
    images = noise(30, 3, 16, 16)
    images[7] = images[2]
    images[9] = np.clip(images[4].astype(int) + 1, 0, 255)  # nearly the same
    images[11], images[12] = 128, 130
    labels = np.arange(30) % 2  # 2 and 7 are of different classes, and so are 4 and 9
    patients = np.arange(30) // 2
    patients[20] = patients[0]
    data = Divided(images, labels, patients)
    assert list(findings(data)) == [
        "2 near-blank images, image 11, image 12: leave out those that show nothing",
        "2 duplicates of other images, such as image 2, image 7: remove them",
        "2 pairs of duplicates with different classes, such as image 2, image 7: correct them",
        "2 pairs of duplicates of different patients, such as image 2, image 7: "
        "keep each pair on one side, or held-out images are not new",
        "1 pair of duplicates across splits, such as image 4, image 9",
        "1 patient in more than one split, such as 0: keep each in one",
    ]
    assert not list(findings(gankit.wrap("dataset", noise(20, 1, 16, 16))))


def test_images_in_a_small_part_of_their_range_are_not_called_empty() -> None:
    """As signed DICOM files without a window: all values lie about the middle."""
    deep = 32768 + noise(30, 1, 16, 16).astype(np.uint16)
    (line,) = findings(gankit.wrap("dataset", deep))
    assert line.endswith(
        "and 25 more: 0 to 65535 is too wide a range for all; set value_range (of DICOM files a window)"
    )
    (line,) = findings(gankit.wrap("dataset", np.full((30, 1, 16, 16), 9, np.uint8)))
    assert line.endswith("leave out those that show nothing")


@pytest.mark.usefixtures("fast")
def test_a_data_set_s_name_comes_before_a_recipe_s(tmp_path: Path) -> None:
    """As for `eyes`, which is both, and takes longer to read."""

    class Few(Divided):
        def __init__(self) -> None:
            super().__init__(noise(60, 3, 32, 32), np.arange(60) % 2, np.arange(60))
            self._known = Known(labels=np.arange(60) % 2, class_names=("a", "b"))

    gankit.datasets.register("demo")(Few)
    assert lines("demo", tmp_path / "e.toml")[0].startswith("data demo: ")
    assert gankit.load(tmp_path / "e.toml").data.name == "demo"


@pytest.mark.usefixtures("fast")
def test_the_written_file_is_the_proposal_with_its_reasons(tmp_path: Path) -> None:
    place = arrays(tmp_path / "cells.npz", noise(300, 40, 60, 3), labels=np.array([0] * 60 + [1] * 240))
    said = lines(place, tmp_path / "cells.toml", minutes=10)
    experiment = gankit.load(tmp_path / "cells.toml")
    assert (experiment.data.size, experiment.data.held_out) == ((32, 48), 0.2)
    assert (experiment.data.conditional, experiment.data.balance) == (True, 0.5)
    assert experiment.augment.part.settings.policy == ("translation",)
    assert experiment.training.steps == 54_000  # of 10 minutes, nine tenths
    text = (tmp_path / "cells.toml").read_text()
    assert "balance = 0.5  # classes have 60 to 240 images" in text
    assert "# 60 held-out images: a precision or recall must differ by 18 points to be seen" in text
    assert said[0].startswith("data npz: 300 images of 40 x 60 pixels")
    assert said[-1] == f"next: gankit train {tmp_path / 'cells.toml'}"


@pytest.mark.usefixtures("fast")
def test_pictures_of_several_sizes_get_one(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(noise(24, 50, 36, 3)):
        Image.fromarray(image[: 40 + number % 3]).save(tmp_path / "photos" / f"{number}.png")
    said = lines(str(tmp_path / "photos"), tmp_path / "e.toml")
    data = gankit.load(tmp_path / "e.toml").data
    assert (data.name, data.size, data.held_out) == ("folder", (40, 32), 0.0)
    assert "a fifth of 24 images would judge nothing" in "".join(said)
    assert any("no distance (KID, FD) says anything" in line for line in said)


@pytest.mark.usefixtures("fast")
def test_what_the_data_do_not_allow_is_not_proposed(tmp_path: Path) -> None:
    facts = {"labels": np.array([0] * 12 + [1] * 188), "group": np.arange(200) % 3}
    said = "\n".join(lines(arrays(tmp_path / "a.npz", noise(200, 32, 32, 1)[..., 0], **facts), tmp_path / "a.toml"))
    experiment = gankit.load(tmp_path / "a.toml")
    assert experiment.data.held_out == 0
    assert "3 patients are too few to hold some out" in said
    facts = {"labels": np.array([0] * 11 + [1] * 189)}
    counts = noise(200, 32, 32).astype(np.uint16) * 200
    said = "\n".join(lines(arrays(tmp_path / "b.npz", counts, **facts), tmp_path / "b.toml", recipe="resnet"))
    experiment = gankit.load(tmp_path / "b.toml")
    assert experiment.data.conditional is False
    assert "class 0 has fewer than 10 images to train on (11 in all)" in said
    assert "classes: 0: 11, 1: 189\n" in said  # without an offer of what is refused
    asked = f'{{name = "npz", path = "{tmp_path / "b.npz"}", conditional = true}}'
    said = "\n".join(lines(asked, tmp_path / "c.toml", recipe="resnet"))
    assert "look: data.conditional: fewer than 10 training images of class 0: merge it with another" in said
    assert gankit.load(tmp_path / "c.toml").data.conditional is True
    assert experiment.augment.part.settings.policy == ("translation", "cutout")  # 16 bits may be measurements


@pytest.mark.usefixtures("fast")
def test_splits_of_the_data_s_own_are_used(tmp_path: Path) -> None:
    labels = np.array([0] * 5 + [1] * 25)  # of the first class, most are in the other split
    np.savez(
        tmp_path / "a.npz", train_images=noise(30, 32, 32, 3), train_labels=labels,
        test_images=noise(64, 32, 32, 3, seed=1), test_labels=np.arange(64) % 2,
    )  # fmt: skip
    said = "\n".join(lines(str(tmp_path / "a.npz"), tmp_path / "a.toml"))
    experiment = gankit.load(tmp_path / "a.toml")
    assert (experiment.data.held_out, experiment.data.conditional) == (0.0, False)
    assert "64 images of the split test: a precision or recall must differ by 18 points" in said
    assert "none are held out" not in said
    assert "class 0 has fewer than 10 images to train on (5 in all)" in said
    table = f'{{name = "npz", path = "{tmp_path / "a.npz"}", split = "test"}}'
    said = "\n".join(lines(table, tmp_path / "b.toml"))  # to train on the images of the other split
    assert gankit.load(tmp_path / "b.toml").data.conditional is True
    assert "its settings for 64 images" in said
    assert "a fifth of 64 images would judge nothing" in said
    assert "64 training images: a precision or recall must differ by 18 points" in said
    assert "none are held out" in said


@pytest.mark.usefixtures("fast")
def test_a_split_that_is_trained_on_is_not_the_one_to_judge_with(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", test_images=noise(64, 32, 32, 3))  # without images to train on, all are trained on
    said = "\n".join(lines(str(tmp_path / "a.npz"), tmp_path / "a.toml"))
    assert "64 training images: a precision or recall" in said
    assert "none are held out" in said


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("side", [32, 64])
def test_deep_images_get_the_range_that_they_use(side: int, tmp_path: Path) -> None:
    images = noise(100, side, side).astype(np.uint16) * 16
    images[3, 5, 5] = 5000  # a bright pixel that resizing blurs
    said = "\n".join(lines(arrays(tmp_path / "a.npz", images), tmp_path / "a.toml"))
    assert "data.value_range = [0, 8191]: no value is above 5000" in said
    assert gankit.load(tmp_path / "a.toml").data.settings.value_range == (0, 8191)
    assert "near-blank" not in said


@pytest.mark.parametrize(
    ("place", "minutes", "message"),
    [
        ("few.npz", 60, "5 training images to learn from"),
        ("enough.npz", 0.01, "--minutes 0.01 is enough for 54 steps here .* give --minutes"),
        ("labels.csv", 60, "labels.csv: it is neither a folder nor an npz or npy file; name the folder"),
        ("demo", 60, "demo: it is a recipe, and a plan starts from images"),
        ("divided.npz", 60, "3 training images to learn from"),
        ('{name = "npz", path = "enough.npz", held_out = 0.9}', 60, "4 training images to learn from"),
        ("nothing", 60, "there is no folder, npz file or data set of this name"),
        ("{name = 3}", 60, "name"),
        ('{name = "npz"}', 60, "path"),
    ],
)
@pytest.mark.usefixtures("fast")
def test_what_cannot_be_planned_writes_nothing(
    place: str, minutes: float, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").touch()
    arrays(tmp_path / "few.npz", noise(5, 32, 32, 3))
    arrays(tmp_path / "enough.npz", noise(40, 32, 32, 3))
    np.savez(tmp_path / "divided.npz", train_images=noise(3, 32, 32, 3), test_images=noise(40, 32, 32, 3))
    with pytest.raises(GankitError, match=message):
        lines(place, tmp_path / "e.toml", minutes)
    assert not (tmp_path / "e.toml").exists()


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text("mine")
    with pytest.raises(GankitError, match="there is such a file already"):
        lines("eyes", tmp_path / "e.toml")
    assert (tmp_path / "e.toml").read_text() == "mine"


@pytest.mark.usefixtures("fast")
def test_a_file_that_came_while_it_measured_stays(tmp_path: Path) -> None:
    arrays(tmp_path / "a.npz", noise(20, 32, 32, 3))
    out = tmp_path / "e.toml"
    said = proposal.plan(str(tmp_path / "a.npz"), 60, out)
    next(said)
    out.write_text("theirs")
    with pytest.raises(GankitError, match="there is such a file already"):
        list(said)
    assert out.read_text() == "theirs"


@pytest.mark.parametrize("out", ["missing/e.toml", "e.json", "e.YAML"])
def test_a_file_that_could_not_be_written_or_read_is_refused_before_the_work(out: str, tmp_path: Path) -> None:
    with pytest.raises(GankitError, match=r"must be a \.toml file in a folder that exists"):
        lines("eyes", tmp_path / out)


@pytest.mark.parametrize("minutes", ["inf", "1e308"])
def test_minutes_are_bounded(minutes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        app(["plan", "eyes", "--minutes", minutes, "--out", str(tmp_path / "e.toml")])
    said = capsys.readouterr().err
    assert re.search(r"less than or equal to 1000000\b|0\.1<=x<=1000000", said), said  # by the version of Typer
    with pytest.raises(GankitError, match="--minutes nan: a number above 0 is needed"):
        lines("eyes", tmp_path / "e.toml", float("nan"))


@pytest.mark.usefixtures("fast")
def test_the_written_file_is_toml_whatever_the_names(tmp_path: Path) -> None:
    folder = tmp_path / 'we"ird\x7f\\'
    folder.mkdir()
    for number, image in enumerate(noise(20, 32, 32, 3)):
        Image.fromarray(image).save(folder / f"{number}.png")
    lines(str(folder), tmp_path / "e.toml")
    assert tomllib.loads((tmp_path / "e.toml").read_text(encoding="utf-8"))["data"]["path"] == str(folder)
    table = {"root": "a", "options": {"split": "train", "sizes": [1, {"a": True}]}}
    assert tomllib.loads("\n".join(proposal._line(*each) for each in table.items())) == table
