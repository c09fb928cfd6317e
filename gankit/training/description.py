"""A data set in words, as it was read: for `gankit check` and the start of a training."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gankit.errors import DataError, counted, first_of, unbroken
from gankit.experiments.rules import MIN_IMAGES_OF_CLASS, rarest_class
from gankit.experiments.selection import select_images
from gankit.experiments.tables import DataTable
from gankit.images.known import Known
from gankit.interfaces import Dataset
from gankit.interfaces.dataset import View
from gankit.training.data import TrainingData

MOST_NAMES = 8  # a list shows at most so many


def describe(table: DataTable, dataset: Dataset, seed: int = 0) -> Iterator[str]:
    """One line on the images, all of which are read for it, then one line for each other known fact.

    The seed is that of the training: it may decide which images are held out. Raises DataError if images cannot be
    read; the lines that need no pixels are yielded before.
    """
    start = f"data {table.name}: {len(dataset)} images"
    lines = [f"  {what}: {text}" for what, text in _facts_in_words(dataset, table, seed) if text]
    try:
        pixels = _pixels(dataset)
    except DataError:
        yield from (start, *lines)
        raise
    yield from (f"{start} of {pixels}", *lines)


def summarise(data: TrainingData) -> str:
    """What the networks are trained on, in one line; reads no pixels."""
    image, parts = data.dataset.image, [_images_in_words(data.dataset)]
    if data.held_out is not None:
        parts.append(f"held out: {_images_in_words(data.held_out.dataset)}")
    return f"{image.height} x {image.width} pixels; {'; '.join(parts)}"


def data_warnings(data: TrainingData) -> list[str]:
    """The data set's own remarks, and classes that teach the networks nothing."""
    lines = [f"data: {remark}" for remark in data.dataset.remarks]
    if not data.image.classes or data.labels is None:
        return lines
    if data.image.classes == 1:
        line = "data.conditional: there is a single class, so that labels teach nothing; is the folder the right one?"
        return [*lines, line]
    counts = dict(zip(data.dataset.class_names, np.bincount(data.labels, minlength=data.image.classes), strict=False))
    if empty := [name for name, count in counts.items() if not count]:
        what, them = ("class", "it") if len(empty) == 1 else ("the classes", "them")
        lines.append(f"data: no training image is of {what} {first_of(empty, 5)}: samples of {them} mean nothing")
    if rare := [name for name, count in counts.items() if 0 < count < MIN_IMAGES_OF_CLASS]:
        what, merge = ("class", "it with another") if len(rare) == 1 else ("each of the classes", "them with others")
        few = f"fewer than {MIN_IMAGES_OF_CLASS} training images of {what} {first_of(rare, 5)}"
        lines.append(f"data.conditional: {few}: merge {merge}, or set data.conditional=false")
    return lines


def _images_in_words(dataset: Dataset) -> str:
    known = dataset.known
    classes = f" ({_classes(known)})" if known.labels is not None else ""
    patients = f" of {counted(len(np.unique(known.groups)), 'patient')}" if known.groups is not None else ""
    return f"{counted(len(dataset), 'image')}{classes}{patients}"


def _pixels(dataset: Dataset) -> str:
    spec = dataset.image
    sizes = sorted(dataset.stored_sizes, key=lambda size: (size[0] * size[1], size))
    ends = sizes if len(sizes) < 2 else [sizes[0], sizes[-1]]
    text = " and ".join(f"{height} x {width}" for height, width in ends)
    if len(sizes) > 2:
        text = f"{len(sizes)} sizes between {text}"
    resized = "" if sizes == [(spec.height, spec.width)] else f", resized to {spec.height} x {spec.width}"
    channels = {1: "grey", 3: "colour"}.get(spec.channels, f"{spec.channels} channels")
    return f"{text} pixels (height x width){resized}, {channels}, {_levels(dataset)}"


def _levels(dataset: Dataset) -> str:
    """The type and range of the pixel values, with a hint where images above 8 bits seem to use a small part of it."""
    dtype = dataset.images.dtype
    black, white = dataset.value_range
    levels = f"{dtype} from {black:g} (black) to {white:g} (white)"
    if _white_is_largest(dataset):
        levels = f"{8 * dtype.itemsize} bits"
    if used := used_levels(dataset):
        brightest, seems_white = used
        window = f"data.value_range=[0,{seems_white}]"
        levels += f", but no value above {brightest}: white is {white:g} unless {window} says otherwise"
    return levels


def _white_is_largest(dataset: Dataset) -> bool:
    """Whether black is 0 and white the largest value of the images' type, as it is where nothing else was said."""
    return dataset.dtype.kind == "u" and dataset.value_range == (0, np.iinfo(dataset.dtype).max)


