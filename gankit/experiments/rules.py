"""Recipes that compute settings from the images: opening the images, and filling in the settings."""

import copy
from typing import Any

import numpy as np
from pydantic import Field

from gankit import recipes
from gankit.errors import DataError, PartError, blame, counted
from gankit.experiments.document import DATA_SPECIFIC, SettingsDocument
from gankit.experiments.reading import read_settings
from gankit.experiments.selection import select_images
from gankit.experiments.tables import DataTable, Settings
from gankit.interfaces import Dataset, ImageSpec
from gankit.recipes import TrainingImages
from gankit.registry.messages import shown

MIN_IMAGES = 20
"""Recipes refuse fewer training images."""
MIN_IMAGES_OF_CLASS = 10
"""Conditional trainings warn of classes with fewer images, and go on: of a rare disease there may be no more."""
DECISIVE = ("batch", "seed", "steps")
"""Settings of the table `training` on which a recipe's other settings depend, besides all settings of `data`."""


class DecisiveSettings(Settings):
    """The tables on which a recipe's other settings depend."""

    data: DataTable
    training: dict[str, Any] = Field(default_factory=dict)  # not yet validated


def fill_from_recipe(document: SettingsDocument, overrides: tuple[str, ...], data: Dataset | None = None) -> None:
    """Compute a recipe's tables for the images that it or the overrides name, and put them into its document.

    The document holds the recipe's own data table; `overrides` and `data` are those of `gankit.load`.

    Raises:
        SettingsError: an override of the data is not valid.
        DataError, PartError: as `recipe_tables`; or the images cannot be opened.
    """
    decisive = _decisive_settings(document, overrides, data is not None)
    # What is no whole number above 0 is left out; if it is wrong, it is refused later, with all errors of settings.
    given = {key: decisive.training.get(key) for key in DECISIVE}
    training = {key: value for key, value in given.items() if type(value) is int and value > 0}
    tables = recipe_tables(document.computed_by, decisive.data, data, **training)
    # Copied: a recipe may use one table for two settings, and an override may change only one of them.
    document.values |= SettingsDocument.from_tables(tables).values


def _decisive_settings(document: SettingsDocument, overrides: tuple[str, ...], data_is_given: bool) -> DecisiveSettings:
    """The recipe's data table and the decisive settings of the training, as the overrides change them.

    If other data are named or given, the settings that suit only the recipe's own are left out.
    """
    data = copy.deepcopy(document.values["data"])
    if data_is_given:
        data = {key: value for key, value in data.items() if ("data", key) not in DATA_SPECIFIC}
    decisive = SettingsDocument(document.label, {"data": data, "training": {}})
    decisive.override(tuple(filter(_is_decisive, overrides)), DATA_SPECIFIC)
    return read_settings(DecisiveSettings, decisive)


def _is_decisive(override: str) -> bool:
    """Whether a recipe's other settings depend on the one that is overridden."""
    setting = str(override).partition("=")[0].strip()
    return setting in ("data", "training", *(f"training.{key}" for key in DECISIVE)) or setting.startswith("data.")


def refuse_few(count: int, where: str) -> None:
    """Refuse fewer training images than `MIN_IMAGES`, by a DataError whose text begins with `where`."""
    if count < MIN_IMAGES:
        number = counted(count, "training image")
        raise DataError(f"{where}: {number} to learn from; at least {MIN_IMAGES} are needed, hundreds are better")


def _refuse_size(name: str, sides: tuple[int, int], image: ImageSpec) -> None:
    least, most = sides
    usual = min(max(64, least), most)  # detailed enough for most images, and fast
    if min(image.height, image.width) < least or max(image.height, image.width) > most:
        raise DataError(
            f"data.size: recipe {name} makes images of {least} to {most} pixels a side, not {image.height} x "
            f"{image.width}; set data.size={usual}, or take another recipe (gankit list recipes)"
        )


def rarest_class(training: Dataset) -> tuple[int, int]:
    """The class with the fewest training images, and how many it has; conditional training needs enough of each."""
    assert training.labels is not None
    counts = np.bincount(training.labels, minlength=training.image.classes)
    return int(counts.argmin()), int(counts.min())


def recipe_tables(
    name: str, table: DataTable, data: Dataset | None = None, *, seed: int = 0, batch: int | None = None,
    steps: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The tables of a recipe for the images that `select_images` selects from `table`, `seed` and `data`.

    `batch` and `steps` are given where the user sets them.

    Raises:
        DataError: the images are too few, too small or too large for the recipe.
        PartError: the recipe returned something other than tables, or raised an error that is neither a `GankitError`
            nor a fault of the machine, such as too little memory; these stay as they are.
    """
    recipe = recipes.get(name)
    training, _ = select_images(table, seed, data)
    image = training.image
    classes = image.classes if table.conditional is True else 0
    conditions = len(table.conditional) if isinstance(table.conditional, list) else 0
    _refuse_size(name, recipe.sides, image)
    refuse_few(len(training), "data")
    spec = ImageSpec(image.channels, image.height, image.width, classes, conditions)
    images = TrainingImages(spec, len(training), training.dtype == np.uint8, batch, steps)
    with blame(PartError, f"recipe {name} failed to compute settings for {images}:"):
        tables = recipe().settings(images)
    if not isinstance(tables, dict) or {"data", "run"} & tables.keys():  # the user's, and a record's
        raise PartError(f"recipe {name} returned {shown(tables)}; it must return tables by name, without data and run")
    return tables
