"""What columns of a table, or arrays of a file, hold: by gankit's own titles, else by the usual words for the same."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gankit.errors import DataError
from gankit.images.names import look, two_spellings, visible

OWN = ("file", "label", "group", "agreement", "votes", "split")
_WORDS = {
    "file": r"file(name|path)?|image(file|name|path)?|path|picture|photo",
    "label": r"(label|category|diagnosis)(name)?|class(name)?",
    "group": r"(group|pat|patient|subject|case|person|participant|individual|proband|family)"
    r"(id|no|nr|number|code|name)?|pid|mrn",
}
SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Gankit's own names of splits, by the usual words for them."""
_MEANS = {
    "file": "may name the image", "label": "may be the label", "group": "may say which images are of one patient",
}  # fmt: skip
MISSING = ("nan", "NaN", "NaT", "<NA>", "#N/A")
"""What NumPy, pandas and Excel write for a value that is missing."""
_RATER = r"(vote|rater|reader|grader|annotator|observer|expert|doctor|physician)(?:[ _-]?\d+|[ _-][a-z])"


def is_vote(title: str) -> bool:
    """Whether a column is one rater's votes by gankit's own title, `vote_1` and so on."""
    return re.fullmatch(r"vote_\d+", title.casefold()) is not None


def is_rater(title: str) -> bool:
    """Whether a column is one rater's votes by the usual words, such as `rater1` or `reader_b`."""
    return re.fullmatch(_RATER, title.casefold()) is not None


def means(title: str, role: str) -> bool:
    """Whether a title is a usual word for a role of `OWN`, in any letter case, number and separation of words."""
    word = re.sub(r"[\W_]", "", title.casefold())
    return any(re.fullmatch(_WORDS.get(role, role), form) for form in (word, word.removesuffix("s")))


def find(titles: Iterable[str], role: str, where: str, own: str | None = None) -> str | None:
    """The column of a role: `own` (by default the role's name), else the only usual word for it, or None.

    Raises:
        DataError: several may be meant; it names the table or file as `where`.
    """
    own, titles = own or role, list(titles)
    if own in titles:
        return own
    found = [title for title in titles if means(title, role)]
    if len(found) > 1:
        names = " and ".join(f"`{title}`" for title in found)
        raise DataError(f"{where} has {names}, and each {_MEANS[role]}; rename the right one to `{own}`")
    return found[0] if found else None


def is_missing(text: str) -> bool:
    """Whether a text is blank, or stands for a value that is missing."""
    return text in MISSING or not visible(text)


def complete(values: NDArray[Any], where: str, *, groups: bool = False, names: Sequence[str] = ()) -> NDArray[Any]:
    """The (n,) values themselves; `groups` that are Python objects or bytes as text.

    Raises:
        DataError: one is missing, or text that is blank or says so and is none of the `names`; or two `groups` look
            alike; calls them `where`.
    """
    items = [] if values.dtype.kind in "iub" else values.tolist()  # whole numbers cannot be missing
    texts = [_text(item) for item in items]
    for i, (item, text) in enumerate(zip(items, texts, strict=True)):
        if item is None or (is_missing(text) and not (isinstance(item, (str, bytes)) and text in names)):
            raise DataError(f"{where} has no value for image {i} ({text}); give it one, or leave such images out")
    if groups and (alike := two_spellings(set(texts), look)):
        raise DataError(f"{where}: {alike} look alike, and would be two groups; use one spelling")
    return np.array(texts) if groups and values.dtype.kind in "OS" else values


def _text(item: Any) -> str:
    """An item of a column as text; a whole number alike, whether it is kept as an integer or as a float."""
    if isinstance(item, bytes):
        return item.decode(errors="backslashreplace")
    return str(int(item)) if isinstance(item, (float, np.floating)) and item.is_integer() else str(item)


def whole(values: NDArray[Any]) -> NDArray[Any]:
    """Floats of any shape that are all whole numbers, as such; other values as they are."""
    if values.dtype.kind != "f" or not (np.abs(values.astype(float)) < 2**53).all():  # beyond it, all floats are whole
        return values
    return values.astype(np.int64) if (np.trunc(values) == values).all() else values


def shares(values: NDArray[Any], where: str) -> NDArray[np.float64]:
    """(n,) shares of raters.

    Raises:
        DataError: values outside [0, 1]; calls them `where`.
    """
    if values.dtype.kind not in "iufb" or not ((values >= 0) & (values <= 1)).all():
        raise DataError(f"{where} has values outside [0, 1]: it is the share of raters who chose the label")
    return values.astype(np.float64)


def split_indices(names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """(k,) indices of each split, by gankit's own name for a usual word, in any letter case; "" is no split."""
    array = np.array([SPLITS.get(name.casefold(), name) for name in names])
    return {str(name): np.flatnonzero(array == name) for name in sorted(set(array.tolist())) if name}
