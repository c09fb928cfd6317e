"""Files of people's ratings: tables, and the progress that a page exports."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from pydantic import BaseModel, ConfigDict, ValidationError

from gankit.errors import DataError, cause
from gankit.files import open_ordinary
from gankit.images.csv_table import read_csv
from gankit.registry.messages import shown

REAL, GENERATED = "real", "generated"  # calls of one image
LEFT, RIGHT = "left", "right"  # calls of two side by side, of which one is real
LONGEST_CELL = 1000
LARGEST = 1e100  # scores beyond it are mistakes, and their squares are beyond float64


@final
@dataclass(frozen=True)
class Rater:
    """One person's ratings, by image.

    Diagnoses and calls are there for every image that the file names, "" for none.
    """

    name: str  # of the person, or of the file
    path: Path  # the file
    scores: dict[str, float] = field(default_factory=dict)  # larger is better; images without a score are missing
    diagnoses: dict[str, str] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)  # of pairs "left" or "right", else "real" or "generated"
    keys: set[str] = field(default_factory=set)  # the hashes of keys in the file's rows


def read_ratings(paths: Sequence[Path], calls: Sequence[str] = (REAL, GENERATED)) -> list[Rater]:
    """Ratings from CSV files with the columns `image` or `file`, and `score`.

    Optional are `diagnosis`, `call` (one of `calls`), `rater` and `key`. Without a column `rater`, all rows of a file
    are one rater's. A JSON file is what a page exports as its progress.

    Raises:
        DataError: a file cannot be read, a score is no number, a row says nothing, an image comes twice; one line with
            file and line.
    """
    raters = [rater for path in paths for rater in _read(path, calls)]
    names = [rater.name for rater in raters]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{twice[0]} is the rater of two files: give each rater's ratings once, or other names")
    return raters


class _Progress(BaseModel):
    """What a page exports."""

    model_config = ConfigDict(strict=True)

    key: str
    rater: str
    answers: dict[str, dict[str, str]]


def _read(path: Path, calls: Sequence[str]) -> list[Rater]:
    raters: dict[str, Rater] = {}
    for where, image, cells in _progress(path) if path.suffix.casefold() == ".json" else _table(path):
        if long := [title for title, cell in cells.items() if len(cell) > LONGEST_CELL]:
            raise DataError(f"{where}: {long[0]} has more than {LONGEST_CELL} characters; shorten it")
        name = cells.get("rater") or path.stem
        rater = raters.setdefault(name, Rater(name, path))
        if image in rater.calls:
            raise DataError(f"{where}: {name} has rated image {image} twice")
        text, call = cells.get("score", ""), cells.get("call", "")
        rater.diagnoses[image] = diagnosis = cells.get("diagnosis", "")
        rater.calls[image] = call
        if text or not (call or diagnosis):
            score = math.nan
            with contextlib.suppress(ValueError):
                score = float(text)
            if not abs(score) <= LARGEST:
                raise DataError(f"{where}: the score {shown(text)} is not a number up to {LARGEST:g} in size")
            rater.scores[image] = score
        if call not in (*calls, ""):
            raise DataError(f"{where}: the call {shown(call)} is neither {' nor '.join(calls)}")
        rater.keys.add(cells.get("key", ""))
    if not raters:
        raise DataError(f"{path} holds no answer")
    return list(raters.values())


def _table(path: Path) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Where each row of a CSV file stands, its image, and its cells by title."""
    table = read_csv(path, "image", unify=str.casefold, is_key=("image", "file").__contains__)
    columns = table.columns
    if "score" not in columns:
        raise DataError(f"{path} has no column `score`; its first line must name the columns: image,score,...")
    for row, image in enumerate(columns["image"] if "image" in columns else columns["file"]):
        yield table.where(row), image, {title: column[row] for title, column in columns.items()}


def _progress(path: Path) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """The same of each answer in the progress that a page exported."""
    try:
        with open_ordinary(path) as file:
            progress = _Progress.model_validate_json(file.read())
    except ValidationError as error:
        first = error.errors()[0]
        reason = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise DataError(f"{path} does not hold the progress of a page ({reason}): save the ratings again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {cause(error)}") from error
    for image, given in progress.answers.items():
        if any(given.values()):
            yield str(path), image, {**given, "rater": progress.rater, "key": progress.key}
