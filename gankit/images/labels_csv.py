"""What a CSV file or the sub-folders of a folder of images say of each image."""

import difflib
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gankit.errors import DataError, counted
from gankit.images import columns
from gankit.images.csv_table import CsvTable, read_csv
from gankit.images.known import Known
from gankit.images.names import as_number, escaped, look, spelling, two_spellings

_BESIDE = (".csv", ".txt", ".json", ".md")
_SYSTEM = ("Thumbs.db", "desktop.ini")  # files that a file manager leaves behind

Names = list[str] | None
"""One name for each row, or None where the file has none."""
Calls = list[list[str]] | None
"""The raters' calls for each row, or None where the file has none."""
Knowledge = Known
"""The name of `Known` in 0.1.0."""


def read_table(path: Path, files: Sequence[str], *, skip_unlisted: bool) -> Known:
    """What a CSV file with a header line says; the images come in the order of its rows.

    Columns, in any order and letter case: `file` (path below the folder, with / or \\), and where known `label`
    (class name), `group` (patient), `split`, and either `agreement` (share of raters in [0, 1]) or the raters' votes:
    in columns `vote_1`, `vote_2`, ..., or in one column `votes`, separated by ; or |. Without `label` the class is the
    majority of the votes. Usual words are read as these titles where they are missing: `patient_id`, `rater1`, `class`,
    `filename` and the like, and any title for a split of cells like train and test; `Known.read_as` says which. Any
    other column is a fact: numbers (NaN for an empty cell), or else text.

    Args:
        path: the CSV file, in UTF-8 with or without byte order mark, separated by comma, semicolon or tab.
        files: the images there are, relative to their folder with forward slashes.
        skip_unlisted: whether images without a row are left out; else they are an error.

    Raises:
        DataError: one line with the file, the line and what to do.
    """
    rows = read_csv(path, "file", unify=_own_spelling, is_key=lambda title: columns.means(title, "file"))
    cells_of = {
        title: ["" if columns.is_missing(cell) else cell for cell in cells] for title, cells in rows.columns.items()
    }
    rows = replace(rows, columns=cells_of)
    roles = _roles(rows)
    names = _listed_files(rows, roles["file"], files)
    unlisted = sorted(set(files) - set(names))
    if unlisted and not skip_unlisted:
        raise DataError(
            f"{path} has no row for {len(unlisted)} of {len(files)} images, {unlisted[0]} first; "
            'add rows, or set unlisted = "skip" to leave such images out'
        )
    votes = _votes(rows, roles)
    classes = _classes(rows, roles.get("label"), votes)
    groups, splits = (rows.columns[title] if (title := roles.get(role)) else None for role in ("group", "split"))
    # A name in two spellings would count as two: two classes, a vote against the label, a patient on both sides.
    calls = ((row, call) for row, calls in enumerate(votes or []) for call in calls)
    _refuse_two_forms(rows, [*enumerate(classes or []), *calls], spelling)
    _refuse_two_forms(rows, enumerate(splits or []), spelling)
    _refuse_two_forms(rows, enumerate(groups or []), look)
    labels, class_names = (None, ()) if classes is None else number_classes(classes, number=rows.number)
    raters = _raters(rows)
    used = {*roles.values(), *raters}
    read_as = {title: role for role, title in roles.items() if title != role}
    return Known(
        files=names,
        labels=labels,
        class_names=class_names,
        groups=None if groups is None else np.array(_cells_without_gaps(rows, roles["group"])),
        agreement=_agreement(rows, classes, votes),
        raters=max(map(len, votes)) if votes else 0,
        splits={} if splits is None else columns.split_indices(splits),
        left_out=unlisted,
        facts={title: _fact(rows, title) for title in rows.columns if title not in used},
        read_as={**read_as, **{title: "vote" for title in raters if not columns.is_vote(title)}},
    )


def find_table(folder: Path, table: Path | None) -> Path | None:
    """The CSV file of a folder: `table`, in the folder or anywhere; by default `labels.csv` in any letters, or None.

    Raises:
        DataError: there is no such file.
    """
    if table is None:
        return next((file for file in tables_in(folder) if file.name.casefold() == "labels.csv"), None)
    for path in (folder / table, table):
        if path.is_file():
            return path
    raise DataError(f"there is no CSV file {table}, neither in {folder} nor in the current folder")


def tables_in(folder: Path) -> list[Path]:
    """The CSV files that lie in a folder itself, in the order of their names."""
    return sorted(file for file in folder.iterdir() if file.suffix.casefold() == ".csv" and file.is_file())


