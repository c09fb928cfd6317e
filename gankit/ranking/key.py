"""The sealed key of a rating page: what each image is, in a file of its own whose hash stands on the page."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from gankit.errors import RunError
from gankit.runs.run import Run

FORMAT = 1


@final
@dataclass(frozen=True)
class Shown:
    """One image of a page.

    Attributes:
        id: what the page calls it, which says nothing of it.
        real: whether it is a real image.
        number: of the drawn images, or of the real ones.
        label: as `gankit sample --label` reads it, or "" where it has none.
    """

    id: str
    real: bool
    number: int
    label: str


@final
@dataclass(frozen=True)
class Key:
    """What a page does not tell.

    Attributes:
        secret: 64 hexadecimal digits that decide order and ids. They also keep the hash from being guessed at.
        run: name of the run's folder.
        generator: sha256 of the exported generator.
        best: whether the generator was the best while training.
        seed: of the drawn images.
        label: that was asked for, or None.
        reals: which real images were mixed in, or None.
        images: in the page's order.
    """

    secret: str
    run: str
    generator: str
    best: bool
    seed: int
    label: str | None
    reals: str | None
    images: tuple[Shown, ...]

    def content(self) -> bytes:
        """The key's file."""
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n").encode()

    @property
    def digest(self) -> str:
        """sha256 of the file, as it stands on the page."""
        return hashlib.sha256(self.content()).hexdigest()

    @property
    def generated(self) -> list[Shown]:
        """The drawn images by number."""
        return sorted((each for each in self.images if not each.real), key=lambda each: each.number)


def seal(
    run: Run, seed: int, label: str | None, drawn: list[str], reals: str | None, chosen: list[tuple[int, str]]
) -> Key:
    """A key with a secret of its own, which shuffles the images.

    Args:
        run: of the drawn images.
        seed: of the drawn images.
        label: that was asked for.
        drawn: one label a drawn image.
        reals: what the real images are.
        chosen: number and label of each real image.
    """
    secret = secrets.token_hex(32)
    every = [(False, number, text) for number, text in enumerate(drawn)]
    every += [(True, number, text) for number, text in chosen]
    order = np.random.default_rng(int(secret, 16)).permutation(len(every))
    images = tuple(Shown(_id(secret, place), *every[which]) for place, which in enumerate(order.tolist()))
    generator = hashlib.sha256(run.export_bytes()).hexdigest()
    return Key(secret, run.path.absolute().name, generator, run.wants_best, seed, label, reals, images)


def _id(secret: str, place: int) -> str:
    return hmac.new(secret.encode(), str(place).encode(), "sha256").hexdigest()[:12]


def real_places(count: int, wanted: int) -> list[int]:
    """Which of `count` real images are mixed in: a fresh draw that only the key records."""
    return sorted(secrets.SystemRandom().sample(range(count), wanted))


def read_key(path: Path) -> tuple[Key, str]:
    """A key, and the sha256 of its file.

    Raises:
        RunError: it is missing, or no key of a rating page.
    """
    try:
        content = path.read_bytes()
        table: dict[str, Any] = json.loads(content)
        if table.pop("format") != FORMAT:
            raise RunError(f"{path} was written by a newer gankit: upgrade gankit")
        table["images"] = tuple(Shown(**each) for each in table["images"])
        return Key(**table), hashlib.sha256(content).hexdigest()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} is no key of a rating page ({error}): give the key.json that lay beside the page"
        ) from error
