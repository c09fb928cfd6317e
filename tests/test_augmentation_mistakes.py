"""Settings, data and folders that do not serve a study of augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import augmentation_data
import numpy as np
import pytest
from augmentation_data import (
    CLASSES,
    COUNTS,
    FAST,
    FEW,
    NO_CONTROLS,
    OTHERS,
    N,
    Write,
    draw_images,
    rows,
    study,
    write_images,
)
from small_studies import save_arrays

from gankit.errors import BusyError, DataError, GankitError, RunError, SettingsError
from gankit.evaluation.design import visible_difference
from gankit.files import sole_writer
from gankit.images.pictures import save_image
from gankit.studies.augmentation.endpoint import Endpoint
from gankit.studies.augmentation.study import AugmentationStudy
from gankit.studies.commands import own_options

write = augmentation_data.write


def test_keys_of_the_table_are_options_of_the_command() -> None:
    words = ["--folds", "3", "data.size=32", "--export-folds=a b", "--classical.rotate", "0"]
    assert own_options("augmentation", words) == [
        "augmentation.folds=3", "data.size=32", "augmentation.export_folds=a b", "augmentation.classical.rotate=0",
    ]  # fmt: skip
    with pytest.raises(SettingsError, match=r"--worker: the command has no such option, .*; did you mean 'workers'"):
        own_options("augmentation", ["--worker", "2"])
    with pytest.raises(SettingsError, match=r"--folds: a value is needed, as in --folds VALUE; it sets augmentation\."):
        own_options("augmentation", ["--folds"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["augmentation.endpoint=presence"], "augmentation.positive: the endpoint presence needs"),
        (["augmentation.endpoint=severity"], "augmentation.number: the endpoint severity needs"),
        (["augmentation.generator=false"], "^overrides: augmentation.arms: generated images need a source"),
        (['augmentation.arms=["real"]'], "augmentation.arms: generated images need a source"),
        (['augmentation.arms=["synthetic"]'], "augmentation.arms: no baseline"),
        (["augmentation.ratios=[]"], "augmentation.ratios: "),
        (["augmentation.strengths=[0.3333333,0.33333334]"], "augmentation.strengths: .*name each only once"),
        (['augmentation.positive=["few", "few"]'], "augmentation.positive: .*name each only once"),
        (['augmentation.others={copies={images="x"}}'], "'copies' is a source or an arm of the study's own"),
        (['augmentation.others={only={images="x"}}'], "'only' is a source or an arm of the study's own"),
        (["augmentation.others={x={}}"], "either images or command is needed"),
        (["augmentation.network=resnet81"], "torchvision has no network 'resnet81'"),
        (['data.conditional=["severity"]'], "data.conditional: the study conditions its generator"),
    ],
)
def test_settings_that_do_not_fit(write: Write, overrides: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as found:
        study(write(), *overrides)
    assert len(str(found.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "overrides", "words"),
    [
        ({"labels": None, "class_names": None}, [], "the data have no labels of two classes or more"),
        ({"labels": np.zeros(N, int), "class_names": ["one"]}, [], "the data have no labels of two classes or more"),
        ({"groups": np.zeros(N, int)}, [], r"all 120 images are of 1 group \(patient\)"),
        ({"groups": np.repeat(range(6), 20)}, [], r"class 'few' is in 2 groups \(patients\), and 4 are needed"),
        ({"groups": None, "labels": np.repeat([0, 1], (117, 3))}, [], "class 'few' is in 3 images, and 4 are needed"),
        ({}, ["augmentation.endpoint=severity", "augmentation.number=sevrity"], "did you mean 'severity'"),
        ({"severity": np.full(N, np.nan)}, ["augmentation.endpoint=severity", "augmentation.number=severity"],
         "severity has missing values"),
        ({}, ["data.min_agreement=0.6"], "the data set does not record how many raters agreed"),
        ({"agreement": np.where(np.arange(N) < 3, np.nan, 1)}, ["data.min_agreement=0.6"], "NaN|no ratings|agreement"),
        ({}, ['augmentation.positive=["fw"]'], "npz has no class 'fw'; did you mean 'few'"),
        ({}, ['augmentation.positive=["many", "few"]'], "every class is positive"),
        ({}, ["augmentation.estimator=LogisticRegresion"], "has no classifier 'LogisticRegresion'; did you mean"),
        ({}, ["augmentation.estimator=json.JSONDecoder"], "json.JSONDecoder is not a scikit-learn estimator"),
        ({}, ["augmentation.estimator=nowhere.Forest"], "nowhere.Forest cannot be imported"),
        ({}, ["augmentation.estimator=.Forest"], ".Forest cannot be imported"),
        ({}, ["augmentation.estimator=SVC", 'augmentation.options={decision_function_shape="ovo"}'],
         "SVC is not a classifier with predict_proba, or decision_function by class"),
        ({}, [*FAST, "augmentation.options={D=1}"], "augmentation.options: LogisticRegression cannot be made"),
        ({}, ["augmentation.estimator=KNeighborsClassifier"], "KNeighborsClassifier takes no weights for images"),
        ({}, ['augmentation.others={x={command="none.py"}}'], "there is no file none.py"),
        ({}, ["augmentation.ratios=[1.0, 0.001]"], r"augmentation\.ratios: 0\.001 adds no image to any class"),
        ({"labels": np.repeat([0, 1], N // 2), "groups": None},
         [NO_CONTROLS, FEW, 'augmentation.ratios=["fill"]', "augmentation.validation=3"],
         r"augmentation\.ratios: nothing is added in fold-1, fold-2, whose classes are equally frequent"),
        ({}, ["generator.norm=none"], "uses labels in its normalisation"),
        ({}, ["augmentation.network=squeezenet1_1"], r"augmentation\.network: .* set augmentation\.input_size=224"),
    ],
)  # fmt: skip
def test_data_that_do_not_fit(
    write: Write, tmp_path: Path, more: dict[str, Any], overrides: list[str], words: str
) -> None:
    with pytest.raises(GankitError, match=words) as found:
        study(write(**more), *overrides).run(tmp_path / "out", quiet=True)
    assert len(str(found.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("setting", ["validation", "reserve"])
def test_parts_to_choose_on_are_fewer_where_no_class_has_so_many_cases(write: Write, setting: str) -> None:
    labels = np.repeat([0, 1], 10)
    path = write(images=draw_images(labels, 0), labels=labels, groups=None, severity=None)
    for fold in study(path, f"augmentation.{setting}=40").folds:
        assert all(len(np.unique(labels[places])) == 2 for places in fold.places.values())


def test_folders_of_others_that_do_not_serve(write: Write, tmp_path: Path) -> None:
    folds = tmp_path / "folds"
    whole = study(write(), *OTHERS, FEW, f'augmentation.others={{x={{images="{folds}"}}}}')
    labels = np.repeat([0, 1], 60)

    def refused(words: str) -> None:
        with pytest.raises(GankitError, match=words):
            whole.run(tmp_path / "out", quiet=True)
        assert not (tmp_path / "out").exists()

    refused("no generated images for fold-1, fold-2: put them into FOLD/generated/CLASS/")
    write_images(folds / "fold-1" / "generated", draw_images(labels, 1), labels)
    refused("no generated images for fold-2: put them")
    second = folds / "fold-2" / "generated"
    write_images(second, np.zeros((120, 9, 8), np.uint8), labels)
    refused(r"images are uint8 of 1 x 9 x 8 \(channels, height, width\), and those of the study uint8 of 1 x 8 x 8")
    write_images(second, draw_images(labels, 1), labels)
    save_image(second / "few" / "00099", np.zeros((1, 9, 8), np.uint8))  # one among many
    refused(r"pictures have 2 sizes, from 8 x 8 \(.*\) to 9 x 8 \(.*few/00099\.png\)")
    for path in second.glob("few/*.png"):
        path.unlink()
    refused("0 images of 'few', and")
    write_images(second, draw_images(labels, 1), labels, ["fw", "few"])
    refused("the study has no class 'fw'; name the folders many, few")


@pytest.mark.parametrize("changed", ["images of others", "an image", "a label", "a number"])
def test_a_study_does_not_go_on_with_other_images(write: Write, tmp_path: Path, changed: str) -> None:
    """Its jobs have judged the ones that were there."""
    labels, severity = np.repeat([0, 1], COUNTS), np.arange(N) % 20.0
    path, folds = tmp_path / "data.npz", tmp_path / "folds"
    arrays = {"images": draw_images(labels, 0), "labels": labels, "class_names": CLASSES, "severity": severity}

    def whole() -> AugmentationStudy:
        save_arrays(path, arrays)
        return study(path, *OTHERS[:1], NO_CONTROLS, f'augmentation.others={{x={{images="{folds}"}}}}',
                     'augmentation.arms=["real", "synthetic"]', "augmentation.endpoint=severity",
                     "augmentation.number=severity", "augmentation.estimator=Ridge")  # fmt: skip

    def write_folds() -> None:
        for number in (1, 2):
            folder = folds / f"fold-{number}" / "generated"
            write_images(folder, draw_images(labels[20:], 1), labels[20:])
            files = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.png"))
            (folder / "labels.csv").write_text("file,class,severity\n" + "".join(
                f"{file},{file.partition('/')[0]},3\n" for file in files))  # fmt: skip

    write_folds()
    found = whole().run(tmp_path / "out", quiet=True).values
    assert whole().run(tmp_path / "out", quiet=True).values == found
    what = "the data"
    if changed == "images of others":
        what = "images of x for fold-1"
        save_image(folds / "fold-1" / "generated" / "many" / "00003", np.zeros((1, 8, 8), np.uint8))
    elif changed == "an image":
        arrays["images"][0, 0, 0] ^= 1
    elif changed == "a label":
        arrays["labels"] = np.where(np.arange(N) == 3, 1, labels)
    else:
        severity[5] += 1
    with pytest.raises(RunError, match=f"out: {what} changed since this study began; put back what was there, or"):
        whole().run(tmp_path / "out", quiet=True)


def test_what_a_study_of_so_many_cases_can_see_is_in_the_units_of_its_endpoint(write: Write) -> None:
    labels = np.repeat([0, 1, 2], (60, 40, 20))
    path = write(images=draw_images(labels, 0), labels=labels, groups=None, class_names=["a", "b", "c"])

    def seen(*overrides: str) -> float | None:
        whole = study(path, *overrides)
        return Endpoint(whole).visible(whole.division.dataset)

    assert seen() == visible_difference([60, 40, 20], 2)
    assert seen("augmentation.endpoint=presence", 'augmentation.positive=["b", "c"]') == visible_difference([60, 60], 2)
    assert seen("augmentation.endpoint=severity", "augmentation.number=severity") is None


def test_a_folder_of_other_folds_is_refused(write: Write, tmp_path: Path) -> None:
    path, folds = write(), f"augmentation.export_folds={tmp_path / 'folds'}"
    with pytest.raises(RunError, match="no generated images for fold-1"):
        study(path, *OTHERS, FEW, folds).run(tmp_path / "out", quiet=True)
    with pytest.raises(RunError, match="fold-1 holds the fold of other data or settings; choose another folder"):
        study(path, *OTHERS, FEW, folds, "training.seed=5").run(tmp_path / "out", quiet=True)


def test_images_that_a_stopped_export_of_other_folds_left_are_not_handed_over(write: Write, tmp_path: Path) -> None:
    """They may be test images of the folds that are written now."""
    folds = f"augmentation.export_folds={tmp_path / 'folds'}"
    left = tmp_path / "folds" / "fold-1" / "train" / "many" / "000999.png"
    left.parent.mkdir(parents=True)
    left.touch()
    whole = study(write(), *OTHERS, FEW, folds)
    with pytest.raises(
        RunError, match=r"fold-1/train is not empty; and there is no train\.csv of what it holds: delete"
    ):
        whole.run(tmp_path / "out", quiet=True)
    assert left.exists()


def test_folds_that_another_process_writes_are_left_to_it(write: Write, tmp_path: Path) -> None:
    folds = f"augmentation.export_folds={tmp_path / 'folds'}"
    with sole_writer(tmp_path / "folds" / "fold-1"), pytest.raises(BusyError, match=r"fold-1: process .* is writing"):
        study(write(), *OTHERS, FEW, folds).run(tmp_path / "out", quiet=True)


def test_a_number_does_not_take_the_place_of_another_column(write: Write, tmp_path: Path) -> None:
    severity = ["augmentation.endpoint=severity", "augmentation.estimator=Ridge", "augmentation.options={}"]
    path = write(digest=np.arange(N) % 7.0)
    whole = study(path, *OTHERS, *severity, "augmentation.number=digest", 'augmentation.arms=["real", "synthetic"]',
                  f"augmentation.export_folds={tmp_path / 'folds'}")  # fmt: skip
    with pytest.raises(DataError, match=r"number: digest is another column of train\.csv, .* give the number another"):
        whole.run(tmp_path / "out", quiet=True)
    assert not (tmp_path / "folds").exists()


def test_a_study_that_needs_more_images_says_how_many(write: Write, tmp_path: Path) -> None:
    path, wanted = write(), []
    for ratio in (1.0, 2.0):
        folds = f"augmentation.export_folds={tmp_path / 'folds'}"
        whole = study(path, *OTHERS, FEW, folds, f"augmentation.ratios=[{ratio}]")
        with pytest.raises(RunError, match="no generated images for fold-1"):
            whole.run(tmp_path / "out", quiet=True)
        wanted.append([int(row["images"]) for row in rows(tmp_path / "folds" / "fold-1" / "wanted.csv")])
    assert wanted[1] == [2 * count for count in wanted[0]]


@pytest.mark.parametrize(("folds", "out"), [("o", "o"), ("o/folds", "o"), ("folds", "folds/fold-2")])
def test_folds_and_study_do_not_share_a_folder(folds: str, out: str, write: Write, tmp_path: Path) -> None:
    exported = f"augmentation.export_folds={tmp_path / folds}"
    with pytest.raises(RunError, match="overlap; choose one outside it"):
        study(write(), *OTHERS, FEW, exported).run(tmp_path / out, quiet=True)
    assert not (tmp_path / out).exists()
    assert not (tmp_path / folds).exists()


def test_float_images_are_not_handed_over(write: Write, tmp_path: Path) -> None:
    path = write(images=draw_images(np.repeat([0, 1], COUNTS), 0).astype(np.float32))
    with pytest.raises(DataError, match="images of float32 with 1 channels cannot be handed over as pictures"):
        study(path, "data.value_range=[0, 255]", *OTHERS, FEW, f"augmentation.export_folds={tmp_path}").run(
            tmp_path / "o"
        )
