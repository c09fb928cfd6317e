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


def redacted(text: str, headers: Iterable[Header]) -> str:
    """The text with every id, name, date of birth and accession number of these files' patients hidden."""
    secrets = {secret for header in headers for secret in header.secrets if len(secret) >= _SHORT}
    if not secrets:
        return text
    ordered = sorted(secrets, key=len, reverse=True)
    bounded = (re.escape(s) if len(s) >= _LONG else rf"(?<![^\W_]){re.escape(s)}(?![^\W_])" for s in ordered)
    return re.sub("|".join(bounded), HIDDEN, text, flags=re.IGNORECASE)