def number_classes(
    names: Sequence[str], where: str = "", number: Callable[[str], float | None] = as_number
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """(n,) labels of images whose classes have these n names, and the name of each class.

    Classes are in the order of numbers where all their names are numbers by `number`, else of text.

    Raises:
        DataError: two names are spellings of one; begins with `where`.
    """
    classes = sorted(set(names))
    numbers_of = {name: value for name in classes if (value := number(name)) is not None and not math.isnan(value)}
    if len(numbers_of) == len(classes):
        classes.sort(key=numbers_of.__getitem__)
    if alike := two_spellings(classes):
        raise DataError(f"{where}the classes {alike} are one name in two spellings; use one for both")
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[name] for name in names], dtype=np.int64), tuple(classes)


def check_folder(folder: Path, content: str) -> None:
    """
    Raises:
        DataError: there is no such folder; the message says that it should hold the `content`.
    """
    if folder.is_dir():
        return
    if not folder.exists():
        advice = "; " if folder.is_absolute() else f" in {Path.cwd()}; go to the folder that holds it, or "
        raise DataError(f"the folder {folder} does not exist{advice}set path to the folder of the {content}")
    if folder.suffix in (".npz", ".npy"):
        raise DataError(f'{folder} is not a folder of {content}; name = "npz" reads such files')
    first = "unpack it, and " if folder.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar") else ""
    raise DataError(f"{folder} is a file, not a folder; {first}set path to the folder of the {content}")


def may_lie_beside(file: Path) -> bool:
    """Whether a file that is no image is left alone: a table or a text, or what a file manager leaves behind."""
    return file.suffix.lower() in _BESIDE or file.name in _SYSTEM


