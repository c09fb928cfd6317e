"""The sealed key of a rating page: a file that says what each image is, and whose hash stands on the page."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeVar, final

import numpy as np
from annotated_types import Ge, Lt
from pydantic import TypeAdapter, ValidationError

from gankit.errors import RunError
from gankit.experiments.values import parse_text
from gankit.files import open_ordinary

FORMAT = 2

SomeKey = TypeVar("SomeKey", bound="Sealed")


@final
@dataclass(frozen=True)
class Shown:
    """One image of a page."""

    id: str  # its name on the page, which tells nothing about it
    real: bool
    number: Annotated[int, Ge(0), Lt(2**63)]  # its index among the images of its source, or among the real ones
    label: str  # as `gankit sample --label` reads it, or "" where it has none
    source: Annotated[int, Ge(0), Lt(2**63)] = 0  # its place in the key's `sources`; 0 for a real image


@final
@dataclass(frozen=True)
class Origin:
    """A source of images."""

    name: str  # of the run's folder, or of the set of images
    content: str  # sha256 of the run's exported generator, or a digest of the images that were chosen from the set
    best: bool = False  # whether the generator is the one that was best while training, not the last


@dataclass(frozen=True)
class Sealed:
    """What a page does not tell: a file whose hash stands on the page."""

    # 64 hexadecimal digits that decide order and ids; without them the content cannot be guessed by its hash
    secret: str

    def content(self) -> bytes:
        """The key's file."""
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n").encode()

    @property
    def digest(self) -> str:
        """sha256 of the file, as it stands on the page."""
        return hashlib.sha256(self.content()).hexdigest()


@final
@dataclass(frozen=True)
class Key(Sealed):
    """The key of a ranking's page."""

    sources: tuple[Origin, ...]  # where the images that are not real come from
    seed: Annotated[int, Ge(0), Lt(2**63)]  # of the drawn or chosen images
    label: str | None  # with which all images were drawn
    reals: str | None  # name of the set that real images were mixed in from
    images: tuple[Shown, ...]  # in the page's order

    @property
    def generated(self) -> list[Shown]:
        """The images that are not real, sorted by source and number."""
        generated = (image for image in self.images if not image.real)
        return sorted(generated, key=lambda image: (image.source, image.number))


def seal(
    sources: Sequence[Origin],
    labels: Sequence[Sequence[str]],
    seed: int,
    label: str | None,
    reals: str | None,
    real: list[tuple[int, str]],
) -> Key:
    """A key with a new secret, which shuffles the images.

    `labels` are those of each source's images, one each; `real` has number and label of each real image. All else as
    `Key`.
    """
    secret = new_secret()
    images = [(False, number, text, place) for place, texts in enumerate(labels) for number, text in enumerate(texts)]
    images += [(True, number, text, 0) for number, text in real]
    order = np.random.default_rng(int(secret, 16)).permutation(len(images)).tolist()
    shown = tuple(Shown(name, *images[index]) for name, index in zip(new_ids(secret, len(order)), order, strict=True))
    return Key(secret, tuple(sources), seed, label, reals, shown)


def new_secret() -> str:
    """The secret of a new key."""
    return secrets.token_hex(32)


def new_ids(secret: str, count: int) -> list[str]:
    """So many ids, which tell nothing without the secret; spreadsheets would read 123456789e12 as a number."""
    return ["a" + hmac.new(secret.encode(), str(i).encode(), "sha256").hexdigest()[:11] for i in range(count)]


def read_key(path: Path, kind: type[SomeKey]) -> tuple[SomeKey, str]:
    """A key of a kind, and the sha256 of its file.

    Raises:
        RunError: the file is missing, or is not the key of a rating page.
    """
    try:
        with open_ordinary(path) as file:
            content = file.read()
        table = parse_text(content.decode(), ".json")
        if (written := table.pop("format")) not in (1, FORMAT):
            raise RunError(f"{path} was written by a newer gankit: upgrade gankit")
        if written == 1:  # of one run
            names = {"name": "run", "content": "generator", "best": "best"}
            table["sources"] = [{new: table.pop(old) for new, old in names.items()}]
        key = TypeAdapter(kind).validate_json(json.dumps(table), strict=True)
        return key, hashlib.sha256(content).hexdigest()
    except ValidationError as error:
        first = error.errors()[0]
        raise _no_key(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_key(path, error) from error


def check_numbers(key: Key, path: Path) -> None:
    """Refuse a key, read from `path`, whose images are not numbered 0, 1, 2, ... in each source, or share an id.

    Raises:
        RunError: it is such a key.
    """
    places, ids = [(image.source, image.number) for image in key.generated], {image.id for image in key.images}
    count = len(places) // max(len(key.sources), 1)
    numbered = [(source, number) for source in range(len(key.sources)) for number in range(count)]
    if not key.sources or places != numbered or len(ids) < len(key.images):
        why = "it names no source, its images are not numbered 0, 1, 2, ... in each source, or two have one id"
        raise _no_key(path, why)


def _no_key(path: Path, reason: object) -> RunError:
    return RunError(
        f"{path} is not the key of a rating page ({reason}): give the key.json that was written with the page"
    )
