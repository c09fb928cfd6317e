"""The blinded set: which images are shown, in which order, on which page; and the sealed key to what they are."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from gankit.errors import RunError
from gankit.evaluation.copies import find_copies
from gankit.files import refuse_nonempty, write_atomically, write_folder
from gankit.images.pictures import image_png, png_uri
from gankit.ranking.key import Sealed, new_ids, new_secret, read_key
from gankit.ranking.page import page_text
from gankit.ranking.rating_files import REAL
from gankit.studies.readers.sources import Picture, SourceImages

if TYPE_CHECKING:
    from gankit.studies.readers.study import ReadersStudy

KEY, SET, PAGE, IMAGES = "key.json", "for-readers", "page.html", "images"


@final
@dataclass(frozen=True)
class Shown:
    """What a reader sees at a time: one image, or a pair."""

    id: str  # on the page; it does not tell what is shown
    pictures: tuple[Picture, ...]  # one; or the left and the right one, of which one is real
    repeats: str | None  # the id of what it shows a second time; None the first time

    @property
    def is_pair(self) -> bool:
        """Whether two images are side by side."""
        return len(self.pictures) == 2

    @property
    def source(self) -> str:
        """The source of the image; of a pair that of its generated image."""
        return next((picture.source for picture in self.pictures if picture.source != REAL), REAL)

    @property
    def files(self) -> list[str]:
        """Names of its pictures' files."""
        return [f"{self.id}-{side}.png" for side in ("left", "right")] if self.is_pair else [f"{self.id}.png"]


@final
@dataclass(frozen=True)
class SetKey(Sealed):
    """What the page does not tell."""

    sources: dict[str, str]  # in words, what each source is
    classes: tuple[str, ...]  # among which readers choose
    images: tuple[Shown, ...]  # in the page's order


Placed = tuple[tuple[Picture, ...], int | None]
"""A single image or a pair, and the place of what it repeats, if it does."""


def _in_order(items: list[tuple[Picture, ...]], repeats: float, random: np.random.Generator) -> list[Placed]:
    """Single images, or pairs, in the order in which they are shown.

    They are shuffled, and a share `repeats` of them is shown again: something of the first half in the second half.
    """
    shuffled = [items[place] for place in random.permutation(len(items))]
    half = (len(shuffled) + 1) // 2
    again = random.choice(half, min(half, round(repeats * len(shuffled))), replace=False).tolist() if shuffled else []
    first_half = [(item, None) for item in shuffled[:half]]
    second_half = [(item, None) for item in shuffled[half:]]
    second_half += [(shuffled[place][::-1], place) for place in again]  # the sides of a pair are exchanged
    return first_half + [second_half[place] for place in random.permutation(len(second_half))]


def seal_set(study: "ReadersStudy", opened: Mapping[str, SourceImages]) -> SetKey:
    """A key with a new secret, which chooses and shuffles the images: first single ones, then pairs."""
    settings, secret = study.settings, new_secret()
    random = np.random.default_rng(int(secret, 16))
    chosen = {name: source.pictures(name, random.permutation(len(source.images))) for name, source in opened.items()}
    singles = [(picture,) for name in opened for picture in chosen[name][: settings.images]]
    reals_of_pairs = iter(chosen[REAL][settings.images :])
    pairs = []
    for name in settings.generated:
        for generated in chosen[name][settings.images : settings.images + settings.pairs]:
            pair = (next(reals_of_pairs), generated)
            pairs.append(pair if random.choice([-1, 1]) == 1 else pair[::-1])
    parts = [_in_order(list(items), settings.repeats, random) for items in (singles, pairs)]
    all_ids, images = iter(new_ids(secret, sum(map(len, parts)))), list[Shown]()
    for part in parts:
        ids = [next(all_ids) for _ in part]
        for shown_id, (pictures, repeated) in zip(ids, part, strict=True):
            images.append(Shown(shown_id, pictures, None if repeated is None else ids[repeated]))
    sources = {name: source.what for name, source in opened.items()}
    return SetKey(secret, sources, _class_names(opened), tuple(images))


def _class_names(opened: Mapping[str, SourceImages]) -> tuple[str, ...]:
    """The classes of all sources, each meaning once in the first of its spellings."""
    names = dict[str, str]()
    for source in opened.values():
        for name in source.images.class_names:
            names.setdefault(name.casefold(), name)
    return tuple(names.values())


def _copies(opened: Mapping[str, SourceImages], key: SetKey) -> list[str]:
    """Warnings of generated images that copy real ones of the set: no reader can tell these apart."""
    shown = {}
    for name, source in opened.items():
        numbers = {each.number for image in key.images for each in image.pictures if each.source == name}
        shown[name] = source.images.subset(sorted(numbers))
    return [
        f"{name}: {warning}" for name, images in shown.items() if name != REAL
        for warning in find_copies(images, shown[REAL], None, "real image")[1]
    ]  # fmt: skip


def export_set(study: "ReadersStudy", job: Path) -> dict[str, Any]:
    """Write the key into the study's folder, and the page with the pictures into a folder for the readers.

    The page has pixels alone, all encoded alike, and random ids: no order, name or number tells what an image is
    without the key, whose hash stands on the page. The job's own folder stays empty; its result is the hash of the key,
    and remarks on the sources.

    Raises:
        RunError: a set is there already.
    """
    folder = job.parent.parent  # the study's, which holds the folder of jobs
    refuse_nonempty(folder / SET, "readers may have it already; delete it, or choose another --out")
    opened = study.opened
    key = seal_set(study, opened)
    remarks = [note for source in opened.values() for note in source.notes] + _copies(opened, key)

    def png(picture: Picture) -> bytes:
        images = opened[picture.source].images
        return image_png(images.read(np.array([picture.number]))[0], images.value_range)

    def fill(new: Path) -> None:
        entries = []
        (new / IMAGES).mkdir()
        for shown in key.images:
            entry = {"id": shown.id}
            # "src" is the only or the left picture
            for page_key, name, picture in zip(("src", "right"), shown.files, shown.pictures, strict=False):
                content = png(picture)
                (new / IMAGES / name).write_bytes(content)
                entry[page_key] = png_uri(content)
            entries.append(entry)
        write_atomically(new / PAGE, page_text(key.digest, entries, key.classes, True))

    write_atomically(folder / KEY, key.content())
    write_folder(folder / SET, fill)
    return {"key": key.digest, "notes": remarks}


def open_key(folder: Path, digest: str) -> SetKey:
    """The key in a study's folder, whose hash was `digest` when it was sealed.

    Raises:
        RunError: it is missing, is no key, or was changed since.
    """
    path = folder / KEY
    key, actual = read_key(path, SetKey)
    if actual != digest:
        raise RunError(
            f"{path} was changed since the set was sealed ({actual[:12]}..., not {digest[:12]}...): restore it"
        )
    return key


def flow(key: SetKey) -> list[list[str]]:
    """How many images of each source were shown where, a header first."""
    places = ("one by one", "in pairs", "shown again")
    counts = Counter(
        (picture.source, places[2 if shown.repeats else shown.is_pair])
        for shown in key.images for picture in shown.pictures
    )  # fmt: skip
    rows = [[source, what, *(str(counts[source, place]) for place in places)] for source, what in key.sources.items()]
    return [["source", "what", *places], *rows]