def files_below(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Files below a folder, without hidden ones; links are followed unless they lead back up, to a path of `above`.

    Raises:
        DataError: there is a pipe, a device or a broken link, which may never end when it is read.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from files_below(entry, above | {real})
        elif entry.is_file():
            yield entry
        else:
            raise DataError(f"{entry} is not an ordinary file (but a pipe, a device or a broken link); take it out")


def folders_of(files: Sequence[str]) -> tuple[dict[str, NDArray[np.int64]], list[list[str]]]:
    """Splits and folders of files.

    Args:
        files: paths with forward slashes, relative to the folder of the images.

    Returns:
        (k,) indices of each split, where every file is below a folder named train, val or test, else nothing; and the
        names of the folders that each file is in, without those.

    Raises:
        DataError: there are other folders beside those of several splits.
    """
    folders = [name.split("/")[:-1] for name in files]
    others = {names[0] for names in folders if names and names[0].casefold() not in columns.SPLITS}
    if others and len(splits := sorted({names[0] for names in folders if names} - others)) > 1:
        advice = "move it, or list all files with a column `split` in labels.csv"
        raise DataError(f"the folders {', '.join(splits)} are splits, and beside them is {min(others)}: {advice}")
    if others or not all(folders):
        return {}, folders
    return columns.split_indices([names[0] for names in folders]), [names[1:] for names in folders]


def _own_spelling(title: str) -> str:
    """One spelling of the titles that are gankit's own."""
    own = title.casefold()
    return own if own in columns.OWN or columns.is_vote(title) else title


def _raters(rows: CsvTable) -> list[str]:
    """The columns that hold one rater's votes each: by gankit's own titles, else by the usual ones."""
    votes = [title for title in rows.columns if columns.is_vote(title)]
    if votes or {"votes", "agreement"} & rows.columns.keys():
        return votes
    return [title for title in rows.columns if columns.is_rater(title)]


def _roles(rows: CsvTable) -> dict[str, str]:
    """The title of the column of each role that the table has; `_raters` finds the columns of single raters."""
    where = str(rows.path)
    found = {role: columns.find(rows.columns, role, where) for role in columns.OWN}
    if found["split"] is None:
        cells = {title: {cell.casefold() for cell in column} for title, column in rows.columns.items()}
        found["split"] = next((t for t, texts in cells.items() if len(texts) > 1 and texts <= {*columns.SPLITS}), None)
    group = found["group"] or ""
    if group.casefold() == "case" and len(rows.lines) > 4 and len(set(rows.columns[group])) < 3:  # case or control?
        raise DataError(
            f"{where} has `{group}` with one or two values: if it tells which images are of one patient, call it "
            f"`group`; if it tells cases from controls, call it `label`, or otherwise, for example `{group}_status`"
        )
    return {role: title for role, title in found.items() if title is not None}


def _listed_files(rows: CsvTable, title: str, files: Sequence[str]) -> list[str]:
    """The images that the rows name, in their order."""
    # Names of files are bytes, in UTF-8 on most systems, which Python decodes as the locale says.
    in_utf8 = {os.fsencode(name).decode(errors="replace"): name for name in files}
    present, composed = set(files), {unicodedata.normalize("NFC", name): file for name, file in in_utf8.items()}
    names = [cell.replace("\\", "/").removeprefix("./") for cell in rows.columns[title]]
    # macOS keeps letters and their accents apart in names of files, keyboards do not.
    names = [name if name in present else composed.get(unicodedata.normalize("NFC", name), name) for name in names]
    if missing := [row for row, name in enumerate(names) if name not in present]:
        name, others = names[missing[0]], len(missing) - 1
        close = _meant(name, files)
        quoted = escaped if look(close) == look(name) else repr
        hint = f"did you mean {quoted(close)}? " if close else ""
        also = f", as in {counted(others, 'other row')}" if others else ""
        raise DataError(
            f"{rows.where(missing[0])} names {quoted(name)}, and there is no such image{also}; "
            f"{hint}add the image or remove the row"
        )
    row_of: dict[str, int] = {}
    for row, name in enumerate(names):
        if name in row_of:
            raise DataError(
                f"{rows.where(row)} names {name!r} again, after line {rows.lines[row_of[name]]}; remove one"
            )
        row_of[name] = row
    return names


def _meant(name: str, files: Sequence[str]) -> str:
    """The image that a wrong name may stand for: the only one of this stem, else one spelt alike; empty for none."""
    stem = PurePosixPath(name).stem.casefold()
    same = [file for file in files if PurePosixPath(file).stem.casefold() == stem]
    if len(same) == 1:
        return same[0]
    return next(iter(difflib.get_close_matches(name, files, n=1, cutoff=0.8)), "")


def _cells_without_gaps(rows: CsvTable, column: str) -> list[str]:
    cells = rows.columns[column]
    for row, cell in enumerate(cells):
        if not cell:
            written = f" ({rows.written[column][row]!a})" if rows.written[column][row] else ""
            raise DataError(f"{rows.where(row)} has an empty {column}{written}; fill it in or remove the row")
    return cells


def _votes(rows: CsvTable, roles: Mapping[str, str]) -> Calls:
    """The raters' calls of each image, or None where the file has none."""
    separate = [rows.columns[title] for title in _raters(rows)]
    if "votes" in roles:
        if separate:
            raise DataError(f"{rows.path} has both `votes` and `vote_` columns; keep one kind")
        cells = [[call.strip() for call in re.split("[;|]", cell)] for cell in rows.columns["votes"]]
    elif separate:
        cells = [list(row) for row in zip(*separate, strict=True)]
    else:
        return None
    votes = [[call for call in row if not columns.is_missing(call)] for row in cells]
    if "agreement" in rows.columns:
        raise DataError(f"{rows.path} has both votes and `agreement`; keep one, for they may contradict each other")
    for row, calls in enumerate(votes):
        if not calls:
            raise DataError(f"{rows.where(row)} has no vote; fill one in or remove the row")
    return votes


def _classes(rows: CsvTable, title: str | None, votes: Calls) -> Names:
    """The name of each image's class, or None where the file does not say."""
    if title is not None:
        return _cells_without_gaps(rows, title)
    if votes is None:
        return None
    classes = []
    for row, calls in enumerate(votes):
        (first, most), *others = Counter(calls).most_common()
        if others and others[0][1] == most:
            raise DataError(
                f"{rows.where(row)}: the votes are tied between {first!r} and {others[0][0]!r}; add a column `label`"
            )
        classes.append(first)
    return classes


def _refuse_two_forms(rows: CsvTable, names: Iterable[tuple[int, str]], form: Callable[[str], str]) -> None:
    """Refuse two names of the same form, each given with its row."""
    firsts: dict[str, str] = {}
    for row, name in names:
        if (first := firsts.setdefault(form(name), name)) != name:
            raise DataError(
                f"{rows.where(row)} says {escaped(name)} where others say {escaped(first)}; use one spelling"
            )


def _agreement(rows: CsvTable, classes: Names, votes: Calls) -> NDArray[np.float64] | None:
    if votes is not None and classes is not None:
        if set(classes).isdisjoint(call for row in votes for call in row):
            raise DataError(
                f"{rows.path}: no vote equals a label (votes like {votes[0][0]!r}, labels like {classes[0]!r}); write "
                "the names of classes as votes, or leave the columns of votes out"
            )
        return np.array([calls.count(name) / len(calls) for name, calls in zip(classes, votes, strict=True)])
    if "agreement" not in rows.columns:
        return None
    shares = []
    for row, cell in enumerate(_cells_without_gaps(rows, "agreement")):
        share = rows.number(cell)
        if share is None or not 0 <= share <= 1:
            raise DataError(f"{rows.where(row)} has agreement {cell!r}; it must be a share of raters from 0 to 1")
        shares.append(share)
    return np.array(shares)


def _fact(rows: CsvTable, title: str) -> NDArray[Any]:
    cells = rows.columns[title]
    numbers = [rows.number(cell) if cell else math.nan for cell in cells]
    if None not in numbers:
        return np.array(numbers, dtype=np.float64)
    if all(re.fullmatch(r"[+-]?\d*[.,]?\d*", cell) for cell in cells):
        row = numbers.index(None)
        raise DataError(
            f"{rows.where(row)} has {title} {cells[row]!r}, which is not a number here; write a point before decimals "
            "and nothing between thousands"
        )
    return np.array(cells)
