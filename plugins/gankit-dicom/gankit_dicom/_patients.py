"""Whom images belong to, as numbers, and texts that do not tell it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gankit_dicom._header import Header

GroupBy = Literal["patient", "study", "file"]
HIDDEN = "[patient]"
_SHORT = 3  # characters; shorter ones stand in too many texts by chance, and tell nobody apart
_LONG = 5  # from here on hidden within words too


def dense(keys: Iterable[Hashable]) -> NDArray[np.int64]:
    """(n,) numbers from 0, equal for equal keys, in the order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def group_files(headers: Sequence[Header], by: GroupBy) -> NDArray[np.int64]:
    """(n,) group of each of the n files: those that share a patient id or a study, directly or through others.

    A study has one patient, so a file whose id was removed belongs to the patient of its study. A file with neither
    id nor study is a group by itself.
    """
    parents = list(range(len(headers)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    first: dict[tuple[str, str], int] = {}
    for place, header in enumerate(headers):
        keys = {"patient": header.patient if by == "patient" else "", "study": header.study if by != "file" else ""}
        for key in keys.items():
            if key[1]:
                parents[root(place)] = root(first.setdefault(key, place))
    return dense(root(place) for place in range(len(headers)))


class Redactor:
    """Hides in a text every id, name, date of birth and accession number of some files' patients.

    Args:
        headers: of the files.
    """

    def __init__(self, headers: Iterable[Header]) -> None:
        secrets = {secret for header in headers for secret in header.secrets if len(secret) >= _SHORT}
        self._secrets = {secret.casefold() for secret in secrets}
        self._lengths = sorted({len(secret) for secret in secrets}, reverse=True)

    def __call__(self, text: str) -> str:
        """The text with `[patient]` in their place."""
        # A pattern of all secrets would take seconds for each text where there are many patients.
        parts = (text[start : start + length] for length in self._lengths for start in range(len(text) - length + 1))
        found = {part: re.escape(part) for part in parts if part.casefold() in self._secrets}
        bounded = [s if len(part) >= _LONG else rf"(?<![^\W_]){s}(?![^\W_])" for part, s in found.items()]
        return re.sub("|".join(bounded), HIDDEN, text) if found else text
