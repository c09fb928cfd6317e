"""What is refused before any pixel is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from gankit.errors import DataError
from gankit.images.decoding import all_told

from gankit_dicom._guard import Problem
from gankit_dicom._header import Header
from gankit_dicom._patients import HIDDEN, Redactor
from gankit_dicom._tones import Function, Window, own_window

Show = Callable[[str], str]
DEEPEST = 16
"""Bits of the deepest images."""


def refuse(problems: Mapping[int, str], names: Sequence[str], show: Show) -> None:
    """
    Args:
        problems: what is wrong with some files, in words to which the name is the subject, by index.
        names: of all files.
        show: how errors name a file.

    Raises:
        DataError: there are problems; says the first, and names the first few files.
    """
    if problems:
        told = {place: f"{show(names[place])} {text}" for place, text in problems.items()}
        raise DataError(all_told(told, [show(name) for name in names]))


def check_readable(names: Sequence[str], headers: Sequence[Header], show: Show, *, burned_in: bool) -> None:
    """
    Raises:
        DataError: files cannot be read, or a file's pixels show who the patient is; names the first such files.
    """
    refuse({place: header.problem for place, header in enumerate(headers) if header.problem}, names, show)
    for name, header in zip(names, headers, strict=True):
        if header.burned_in and not burned_in:
            count = f"{sum(header.burned_in for header in headers)} of {len(headers)} files do"
            raise DataError(
                f"{show(name)} says that its pixels show who the patient is ({count}); blank the text out, or set "
                'burned_in = "allow"'
            )


def check_alike(
    names: Sequence[str],
    headers: Sequence[Header],
    show: Show,
    *,
    sizes: bool,
    channels: bool,
    window: Window,
    function: Function | None,
) -> None:
    """
    Raises:
        DataError: files differ in size or in colour, or black and white would not mean the same in all of them.
    """
    first = headers[0]
    for name, header in zip(names, headers, strict=True):
        if channels and header.channels != first.channels:
            kinds = {1: "grey", 3: "colour"}
            raise DataError(
                f"{show(name)} is {kinds[header.channels]} where {show(names[0])} is {kinds[first.channels]}; "
                "set grey = true (all grey) or grey = false (all colour), or leave one kind out"
            )
        if sizes and (header.height, header.width) != (first.height, first.width):
            raise DataError(
                f"{show(name)} is {header.height} x {header.width} pixels (height x width) where {show(names[0])} "
                f"is {first.height} x {first.width}; in an experiment data.size = [height, width] resizes all"
            )
    if isinstance(window, str):
        _check_windows(names, headers, show, by_file=window == "file", function=function)


def _check_windows(
    names: Sequence[str], headers: Sequence[Header], show: Show, *, by_file: bool, function: Function | None
) -> None:
    views = [(name, view) for name, header in zip(names, headers, strict=True) for view in header.views]
    if by_file:
        for name, view in views:
            if view.window and (problem := _problem(view.window, function)):
                raise DataError(f"{show(name)} {problem}")
        with_window = [name for name, view in views if view.has_window]
        without = [name for name, view in views if not view.has_window]
        if with_window and without:
            raise DataError(
                f"{show(without[0])} has no window of its own, and {show(with_window[0])} has one; "
                'set window = [centre, width] for all, or window = "full"'
            )
        if with_window:
            return
    for name, header in zip(names, headers, strict=True):
        if header.channels == 1 and header.bits > DEEPEST:
            raise DataError(
                f"{show(name)} can hold values of {header.bits} bits, of which {DEEPEST} would be left; "
                "set window = [centre, width]"
            )
    for name, view in views:
        if view.span != views[0][1].span:
            raise DataError(
                f"{show(name)} can hold another range of values than {show(views[0][0])}, so that black and white "
                "would differ; set window = [centre, width]"
            )


def _problem(window: tuple[float, float, str], function: Function | None) -> str | None:
    try:
        own_window(window, function)
    except Problem as problem:
        return str(problem)
    return None


def check_sub_folders(
    classes: Sequence[str], headers: Sequence[Header], redacted: Redactor, *, classes_by_setting: bool
) -> None:
    """
    Args:
        classes: the sub-folder of each file that names its class; empty where folders are no classes.
        headers: of each file.
        redacted: hides what tells the files' patients.
        classes_by_setting: whether the settings say that sub-folders are classes.

    Raises:
        DataError: sub-folders are patients; their names would become names of classes, which a run records.
    """
    patients = defaultdict(set)
    for folder, header in zip(classes, headers, strict=False):
        patients[folder].add(header.patient)
    named_after_patients = any(HIDDEN in redacted(folder) for folder in patients)
    single = all(len(of_folder) == 1 for of_folder in patients.values())
    apart = len(set().union(*patients.values()) - {""}) == len(patients) > 1
    if named_after_patients or (single and apart and not classes_by_setting):
        what = "named after patients" if named_after_patients else "one for each patient"
        other = "" if named_after_patients else '; sub_folders = "classes" takes them as they are'
        raise DataError(
            f"sub-folders are {what}, and would be classes; list files and labels in labels.csv, or set "
            f'sub_folders = "ignore"{other}'
        )
