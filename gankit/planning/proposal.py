"""From a folder of images to a proposed experiment, with its reasons (after nnU-Net, Isensee et al. 2021)."""

import contextlib
import json
import math
import shlex
import tomllib
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tomlkit

from gankit import recipes
from gankit.errors import DataError, GankitError, PartError, RunError, counted
from gankit.experiments.document import FORMATS
from gankit.experiments.experiment import load
from gankit.experiments.recipe_files import fixed_recipe_names
from gankit.experiments.rules import MIN_IMAGES_OF_CLASS, rarest_class, recipe_tables, refuse_few
from gankit.experiments.selection import open_dataset, select_images, split_indices
from gankit.experiments.values import parse_table
from gankit.files import refuse_unwritable, sole_output, user_path, write_atomically
from gankit.images.labels_csv import files_below
from gankit.interfaces import Dataset
from gankit.planning.findings import findings
from gankit.registry import registry
from gankit.registry.messages import shown
from gankit.runs.run import choose_device
from gankit.terminal.text import harmless
from gankit.training.data import prepare
from gankit.training.description import data_warnings, describe, used_levels
from gankit.training.timing import time_training

FEWEST_STEPS = 500  # steps below which a training learns nothing
FEWEST_HELD_OUT, FEWEST_PATIENTS = 20, 5  # fewest held-out images, and fewest patients, with which images are held out
HELD_OUT = 0.2
OPENED_FILES = 20  # files of a folder that are opened to see whether they are DICOM
TRAINING_SHARE = 0.9  # the share of the given time that steps take; the rest is for reading, samples and checkpoints


class Choice(NamedTuple):
    """A setting, and why it is proposed."""

    value: Any
    why: str


