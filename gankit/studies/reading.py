"""Read study files, which are experiments with one more table, and make their JSON schemas."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from gankit.errors import SettingsError
from gankit.experiments.document import SettingsDocument
from gankit.experiments.experiment import Experiment
from gankit.experiments.reading import read_settings
from gankit.experiments.rules import fill_from_recipe
from gankit.experiments.schema import schema
from gankit.registry import construct, registry
from gankit.studies.study import Study

# Settings that no study file may hold, like those in `Study.decided`, and what to do instead
DECIDED_IN_ALL_STUDIES = {
    ("training", "max_minutes"): "a training of a study runs to its end; set training.max_minutes=none, and fewer steps"
}


def load_study(name: str, file: str | Path | None = None, *overrides: str) -> Study:
    """Read a study file and make the study.

    Args:
        name: the study's, as in `gankit list study`.
        file: TOML, JSON or YAML, or a recipe's name; None reads the file that comes with the study.
        overrides: settings as `key.path=value`, as for `gankit.load`.

    Raises:
        PartError: there is no such study, or it cannot be imported.
        SettingsError: as `gankit.load`; or settings that the study itself decides, or that do not fit each other.
    """
    study_class: type[Study] = registry("study").get(name)
    document = _read_document(name, study_class, file, overrides)
    settings = registry("study").settings(name)
    field = (settings, Field(default_factory=dict, validate_default=True))
    model = create_model("StudyFile", __base__=Experiment, **{study_class.table: field})  # type: ignore[call-overload]
    content: Any = read_settings(model, document)

    def refuse(table: str, key: str, why: str) -> SettingsError:
        return SettingsError(f"{document.where((table, key))}: {table}.{key}: {why}")

    for (table, key), why in {**study_class.decided, **DECIDED_IN_ALL_STUDIES}.items():
        if getattr(getattr(content, table), key) is not None:
            raise refuse(table, key, why)
    experiment = Experiment.model_validate({key: getattr(content, key) for key in Experiment.model_fields})
    study: Study = construct("study", name, experiment, getattr(content, study_class.table))
    study.name = registry("study").qualified_name(name)
    study.check_settings(refuse)
    return study


def _read_document(
    name: str, study_class: type[Study], file: str | Path | None, overrides: tuple[str, ...]
) -> SettingsDocument:
    """The settings of a study file, changed by the overrides and completed with defaults."""
    about_data: list[tuple[str, str]] = []  # dropped where the overrides name another data set
    if file is not None:
        document = SettingsDocument.read(file)
    elif study_class.file:
        text = packaged_text(study_class)
        where = f"study {name}/{study_class.file.removesuffix('.toml')}"
        document = SettingsDocument(where, tomllib.loads(text), text)
        about_data = [(study_class.table, key) for key in study_class.of_data]
    else:
        document = SettingsDocument.from_tables({})
    document.values.pop("run", None)  # The file may be a run's experiment.toml, which has this table too
    if document.computed_by:
        fill_from_recipe(document, overrides)
    document.fill_from_default()
    document.override(overrides, [*about_data, *document.recipe_settings()])
    for table, defaults in study_class.defaults.items():
        given = document.values.get(table)
        given = {"name": given} if isinstance(given, str) else given  # A string is short for a table with a name
        if isinstance(given, dict):
            document.values[table] = {**defaults, **given}
    return document


def packaged_text(study_class: type[Study]) -> str:
    """The text of the study file that comes with a study."""
    package = study_class.__module__.rpartition(".")[0]
    return (resources.files(package) / study_class.file).read_text(encoding="utf-8")


def study_schema(name: str, load: bool = False) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a study's file: of an experiment, with what the study adds and leaves out.

    `load` is as for `gankit.experiments.schema.schema`.

    Raises:
        PartError: there is no study of this name, or it cannot be imported.
    """
    study_class: type[Study] = registry("study").get(name)
    content = schema(load, **{study_class.table: registry("study").settings(name)})
    content["title"] = f"gankit study {name}"

    def alternatives(table: str) -> list[dict[str, Any]]:
        """The properties of a table, in each form that the schema allows it."""
        rule = content["properties"][table]
        return [form["properties"] for form in (rule, *rule.get("anyOf", ())) if "properties" in form]

    for table, key in [*study_class.decided, *DECIDED_IN_ALL_STUDIES]:
        for properties in alternatives(table):
            del properties[key]
    for table, defaults in study_class.defaults.items():
        for properties in alternatives(table):
            properties.update({key: {**properties[key], "default": value} for key, value in defaults.items()})
    return content