def used_levels(dataset: Dataset) -> tuple[int, int] | None:
    """The largest value of images above 8 bits, and the white that it suggests: 4095 for 12 bits. Reads the images.

    None for images that use more than half of their range, and where something else was declared.
    """
    if dataset.dtype.itemsize == 1 or not _white_is_largest(dataset):
        return None
    brightest = int((dataset.whole if isinstance(dataset, View) else dataset).images.max())
    return (brightest, 2 ** brightest.bit_length() - 1) if 0 < brightest <= dataset.value_range[1] / 2 else None


def _could_be_conditional(table: DataTable, dataset: Dataset, seed: int) -> bool:
    """Whether networks could be trained on classes that they are not given: each class has enough training images."""
    if table.conditional or dataset.image.classes < 2:
        return False
    try:
        return rarest_class(select_images(table, seed, dataset)[0])[1] >= MIN_IMAGES_OF_CLASS
    except DataError:  # reported later, when the training images are selected
        return False


def _facts_in_words(dataset: Dataset, table: DataTable, seed: int) -> Iterator[tuple[str, str]]:
    """Headings and their texts; an empty text is not shown."""
    known = dataset.known
    if known.labels is None:
        folders = sorted({Path(name).parts[0] for name in known.files if len(Path(name).parts) > 1})
        if len(folders) > 1:
            advice = f"add a column `label` to the table, which overrides the sub-folders {_names(folders)}"
        else:
            advice = "sub-folders, a column `label` in labels.csv, or an array `labels` name them"
        yield "classes", f"none ({advice})"
    else:
        possible = _could_be_conditional(table, dataset, seed)
        hint = "; data.conditional=true gives them to the networks" if possible else ""
        yield "classes", _classes(known) + _columns(known, "label") + hint
    if known.groups is None:
        source = "a column `patient` in labels.csv, or an array `groups`, says which patient each is of"
        yield "patients", f"not known: each image is taken to be of a different patient ({source})"
    else:
        sizes = np.unique(known.groups, return_counts=True)[1]
        least, most = int(sizes.min()), int(sizes.max())
        images = counted(most, "image") if least == most else f"{least} to {most} images"
        yield "patients", f"{len(sizes)}, with {images} each" + _columns(known, "group")
    if known.agreement is not None:
        raters = f"{known.raters}{_columns(known, 'vote')}; " if known.raters else ""
        mean, unanimous = known.agreement.mean(), counted(int((known.agreement == 1).sum()), "image")
        yield "raters", f"{raters}on average {mean:.0%} agree with the label, and all of them on {unanimous}"
    splits = ", ".join(f"{name} {len(indices)}" for name, indices in known.splits.items())
    yield "splits", splits + _columns(known, "split")
    used = {*(table.conditional if isinstance(table.conditional, list) else ()), table.weights}
    if others := _names([name for name in known.facts if name not in used]):
        yield "unused", f"{others} (kept as facts; numbers can be conditions: data.conditional=[NAME])"
    if votes := _names(_like_votes(known)):
        yield "possible votes", f"{votes}: names of classes; if raters gave them, call the columns vote_1, vote_2, ..."
    if known.left_out:
        yield "left out", f"{counted(len(known.left_out), 'image')} without a row: {_names(known.left_out)}"
    if known.not_read:
        advice = "data.table=... reads it, and a table called labels.csv is read without it"
        yield "not read", f"{_names(known.not_read)} ({advice})"


def _like_votes(known: Known) -> list[str]:
    """The facts of a table that hold nothing but names of classes."""
    if len(known.class_names) < 2 or not isinstance(known.facts, dict):  # lazy columns are not read for this
        return []
    names, facts = {*known.class_names, ""}, known.facts.items()
    return [fact for fact, values in facts if values.dtype.kind == "U" and {*values.tolist()} <= names]


def _columns(known: Known, role: str) -> str:
    """The columns that were read in this role, such as "label", where they have other titles than gankit's own."""
    titles = [f"`{title}`" for title, read_as in known.read_as.items() if read_as == role]
    return f" (column{'s' if len(titles) > 1 else ''} {_names(titles)})" if titles else ""


def _classes(known: Known) -> str:
    assert known.labels is not None
    counts = np.bincount(known.labels, minlength=len(known.class_names))
    return _names([f"{name}: {count}" for name, count in zip(known.class_names, counts, strict=False)])


def _names(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > MOST_NAMES else ""
    return unbroken(", ".join(names[:MOST_NAMES])) + more