def plan(place: str, minutes: float, out: Path, recipe: str | None = None) -> Iterator[str]:
    """Look at images, propose an experiment for them and write it as a commented file; yields what there is to say.

    Args:
        place: a folder of pictures or of DICOM files, an npz or npy file, a data set's name, or its table in TOML.
        minutes: of training on this machine, for which steps are timed.
        out: the file to write.
        recipe: one whose settings follow from the images; None takes the first that is proposed on this device.

    Raises:
        GankitError: there is no such recipe, the images cannot be read, are too few, or the time is too short to learn
            anything; or the file is there already. Nothing is written then.
    """
    out = user_path(out)
    _check_options(minutes, out, recipe)
    on_gpu = (device := choose_device("auto").type) != "cpu"
    recipe = recipe or _proposed(device)
    table = _table(place)
    settings = load({"data": {"size": 32, **table}}).data  # until a size is chosen, any will do
    unsized = open_dataset(settings)
    # A single image cannot be divided; `refuse_few` says that more are needed.
    n = len(select_images(settings, 0, unsized)[0]) if len(unsized) > 1 else len(unsized)
    refuse_few(n, place)
    choices = _choose_data(unsized, table, settings.split, recipes.get(recipe).sides, on_gpu, minutes)
    data = {**table, **{key: choice.value for key, choice in choices.items()}}
    settings = load({"data": data}).data
    dataset = open_dataset(settings)
    if "value_range" in type(settings.settings).model_fields and (used := used_levels(dataset)):
        choices["value_range"] = Choice([0, used[1]], f"no value is above {used[0]}; without it white would be 65535")
        data["value_range"] = choices["value_range"].value
        settings = load({"data": data}).data
        dataset = open_dataset(settings)
    yield from describe(settings, dataset)
    for line in chain(findings(dataset), data_warnings(prepare(settings, 0, dataset))):
        yield f"look: {line}"
    seconds = time_training(load({"data": data, **recipe_tables(recipe, settings, dataset)}))
    steps = _steps(minutes, seconds)
    tables = recipe_tables(recipe, settings, dataset, steps=steps)
    intervals = {"tick_every": steps // 100, "sample_every": steps // 20, "checkpoint_every": steps // 10}
    tables["training"] |= {key: max(every, 1) for key, every in intervals.items()}
    training, held_out = select_images(settings, 0, dataset)
    advice = list(_judging_advice(dataset, settings.split, training, held_out))
    time_text = f"{seconds:.2g} s a step here, {minutes:g} minutes"
    text = _text(place, recipe, table, choices, tables, time_text, advice)
    load(tomllib.loads(text))  # raises before anything is written where a setting does not fit
    for key, choice in choices.items():
        yield f"data.{key} = {json.dumps(choice.value)}: {choice.why}"
    yield f"recipe {recipe}, its settings for {len(training)} images: gankit show {shlex.quote(str(out))}"
    yield f"training.steps = {steps}: {time_text}"
    for line in advice:
        yield f"to judge: {line}"
    with sole_output(out):
        _check_free(out)  # another process may have come first
        write_atomically(out, text)
    yield f"next: gankit train {shlex.quote(str(out))}"


def _steps(minutes: float, seconds: float) -> int:
    """How many steps of `seconds` each fit into the given time, rounded down to two digits."""
    steps = int(60 * minutes * TRAINING_SHARE / seconds)
    if steps < FEWEST_STEPS:
        raise GankitError(
            f"--minutes {minutes:g} is enough for {steps} steps here ({seconds:.2g} s each), too few to learn from: "
            f"give --minutes {np.ceil(FEWEST_STEPS * seconds / 60 / TRAINING_SHARE):g} or more"
        )
    unit: int = 10 ** (len(str(steps)) - 2)
    return steps // unit * unit


def _check_options(minutes: float, out: Path, recipe: str | None) -> None:
    if not 0 < minutes < math.inf:
        raise GankitError(f"--minutes {minutes:g}: a number above 0 is needed")
    _check_free(out)
    if FORMATS.get(out.suffix.lower(), ".toml") != ".toml" or not out.absolute().parent.is_dir():
        raise GankitError(f"--out: {out} must be a .toml file in a folder that exists")
    if recipe in fixed_recipe_names():
        following = ", ".join(recipes.names())
        raise GankitError(f"--recipe {recipe}: its settings are fixed; take one that follows the images: {following}")


def _check_free(out: Path) -> None:
    if out.exists():
        raise RunError(f"{out}: there is such a file already; choose another with --out")
    refuse_unwritable(out)


def _table(place: str) -> dict[str, Any]:
    if (table := parse_table(place)) is not None:
        return table
    path = user_path(place)
    if path.is_dir():
        is_dicom = any(map(_is_dicom, islice(files_below(path), OPENED_FILES)))
        return {"name": "dicom" if is_dicom else "folder", "path": place}
    if path.suffix.lower() in (".npz", ".npy"):
        return {"name": "npz", "path": place}
    if path.exists():
        raise DataError(
            f"{place}: it is neither a folder nor an npz or npy file; name the folder that holds your pictures"
        )
    if place in registry("dataset").names():
        return {"name": place}
    if place in [*recipes.names(), *fixed_recipe_names()]:
        raise DataError(f"{place}: it is a recipe, and a plan starts from images: name a folder of pictures")
    raise DataError(f"{shown(place)}: there is no folder, npz file or data set of this name")


def _is_dicom(path: Path) -> bool:
    with contextlib.suppress(OSError), open(path, "rb") as file:  # what cannot be read is told where it is opened
        return file.read(132)[128:] == b"DICM"
    return False


def _proposed(device: str) -> str:
    """The first recipe that is proposed on this type of device, those of plug-ins included."""
    for name in recipes.names():
        with contextlib.suppress(PartError):  # a plug-in that is broken stops only what names it
            if device in recipes.get(name).proposed_on:
                return name
    return "resnet"


def _choose_data(
    dataset: Dataset, table: dict[str, Any], split: str | None, sides: tuple[int, int], on_gpu: bool, minutes: float
) -> dict[str, Choice]:
    """Choose the data settings that the user's table leaves open; `split` is the one to train on."""
    held_out = Choice(table["held_out"], "as given") if "held_out" in table else _choose_held_out(dataset, split)
    choices = {"size": _choose_size(dataset, sides, on_gpu, minutes), "held_out": held_out}
    known = dataset.known
    if known.labels is not None and len(known.class_names) > 1:
        counts = np.bincount(known.labels[split_indices(dataset, split)], minlength=len(known.class_names))
        training, _ = select_images(load({"data": {**table, "held_out": held_out.value}}).data, 0, dataset)
        rare, left = rarest_class(training)
        if left >= MIN_IMAGES_OF_CLASS:
            choices["conditional"] = Choice(True, "every class has enough images")
            if counts.max() > 3 * counts.min():
                choices["balance"] = Choice(
                    0.5, f"classes have {counts.min()} to {counts.max()} images: rare ones are drawn more often"
                )
        else:
            few = f"fewer than {MIN_IMAGES_OF_CLASS} images to train on ({counts[rare]} in all)"
            choices["conditional"] = Choice(False, f"class {known.class_names[rare]} has {few}: merge it")
    return {key: choice for key, choice in choices.items() if key not in table or key == "held_out"}


def _choose_size(dataset: Dataset, sides: tuple[int, int], on_gpu: bool, minutes: float) -> Choice:
    """Pixels a side, or [height, width]: what the machine can train in time, no larger than the smallest image.

    The sides have the median proportion of the images, rounded to quarters of the shorter one (to sevenths of 28
    pixels), and are within those that the recipe makes.
    """
    sizes = np.array(list(dataset.stored_sizes))
    shorter = int(sizes.min())
    most = 32 if not on_gpu else 64 if minutes < 60 else 128 if minutes < 240 else 256
    possible = [size for size in (28, 32, 64, 128, 256) if sides[0] <= size <= sides[1]] or [sides[0]]
    side = max([size for size in possible if size <= min(most, shorter)], default=possible[0])
    ratio = float(np.median(sizes[:, 1] / sizes[:, 0]))
    # Networks double maps of 4 to 7 pixels a side: both sides of the image are multiples of the last factor.
    step = 2 ** math.floor(math.log2(side / 4))
    wanted = step * round(side / step * max(ratio, 1 / ratio))
    long = min(wanted, sides[1] // step * step)
    value = side if long == side else [side, long] if ratio > 1 else [long, side]
    why = f"what a {'GPU' if on_gpu else 'CPU'} learns in {minutes:g} minutes; the smallest image has {shorter} pixels"
    squeezed = f"; images {max(ratio, 1 / ratio):.3g} times as long as wide are squeezed" if long < wanted else ""
    return Choice(value, f"{why} a side{squeezed}")


def _split_to_judge_with(dataset: Dataset, split: str | None) -> str | None:
    """A split of the data's own that is not among what is trained on."""
    trained = split or ("train" if "train" in dataset.known.splits else "all")
    return next(
        (name for name in ("test", "val") if name in dataset.known.splits and trained not in (name, "all")), None
    )


def _choose_held_out(dataset: Dataset, split: str | None) -> Choice:
    if _split_to_judge_with(dataset, split):
        return Choice(0.0, "the data have a split to judge with: evaluate --against takes a table that names it")
    indices = split_indices(dataset, split)
    groups = dataset.known.take(indices).groups
    if groups is not None and (few := len(np.unique(groups))) < FEWEST_PATIENTS:
        return Choice(0.0, f"{few} patients are too few to hold some out: bring {FEWEST_PATIENTS} or more")
    if len(indices) * HELD_OUT < FEWEST_HELD_OUT:
        return Choice(0.0, f"a fifth of {len(indices)} images would judge nothing")
    return Choice(HELD_OUT, "to judge with images that are new" if groups is None else "whole patients, to judge with")


def _judging_advice(dataset: Dataset, split: str | None, training: Dataset, held_out: Dataset | None) -> Iterator[str]:
    """What the images that are there to judge with allow to be measured, in words."""
    images, kind = (training, "training images") if held_out is None else (held_out, "held-out images")
    if own := _split_to_judge_with(dataset, split):
        images, kind = dataset.subset(dataset.known.splits[own]), f"images of the split {own}"
    n, groups = len(images), images.known.groups
    spread = 140 / n**0.5  # in percentage points: two standard errors of the difference of two shares near 50 %
    yield f"{n} {kind}: a precision or recall must differ by {spread:.0f} points to be seen"
    if n < 50:
        yield "no distance (KID, FD) says anything with so few: look at the samples beside real ones"
    elif n < 500:
        yield "KID with its error ranks runs that differ clearly, over three seeds; the Frechet distance is mostly bias"
    elif n < 2000:
        yield "KID and precision and recall rank runs; compare Frechet distances at equal counts only"
    else:
        yield "all metrics mean something; the Frechet distance still falls with the count: compare it at equal counts"
    if groups is not None:
        yield f"errors are those of {counted(len(np.unique(groups)), 'patient')}, not of images"
    if images is training:
        yield "none are held out: a generator that copies its training images looks perfect; watch memorisation"


def _text(
    place: str, recipe: str, data: dict[str, Any], choices: dict[str, Choice], tables: dict[str, Any], time_text: str,
    advice: list[str],
) -> str:  # fmt: skip
    """The experiment as a commented file: the recipe's settings for the data, and what was chosen of the data."""
    lines = [f"# Proposed by gankit plan for {_words(place)}; every line may be changed.", "[data]"]
    lines += [_line(key, value) for key, value in data.items() if key not in choices]
    lines += [f"{_line(key, choice.value)}  # {_words(choice.why)}" for key, choice in choices.items()]
    if "flip" not in data:
        lines.append("# flip = true  # doubles the images, where left and right do not matter")
    lines += ["", f"# The rest is the recipe {recipe} for these images; {time_text}."]
    for name, content in tables.items():
        for entry in content if isinstance(content, list) else [content]:
            lines += [f"[[{name}]]" if isinstance(content, list) else f"[{name}]"]
            table = {"name": entry} if isinstance(entry, str) else entry
            lines += [*(_line(key, value) for key, value in table.items()), ""]
    lines += ["# To judge:", *(f"# {line}" for line in advice)]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any) -> str:
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        inline.update(value)
        value = inline
    return f"{key} = {tomlkit.item(value).as_string()}"


def _words(text: str) -> str:
    """A text that may stand in a comment, on one line."""
    return " ".join(harmless(text).split())
