"""A page on which a person rates shuffled images blindly, and its sealed key."""

import secrets
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gankit.errors import GankitError, counted
from gankit.evaluation.sources import run_reference
from gankit.files import refuse_nonempty, user_path, write_atomically, write_folder
from gankit.images.pictures import image_png, png_uri
from gankit.ranking.key import seal
from gankit.report.pages import render
from gankit.runs.run import Run
from gankit.runs.sampling import label_texts, parse_label

RESERVED = "urgo"
"""Keyboard keys that the page uses itself: undo, real, generated, other."""


def write_page(
    run: Run, folder: Path, count: int = 100, *, seed: int = 0, label: str | None = None, real: int = 0
) -> Path:
    """Write page.html, which shows images one by one and takes ratings, and key.json, which tells what they are.

    The page is one file that needs no other file and no network. It holds the pixels, all written by the same encoder,
    ids that tell nothing, the class names of the data, and the sha256 of the key; not the run's name, the seed, labels,
    or which images are real. A secret that only the key holds decides order and ids, and only the key says which real
    images were chosen. The hash shows whether the key was changed afterwards.

    Args:
        run: whose generator draws the images.
        folder: to write; it must not exist, or be empty.
        count: images to draw.
        seed: of the drawn images.
        label: a class, or conditions as "1.5,0.2", of all drawn images; None draws labels as they occur.
        real: how many real images to mix in; held-out images if the run has some, else training images.

    Returns:
        the page's path.

    Raises:
        GankitError: too few images, fewer real ones than are to be mixed in, or data that cannot be opened.
    """
    if count < 1 or real < 0:
        raise GankitError(
            f"count and real: a page needs 1 drawn image or more, and 0 real ones or more, not {count} and {real}"
        )
    refuse_nonempty(user_path(folder))
    latents, labels = run.draw(count, parse_label(run, label), seed)
    name, reals = run_reference(run) if real else (None, None)
    chosen: list[tuple[int, str]] = []
    if reals is not None:
        if real > len(reals):
            raise GankitError(
                f"real: {real} real images are to be mixed in, and there are {len(reals)} {name}: mix in fewer"
            )
        # Without a seed: only the key records which
        indices = sorted(secrets.SystemRandom().sample(range(len(reals)), real))
        labels_of, names = reals.labels, reals.class_names
        chosen = [(index, "" if labels_of is None or not names else names[int(labels_of[index])]) for index in indices]
    images = run.decode(latents, labels)
    key = seal(run, seed, label, label_texts(run, labels) or [""] * count, name, chosen)
    pictures = [
        image_png(reals.read(np.array([shown.number]))[0], reals.value_range)
        if shown.real and reals is not None
        else image_png(images[shown.number], run.value_range)
        for shown in key.images
    ]
    images_of_page = [{"id": shown.id, "src": png_uri(png)} for shown, png in zip(key.images, pictures, strict=True)]
    page = page_text(key.digest, images_of_page, run.class_names, key.reals is not None)

    def fill(new: Path) -> None:
        write_atomically(new / "page.html", page)
        write_atomically(new / "key.json", key.content())

    return write_folder(folder, fill) / "page.html"


def page_text(key: str, images: Sequence[Mapping[str, str]], classes: Sequence[str], calls: bool) -> str:
    """The page, in HTML.

    Args:
        key: sha256 of the key's file.
        images: in their order, with an `id` and a data URI `src` each; a pair has another one, `right`, and asks only
            which of the two is real.
        classes: names to choose from.
        calls: whether to ask if an image is real; always asked of pairs.
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
