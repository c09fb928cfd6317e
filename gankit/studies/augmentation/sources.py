"""Where generated images come from: the experiment's generator, a folder, or a program that is run for each fold."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from bisect import bisect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gankit.errors import DataError, RunError, first_of, one_line
from gankit.evaluation.design import Floats
from gankit.evaluation.folds import GENERATED
from gankit.files import open_atomically, user_path, write_atomically
from gankit.images.pictures import fits_png
from gankit.interfaces import Dataset, Indices, Rows
from gankit.metrics.leakage import NEAR_COPY, Thumbnail, duplicates, thumbnails
from gankit.registry import build
from gankit.registry.trust import check_trust
from gankit.runs.run import Run
from gankit.seeds import derive_seed
from gankit.studies.augmentation.arms import FILL
from gankit.studies.augmentation.folds import Fold
from gankit.studies.augmentation.handover import COLUMNS, WANTED, class_folders, write_fold
from gankit.studies.augmentation.learning import MADE, added_counts, most_added
from gankit.studies.augmentation.settings import EXPORTED
from gankit.studies.fitting import Images
from gankit.studies.kinds import GENERATOR, Examples, Labels, sample_classes
from gankit.studies.labelled import agreed_places, class_labels, content_digest
from gankit.studies.privacy import judge_privacy
from gankit.studies.trainings import RUN, train_or_resume

if TYPE_CHECKING:
    from gankit.studies.augmentation.study import AugmentationStudy

CHANCE = 0.01  # probability, at most, of an alarm by Fisher's test where there is no leak
FAR = 8 * NEAR_COPY  # by chance hardly any image has a near copy, and no other image nearer than this
PAIRS = 8  # the most pairs of a leak that are kept


def folder_of(study: AugmentationStudy, source: str) -> Path | None:
    """The folder that holds the images of another program for all folds; None where a job runs the program."""
    images = study.settings.outside[source].images
    return None if images is None else user_path(images)


def check_sources(study: AugmentationStudy, own: Path) -> None:
    """Refuse ratios that add nothing and missing images of other programs; write the folds for these programs.

    `own` is the folder of the study.

    Raises:
        GankitError: a ratio adds no image, images are missing, or a program is missing or not trusted.
    """
    settings, learn = study.settings, study.fold(1).learn
    _check_ratios(study)
    if settings.outside and not fits_png(learn.dtype, learn.image.channels):
        raise DataError(
            f"augmentation.others: images of {learn.dtype} with {learn.image.channels} channels cannot be handed over "
            "as pictures; 8-bit grey or colour and 16-bit grey ones can"
        )
    hands_over = settings.export_folds or any(other.command for other in settings.others.values())
    if hands_over and settings.endpoint == "severity" and str(settings.number).casefold() in COLUMNS:
        raise DataError(
            f"augmentation.number: {settings.number} is another column of train.csv, in which folds are handed over; "
            "give the number another name in the data"
        )
    if settings.export_folds is not None:
        _export_folds(study, user_path(settings.export_folds), own)
    for source in settings.outside:
        _check_source(study, source)


def _check_ratios(study: AugmentationStudy) -> None:
    for ratio in study.settings.ratios:
        if ratio != FILL and not any(added_counts(fold, ratio).any() for fold in study.folds):
            raise DataError(f"augmentation.ratios: {ratio} adds no image to any class of these data; raise it")
    if idle := [fold.name for fold in study.folds if not most_added(fold, study).any()]:
        raise DataError(
            f"augmentation.ratios: nothing is added in {first_of(idle)}, whose classes are equally frequent; give a "
            "number"
        )


def _export_folds(study: AugmentationStudy, exported: Path, own: Path) -> None:
    place, folder = exported.resolve(), own.resolve()
    # A study's folder must be empty at first, and a fold's folder must hold nothing else
    if place.is_relative_to(folder) or any(folder.is_relative_to(place / fold.name) for fold in study.folds):
        raise RunError(
            f"augmentation.export_folds: {exported} and the study's own folder, {own}, overlap; choose one outside it"
        )
    for fold in study.folds:
        write_fold(study, fold, exported / fold.name)


def _check_source(study: AugmentationStudy, source: str) -> None:
    folder = folder_of(study, source)
    if folder is None:
        check_program(study, source)
        return
    places = [folder / fold.name / GENERATED for fold in study.folds]
    if missing := [place.parent.name for place in places if not any(place.glob("*/*"))]:
        wanted = f"{WANTED} there says how many; then " if source == EXPORTED else ""
        raise RunError(
            f"{folder}: no generated images for {first_of(missing)}: put them into FOLD/{GENERATED}/CLASS/ as PNG "
            f"files; {wanted}run the same command again to continue"
        )


def digests_of_others(study: AugmentationStudy) -> dict[str, str]:
    """A digest of what each folder of another program holds for each fold, which reads all images once.

    Raises:
        DataError: images cannot be read, or are unsuitable as for `open_generated`.
    """
    digests = {}
    for source, fold in itertools.product(study.settings.outside, study.folds):
        if (folder := folder_of(study, source)) is not None:
            images, *_ = open_generated(study, fold, folder / fold.name / GENERATED)
            digests[f"images of {source} for {fold.name}"] = content_digest(images)
    return digests


def open_generated(study: AugmentationStudy, fold: Fold, folder: Path) -> tuple[Dataset, Labels, Floats]:
    """The n images of a folder with CLASS/*.png, their (n,) classes as the study numbers them, and (n,) numbers.

    Raises:
        DataError: there are too few of a class, other classes, images of another size, depth or range, or no numbers.
    """
    images: Dataset = build("dataset", "folder", path=str(folder))
    learn = fold.learn
    folders = class_folders(learn.class_names)
    if images.labels is None:
        raise DataError(f"{folder}: pictures have no classes; put them into the folders {', '.join(folders)}")
    # Where the folder of one class has the name of another class, it is the folder of the former
    numbers = {name: label for names in (learn.class_names, folders) for label, name in enumerate(names)}
    if unknown := [name for name in images.class_names if name not in numbers]:
        raise DataError(f"{folder}: the study has no class {unknown[0]!r}; name the folders {', '.join(folders)}")
    if images.image.shape != learn.image.shape or images.dtype != learn.dtype:
        theirs, ours = (f"{part.dtype} of {' x '.join(map(str, part.image.shape))}" for part in (images, learn))
        raise DataError(
            f"{folder}: images are {theirs} (channels, height, width), and those of the study {ours}; make them alike"
        )
    labels = np.array([numbers[name] for name in images.class_names])[np.asarray(images.labels)]
    counts, wanted = np.bincount(labels, minlength=len(folders)), most_added(fold, study)
    for name, count, needed in zip(folders, counts, wanted, strict=True):
        if count < needed:
            raise DataError(
                f"{folder}: {count} images of {name!r}, and {needed} are needed; make more, or lower "
                "augmentation.ratios"
            )
    try:
        values = study.endpoint.values(images)
    except KeyError:
        raise DataError(
            f"{folder}: generated images have no number {study.settings.number!r}; write a labels.csv with such a "
            "column"
        ) from None
    if not np.isfinite(values).all():
        raise DataError(f"{folder}: {study.settings.number} has missing values; give one for each image")
    return images, labels, values


def make_images(study: AugmentationStudy, number: int, source: str, seed: int, folder: Path) -> dict[str, Any]:
    """A job: write a source's images for the fold of this number, and look for copies of its judging parts.

    Raises:
        GankitError: the generator diverged, the program failed, or its images cannot be used.
    """
    fold = study.fold(number)
    origin: Run | Dataset
    if source == GENERATOR:
        origin, made = _from_generator(study, fold, seed, folder)
    else:
        place = folder_of(study, source)
        generated = folder / GENERATED if place is None else place / fold.name / GENERATED
        if place is None:
            _run_program(study, fold, source, folder)
        origin, labels, values = open_generated(study, fold, generated)
        made = Examples(np.asarray(origin.images), labels, values)
    with open_atomically(folder / MADE) as file:
        np.savez(file, **made._asdict())
    judging = study.division.dataset.subset(np.concatenate([fold.places["validation"], fold.places["test"]]))
    judging = judging.subset(agreed_places(judging, study.experiment.data.min_agreement))  # as images to learn from
    found = {**leak(fold, made.images), "privacy": judge_privacy(origin, fold.learn, judging)}
    return {"images": len(made.images), "by_class": np.bincount(made.labels).tolist(), **found}


def _from_generator(study: AugmentationStudy, fold: Fold, seed: int, folder: Path) -> tuple[Run, Examples]:
    run = train_or_resume(study.generator_experiment(seed), folder / RUN, data=fold.learn)
    counts = most_added(fold, study)
    labels = np.repeat(np.arange(len(counts)), counts)
    drawn = derive_seed(seed, "added", fold.number) % 2**62
    if study.settings.endpoint != "severity":
        return run, Examples(sample_classes(run, labels, drawn), labels, np.zeros(len(labels)))
    random = np.random.default_rng(drawn)
    real_labels, real_values = class_labels(fold.learn), study.endpoint.values(fold.learn)
    values = np.array([random.choice(real_values[real_labels == label]) for label in labels])
    return run, Examples(run.sample(len(labels), values[:, None], seed=drawn), labels, values)


def _run_program(study: AugmentationStudy, fold: Fold, source: str, folder: Path) -> None:
    """Run a program on the fold's folder and the folder for its images, unless it has already ended well."""
    program, done = check_program(study, source), folder / "made.txt"
    if done.is_file():
        return
    write_fold(study, fold, folder)
    made = folder / GENERATED  # by a program that was stopped
    if made.is_symlink() or made.is_file():
        made.unlink()
    elif made.exists():
        shutil.rmtree(made)
    interpreter = [sys.executable] if program.suffix == ".py" else []
    command = [*interpreter, str(program), str(folder), str(folder / GENERATED)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise RunError(f"augmentation.others.{source}: {program} cannot be run: {one_line(error)}") from None
    write_atomically(folder / "program.txt", ended.stdout + ended.stderr)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it printed no error"])[-1]
        raise RunError(f"augmentation.others.{source}: {program.name} ended with {ended.returncode}: {last[:200]}")
    done.touch()


def check_program(study: AugmentationStudy, source: str) -> Path:
    """The file of a source's program.

    Raises:
        GankitError: it is not there, or is named only in a file of settings, which is no reason to trust it.
    """
    setting = f"augmentation.others.{source}.command"
    program = user_path(str(study.settings.outside[source].command))
    if not program.is_file():
        raise RunError(f"{setting}: there is no file {program}; name a program's file, without arguments")
    check_trust(program, setting)
    return program.resolve()


def leak(fold: Fold, images: Images) -> dict[str, Any]:
    """Whether generated images copy images of the judging parts (validation and test), perhaps mirrored.

    An image of the judging parts does not count where the training images hold a copy of it too. Near copies occur by
    chance: training images, which are of other patients than the judging ones, show how often.

    Returns:
        "leaked": judging images with an exact or a near copy among the generated ones.
        "exact": pairs of a judging image and its exact copy.
        "alarm": whether there is an exact copy; or a near one of a judging image from which all training images, and
            all other generated ones, differ by more than `FAR`; or generated images are near copies of judging images
            significantly more often than training images are (Fisher's exact test).
        "unnoticed": the most near copies, among so many generated images, that raise no alarm by Fisher's test.
        "pairs": the places of the first pairs: of a generated image, and of a judging one, validation before test.
    """
    learn, generated = _views(np.asarray(fold.learn.images), fold), _views(images, fold)
    judging = [image for part in (fold.validation, fold.test) for image in _views(np.asarray(part.images), fold)[0]]
    copies, originals, exact = _copies(generated, judging)
    copies_in_learn, copied_by_learn, _ = _copies(learn, judging)
    new = ~np.isin(originals, copied_by_learn)
    copies, originals, exact = copies[new], originals[new], exact[new]
    near_copies = set(copies.tolist())
    near, near_real = len(near_copies), len(np.unique(copies_in_learn))

    def is_chance(count: int) -> bool:
        counts = [[count, len(images) - count], [near_real, len(fold.learn) - near_real]]
        return bool(stats.fisher_exact(counts, alternative="greater").pvalue >= CHANCE)

    def stands_alone() -> bool:
        copied = [judging[place] for place in np.unique(originals)]
        others = [[image for place, image in enumerate(view) if place not in near_copies] for view in generated]
        near_by = np.concatenate([_copies(views, copied, FAR)[1] for views in (learn, others)])
        return len(copied) > len(np.unique(near_by))

    return {
        "leaked": len(np.unique(originals)),
        "exact": int(exact.sum()),
        "alarm": bool(exact.any() or not is_chance(near) or (near and stands_alone())),
        "unnoticed": bisect(range(1, len(images) + 1), False, key=lambda count: not is_chance(count)),
        "pairs": np.stack([copies, originals], 1)[:PAIRS].tolist(),
    }


def _copies(
    views: list[list[Thumbnail]], others: list[Thumbnail], threshold: float = NEAR_COPY
) -> tuple[Indices, Indices, NDArray[np.bool_]]:
    """All p pairs of copies: (p,) places of images, given by their views, and of the others; and whether exact."""
    none = np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros(0, bool)
    batches = [none, *itertools.chain.from_iterable(duplicates(view, others, threshold) for view in views)]
    places, other_places, _, exactly = map(np.concatenate, zip(*batches, strict=True))
    codes = places * len(others) + other_places
    pairs, pair_of = np.unique(codes, return_inverse=True)  # an image that is like its own mirror image counts once
    is_exact = np.zeros(len(pairs), bool)
    is_exact[pair_of[exactly]] = True
    return pairs // len(others), pairs % len(others), is_exact


def _views(images: Images, fold: Fold) -> list[list[Thumbnail]]:
    """Small copies of the images, and of their mirror images."""
    ids, value_range = np.arange(len(images)), fold.learn.value_range
    return [
        thumbnails(Rows(images=pixels, ids=ids, value_range=value_range), "compared")
        for pixels in (images, images[..., ::-1])
    ]
