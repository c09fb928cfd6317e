"""A page on which a person rates shuffled images blindly, and its sealed key."""

import secrets
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gankit.errors import GankitError, counted
from gankit.evaluation.sources import Source
from gankit.files import refuse_taken, write_atomically, write_folder
from gankit.images.pictures import image_png, png_uri
from gankit.ranking.key import seal
from gankit.ranking.shown import Sources, check_shapes, class_texts, common_count, open_reals, open_sources, side
from gankit.report.pages import render

RESERVED = "urgo"  # keyboard keys that the page uses itself: undo, real, generated, other


def write_page(
    sources: Sources,
    folder: Path,
    count: int | None = None,
    *,
    seed: int = 0,
    label: str | None = None,
    real: int = 0,
    against: Source | None = None,
) -> Path:
    """Write page.html, which shows images one by one and takes ratings, and key.json, which tells what they are.

    The page is one file that needs no other file and no network. It holds the pixels, all written by the same encoder,
    ids that tell nothing, the class names of the data, and the sha256 of the key; not the sources' names, the seed,
    labels, or which images are real. A secret that only the key holds decides order and ids, and only the key says
    which real images were chosen. The hash shows whether the key was changed afterwards.

    Args:
        sources: a run, whose generator draws the images, or other images: whatever `gankit.evaluate` takes; or a list
            of several, whose images are shuffled.
        folder: to write; it must not exist, or be empty.
        count: images of each source; by default 100, or fewer where a set has fewer.
        seed: of the images that are drawn, or chosen from a set.
        label: a class, or conditions as "1.5,0.2", of all drawn images; None draws labels as they occur.
        real: how many real images to mix in.
        against: the real images: whatever `gankit.evaluate` takes; by default held-out images of the first run, or its
            training images if it has none.

    Returns:
        the page's path.

    Raises:
        GankitError: too few images, fewer real ones than are to be mixed in, images of different sizes, which would
            tell sources apart, or data that cannot be opened.
    """
    opened = open_sources(sources)
    if (count is not None and count < 1) or real < 0:
        raise GankitError(
            f"count and real: a page needs 1 drawn image or more, and 0 real ones or more, not {count} and {real}"
        )
    refuse_taken(folder)  # before the work
    sides = [side(each, common_count(opened, count), seed, label) for each in opened]
    name, reals = open_reals(opened, against) if real else (None, None)
    shapes = [(each.origin.name, each.images.shape[1:]) for each in sides]
    chosen: list[tuple[int, str]] = []
    if name is not None and reals is not None:
        if real > len(reals):
            raise GankitError(
                f"real: {real} real images are to be mixed in, and there are {len(reals)} {name}: mix in fewer"
            )
        # Without a seed: only the key records which
        indices = np.array(sorted(secrets.SystemRandom().sample(range(len(reals)), real)))
        chosen = list(zip(indices.tolist(), class_texts(reals, indices), strict=True))
        shapes.append((name, reals.image.shape))
    check_shapes(shapes)
    key = seal([each.origin for each in sides], [each.labels for each in sides], seed, label, name, chosen)
    pictures = [
        image_png(reals.read(np.array([shown.number]))[0], reals.value_range)
        if shown.real and reals is not None
        else image_png(sides[shown.source].images[shown.number], sides[shown.source].value_range)
        for shown in key.images
    ]
    images = [{"id": shown.id, "src": png_uri(png)} for shown, png in zip(key.images, pictures, strict=True)]
    names = [*dict.fromkeys(name for each in sides for name in each.class_names)]
    page = page_text(key.digest, images, names, key.reals is not None)

    def fill(new: Path) -> None:
        write_atomically(new / "page.html", page)
        write_atomically(new / "key.json", key.content())

    return write_folder(folder, fill) / "page.html"


def page_text(key: str, images: Sequence[Mapping[str, str]], classes: Sequence[str], calls: bool) -> str:
    """The page, in HTML, for a key whose file has the sha256 `key`.

    Images are in their order, with an `id` and a data URI `src` each; a pair has another one, `right`, and asks only
    which of the two is real. `classes` are names to choose from. `calls` says whether to ask if an image is real, which
    is always asked of pairs.
    """
    pairs = sum("right" in image for image in images)
    single = len(images) - pairs
    parts = [counted(number, what) for number, what in ((single, "image"), (pairs, "pair")) if number]
    return render(
        "gankit.ranking", "page.html.j2", classes=list(zip(classes, class_keys(classes), strict=True)),
        data={"key": key, "images": images, "classes": list(classes), "calls": calls},
        title=f"Rate {' and '.join(parts)}", single=single, pairs=pairs,
    )  # fmt: skip


def class_keys(names: Sequence[str]) -> list[str]:
    """A letter for each name, one of the name's own if any is free; "" when no letter is left."""
    free = [letter for letter in string.ascii_lowercase if letter not in RESERVED]
    letters = []
    for name in names:
        preferred = [letter for letter in name.casefold() if letter in free]
        letter = next(iter([*preferred, *free]), "")
        letters.append(letter)
        if letter:
            free.remove(letter)
    return letters
