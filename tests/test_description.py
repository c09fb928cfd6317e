"""What `gankit check` and the start of a training say of the data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import error, pixels, save

import gankit
from gankit.datasets.folder import Folder
from gankit.errors import DataError
from gankit.experiments.selection import open_dataset
from gankit.experiments.tables import DataTable
from gankit.images.decoding import NAMED
from gankit.training.data import prepare
from gankit.training.description import data_warnings, describe, summarise

CLASSES = ("cat", "dog", "owl")
ROWS = ["filename,class,patient_id,rater1,rater2,age,site"] + [
    f"{name}/{i}.png,{name},p{i // 2},{name},{CLASSES[0]},{i},a" for name in CLASSES for i in range(4)
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve photographs of three classes, with a table."""
    for number, name in enumerate(CLASSES):
        for i in range(4):
            save(tmp_path / "photos" / name / f"{i}.png", pixels(20, 24, 3, seed=10 * number + i))
    (tmp_path / "photos" / "labels.csv").write_text("\n".join(ROWS))
    return tmp_path / "photos"


def said(**table: object) -> list[str]:
    data = DataTable.model_validate(table)
    return list(describe(data, open_dataset(data)))


def test_a_folder_is_described(photos: Path) -> None:
    assert said(name="folder", path=str(photos), size=8) == [
        "data folder: 12 images of 20 x 24 pixels (height x width), resized to 8 x 8, colour, 8 bits",
        "  classes: cat: 4, dog: 4, owl: 4 (column `class`)",
        "  patients: 2, with 6 images each (column `patient_id`)",
        "  raters: 2 (columns `rater1`, `rater2`); on average 67% agree with the label, and all of them on 4 images",
        "  unused: age, site (kept as facts; numbers can be conditions: data.conditional=[NAME])",
    ]
    assert said(name="folder", path=str(photos), conditional=["age"])[-1].startswith("  unused: site (")


def test_what_is_not_known_is_said(photos: Path) -> None:
    (photos / "labels.csv").write_text("file\n" + "\n".join(f"owl/{i}.png" for i in range(4)))
    lines = said(name="folder", path=str(photos), unlisted="skip")
    assert lines[1:] == [
        "  classes: none (sub-folders, a column `label` in labels.csv, or an array `labels` name them)",
        "  patients: not known: each image is taken to be of a different patient "
        "(a column `patient` in labels.csv, or an array `groups`, says which patient each is of)",
        "  left out: 8 images without a row: cat/0.png, cat/1.png, cat/2.png, cat/3.png, dog/0.png, dog/1.png, "
        "dog/2.png, dog/3.png",
    ]


def test_sub_folders_that_are_not_read_as_classes_are_named(photos: Path) -> None:
    (photos / "labels.csv").write_text("file\n" + "\n".join(row.split(",")[0] for row in ROWS[1:]))
    assert said(name="folder", path=str(photos))[1] == (
        "  classes: none (add a column `label` to the table, which overrides the sub-folders cat, dog, owl)"
    )


def test_values_that_are_darker_than_their_depth_are_pointed_out(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.array([[0, 3000]], np.uint16))
    first = said(name="folder", path=str(tmp_path))[0]
    assert first.endswith(
        "grey, 16 bits, but no value above 3000: white is 65535 unless data.value_range=[0,4095] says otherwise"
    )
    assert "unless" not in said(name="folder", path=str(tmp_path), value_range=[0, 4095])[0]


def test_columns_that_may_be_votes_are_asked_about(photos: Path) -> None:
    (photos / "labels.csv").write_text("\n".join(ROWS).replace("rater1", "anna").replace("rater2", "ben"))
    asked = "  possible votes: anna, ben: names of classes; if raters gave them, call the columns vote_1, vote_2, ..."
    assert said(name="folder", path=str(photos))[-1] == asked


@pytest.mark.parametrize("around", ["one folder", "train/one folder"])
def test_a_folder_around_the_classes_is_named(photos: Path, around: str) -> None:
    (photos / "labels.csv").unlink()
    inner = photos.parent / "outer" / around
    inner.parent.mkdir(parents=True)
    shutil.move(photos, inner)
    table = DataTable.model_validate({"name": "folder", "path": str(photos.parent / "outer")})
    (line,) = data_warnings(prepare(table, 0))
    assert line.startswith("data: all images lie in 'one folder': for its sub-folders as classes move them out")
    data = prepare(DataTable.model_validate({"name": "folder", "path": str(inner)}), 0)
    assert data_warnings(data) == [], "as the caution advises"
    assert len(data.dataset.class_names) == 3


