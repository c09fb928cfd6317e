"""Study files: experiments with one more table, and their JSON schemas."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from gankit.errors import SettingsError
from gankit.experiments.document import SettingsDocument
from gankit.experiments.experiment import TABLES_WITH_DEFAULTS, Experiment
from gankit.experiments.reading import read_settings
from gankit.experiments.rules import fill_from_recipe
from gankit.experiments.schema import schema
from gankit.registry import construct, registry
from gankit.studies.study import Study

# Settings that no study file may hold
DECIDED = {
    ("training", "max_minutes"): "a training of a study runs to its end; set training.max_minutes=none, and fewer steps"
}


def load_study(name: str, file: str | Path | None = None, *overrides: str) -> Study:
    """Read a study by its name in `gankit list study`, with settings as `key.path=value`, as for `gankit.load`.

    The file is TOML, JSON or YAML, or a recipe; None reads the one that comes with the study.

    Raises:
        PartError: there is no such study, or it cannot be imported.
        SettingsError: as `gankit.load`; or settings that the study itself decides, or that do not fit each other.
    """
    kind: type[Study] = registry("study").get(name)
    document = _read_document(name, kind, file, overrides)
    settings = registry("study").settings(name)
    field = (settings, Field(default_factory=dict, validate_default=True))
    model = create_model("StudyFile", __base__=Experiment, **{kind.table: field})  # type: ignore[call-overload]
    content: Any = read_settings(model, document)

    def refuse(table: str, key: str, why: str) -> SettingsError:
        return SettingsError(f"{document.where((table, key))}: {table}.{key}: {why}")

    for (table, key), why in {**kind.decided, **DECIDED}.items():
        if getattr(getattr(content, table), key) is not None:
            raise refuse(table, key, why)
    experiment = Experiment.model_validate({key: getattr(content, key) for key in Experiment.model_fields})
    study: Study = construct("study", name, experiment, getattr(content, kind.table))
    study.name = registry("study").qualified_name(name)
    study.check_settings(refuse)
    return study


def _read_document(
    name: str, kind: type[Study], file: str | Path | None, overrides: tuple[str, ...]
) -> SettingsDocument:
    """What the file and the overrides say, with the tables and settings that they leave out."""
    of_data: list[tuple[str, str]] = []
    if file is not None:
        document = SettingsDocument.read(file)
    elif kind.file:
        text = packaged_text(kind)
        document = SettingsDocument(f"study {name}/{kind.file.removesuffix('.toml')}", tomllib.loads(text), text)
        of_data = [(kind.table, key) for key in kind.of_data]
    else:
        document = SettingsDocument.from_tables({})
    document.values.pop("run", None)  # of a run's experiment.toml
    if document.recipe:
        fill_from_recipe(document, overrides)
    document.fill_from_default(TABLES_WITH_DEFAULTS)
    document.override(overrides, [*of_data, *document.recipe_settings()])
    for table, values in kind.defaults.items():
        given = document.values.get(table)
        given = {"name": given} if isinstance(given, str) else given
        if isinstance(given, dict):
            document.values[table] = {**values, **given}
    return document


def packaged_text(kind: type[Study]) -> str:
    """The study file that comes with a study."""
    return (resources.files(kind.__module__.rpartition(".")[0]) / kind.file).read_text(encoding="utf-8")


def study_schema(name: str, load: bool = False) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a study's file: of an experiment, with what the study adds and leaves out.

    `load` is as for `gankit.experiments.schema.schema`.

    Raises:
        PartError: there is no study of this name, or it cannot be imported.
    """
    kind: type[Study] = registry("study").get(name)
    content = schema(load, **{kind.table: registry("study").settings(name)})
    content["title"] = f"gankit study {name}"
    tables = {
        table: [option["properties"] for option in (rule, *rule.get("anyOf", ())) if "properties" in option]
        for table, rule in content["properties"].items()
    }
    for table, key in [*kind.decided, *DECIDED]:
        for properties in tables[table]:
            del properties[key]
    for table, values in kind.defaults.items():
        for properties in tables[table]:
            properties.update({key: {**properties[key], "default": value} for key, value in values.items()})
    return content