def test_rare_and_empty_classes_are_told_where_networks_are_given_the_class() -> None:
    def told(counts: list[int], conditional: bool = True) -> list[str]:
        table = {"name": "eyes", "size": 32, "counts": counts, "conditional": conditional}
        return data_warnings(prepare(DataTable.model_validate(table), 0))

    rare = "data.conditional: fewer than 10 training images of"
    assert told([9, 10, 1]) == [
        f"{rare} each of the classes exotropia, normal: merge them with others, or set data.conditional=false"
    ]
    assert told([10, 10, 1]) == [f"{rare} class normal: merge it with another, or set data.conditional=false"]
    assert told([0, 12, 10]) == ["data: no training image is of class exotropia: samples of it mean nothing"]
    assert told([0, 12, 0]) == [
        "data: no training image is of the classes exotropia, normal: samples of them mean nothing"
    ]
    assert told([9, 10, 1], conditional=False) == []


def test_one_class_is_no_folder_around_others(photos: Path) -> None:
    (photos / "labels.csv").unlink()
    shutil.move(photos / "cat", photos.parent / "one" / "cat")
    assert (
        data_warnings(prepare(DataTable.model_validate({"name": "folder", "path": str(photos.parent / "one")}), 0))
        == []
    )


def test_a_table_that_is_not_read_is_named(photos: Path) -> None:
    (photos / "labels.csv").rename(photos / "metadata.csv")
    assert said(name="folder", path=str(photos))[-1].startswith("  not read: metadata.csv (data.table=... reads it")
    assert "not read" not in " ".join(said(name="folder", path=str(photos), table="metadata.csv"))
    (photos / "metadata.csv").rename(photos / "Labels.CSV")
    assert said(name="folder", path=str(photos))[2] == "  patients: 2, with 6 images each (column `patient_id`)"
    (photos / "labels.xlsx").write_bytes(b"x")
    assert "labels.xlsx is a spreadsheet; save it as CSV UTF-8" in error(lambda: Folder(path=photos).image)


def test_arrays_and_torchvision_s_sets_are_described_alike(tmp_path: Path) -> None:
    images = pixels(9, 6, 6, dtype=np.uint16)
    np.savez(tmp_path / "a.npz", train_images=images[:6], test_images=images[6:], train_labels=np.arange(6) % 2,
             test_labels=np.zeros(3, int), train_groups=np.arange(6), test_groups=np.arange(3) + 9)  # fmt: skip
    assert said(name="npz", path=str(tmp_path / "a.npz"), size=4) == [
        "data npz: 9 images of 6 x 6 pixels (height x width), resized to 4 x 4, grey, 16 bits",
        "  classes: 0: 6, 1: 3",
        "  patients: 9, with 1 image each",
        "  splits: train 6, test 3",
    ]
    np.savez(tmp_path / "b.npz", images=np.zeros((3, 4, 4, 3)))
    first, *_ = said(name="npz", path=str(tmp_path / "b.npz"), value_range=[-1, 2])
    assert first.endswith("colour, float32 from -1 (black) to 2 (white)")
    fake = {"size": 5, "image_size": [3, 9, 9], "num_classes": 2}
    first, classes, _ = said(name="torchvision", dataset="FakeData", options=fake)
    assert first == "data torchvision: 5 images of 9 x 9 pixels (height x width), colour, 8 bits"
    assert classes.startswith("  classes: 0: ")


def test_many_sizes_are_summed_up(photos: Path) -> None:
    save(photos / "cat" / "0.png", pixels(5, 9, 3))
    assert said(name="folder", path=str(photos), size=8)[0].startswith(
        "data folder: 12 images of 5 x 9 and 20 x 24 pixels"
    )
    save(photos / "cat" / "1.png", pixels(40, 30, 3))
    first, *_ = said(name="folder", path=str(photos), size=8)
    assert first.startswith("data folder: 12 images of 3 sizes between 5 x 9 and 40 x 30 pixels (height x width), ")


def test_what_networks_are_trained_on_is_one_line(photos: Path) -> None:
    rows = "".join(f"{name}/{i}.png,{name},p{number}{i}\n" for number, name in enumerate(CLASSES) for i in range(4))
    (photos / "labels.csv").write_text(f"file,label,group\n{rows}")
    table = DataTable.model_validate({"name": "folder", "path": str(photos), "held_out": 0.25})
    line = summarise(prepare(table, 0))
    assert line.startswith("20 x 24 pixels; 9 images (cat: ")
    assert "of 9 patients; held out: 3 images (cat: " in line


@pytest.mark.parametrize(
    ("settings", "possible"),
    [
        ({}, True),
        ({"held_out": 0.1}, True),
        ({"held_out": 0.3}, False),  # 9 of a class are left to train on
        ({"subset": 15}, False),
        ({"conditional": True}, False),
        ({"conditional": ["age"]}, False),
        ({"split": "test"}, False),  # which is refused where the images are selected
    ],
)
def test_classes_are_offered_to_the_networks_where_each_has_enough_images(
    settings: dict[str, Any], possible: bool, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", images=pixels(26, 6, 6), labels=np.arange(26) % 2, age=np.arange(26.0))
    line = said(name="npz", path=str(tmp_path / "a.npz"), **settings)[1]
    assert line == "  classes: 0: 13, 1: 13" + "; data.conditional=true gives them to the networks" * possible


def test_every_damaged_picture_is_named(photos: Path) -> None:
    (photos / "labels.csv").unlink()
    files = sorted(photos.rglob("*.png"))
    for file in files[2:4]:
        file.write_bytes(file.read_bytes()[:200])
    text = error(lambda: Folder(path=photos).images)
    assert text.startswith(f"{files[2]} cannot be decoded (")
    assert text.endswith(f"; 2 of 12 pictures have a problem: {files[2]}, {files[3]}")
    files[0].write_bytes(b"no picture")
    assert "3 of 12 pictures have a problem" in error(lambda: Folder(path=photos).image), "the first one too"
    files[0].write_bytes(files[1].read_bytes())
    files[2].write_bytes(b"no picture")
    text = error(lambda: Folder((8, 8), path=photos).stored_sizes)
    assert f"2 of 12 pictures have a problem: {files[2]}, {files[3]}" in text, "those that have no header too"
    files[0].write_bytes(b"no picture")
    for file in files[4:]:
        save(file, pixels(20, 25))
    text = error(lambda: Folder(path=photos).images)
    assert text.startswith(f"{files[0]} cannot be read (no PNG")
    assert text.endswith(", ".join(map(str, [files[0], files[2], *files[3:6]])) + ", ...")
    assert f"{3 + 8} of 12 pictures" in text
    assert len(text.partition("have a problem")[2].split(", ")) == NAMED + 1


def test_what_is_known_is_said_before_damage(photos: Path) -> None:
    (photos / "dog" / "1.png").write_bytes(b"")
    table = DataTable.model_validate({"name": "folder", "path": str(photos)})
    lines = describe(table, open_dataset(table))
    assert next(lines) == "data folder: 12 images"
    assert next(lines).startswith("  classes: cat: 4")
    with pytest.raises(DataError, match=r"dog/1\.png cannot be read"):
        list(lines)


@pytest.mark.parametrize("damage", ["a broken picture", "another size", "two columns of patients"])
def test_a_start_that_fails_on_data_leaves_nothing(
    photos: Path, small: Callable[..., list[str]], tmp_path: Path, damage: str
) -> None:
    if damage == "a broken picture":
        whole = (photos / "owl" / "3.png").read_bytes()
        (photos / "owl" / "3.png").write_bytes(whole[: len(whole) // 2])
    elif damage == "another size":
        save(photos / "owl" / "3.png", pixels(24, 20, 3))
    else:
        (photos / "labels.csv").write_text("\n".join(row.replace("site", "case") for row in ROWS))
    settings = [text for text in small() if not text.startswith("data.")]
    experiment = gankit.load("wgan-gp", *settings, "data.name=folder", f"data.path={photos}")
    with pytest.raises(DataError):
        gankit.train(experiment, tmp_path / "runs" / "mine")
    assert not (tmp_path / "runs").exists()
    shutil.rmtree(photos)
    with pytest.raises(DataError):
        gankit.train(experiment, tmp_path / "runs" / "mine")
    assert not (tmp_path / "runs").exists()


def test_a_recipe_s_settings_of_its_own_data_do_not_reach_others(photos: Path) -> None:
    recipe = gankit.load("demo")
    assert (recipe.data.size, recipe.data.flip, recipe.evaluation.count) == (32, True, 500)
    folder = ["data.name=folder", f"data.path={photos}"]
    for other in (gankit.load("demo", *folder), gankit.load(recipe, *folder), recipe.for_given_data()):
        assert (other.data.size, other.data.flip, other.evaluation.count) == (None, False, None)
    kept = gankit.load("demo", "data.size=16", "evaluation.count=7", "data.flip=true", *folder)
    for other in (kept, kept.for_given_data()):
        assert (other.data.size, other.data.flip, other.evaluation.count) == (16, True, 7)
    assert gankit.load("demo", "data.seed=3").evaluation.count == 500, "the same data set"
