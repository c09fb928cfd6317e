"""The JSON schemas of study files, for editors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from gankit.errors import GankitError
from gankit.experiments.schema import schema
from gankit.registry.messages import suggestion
from gankit.studies.agreement.settings import DECIDED, HELD_OUT, AgreementTable
from gankit.studies.classifier.settings import ClassifierTable

TABLES: dict[str, tuple[str, type[BaseModel]]] = {
    "agreement": ("study", AgreementTable),
    "classifier": ("classifier", ClassifierTable),
}
"""The table that each study has beside those of an experiment: its name and its settings."""


def study_schema(study: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a study's file: of an experiment, with what the study adds and leaves out.

    Args:
        study: "agreement" or "classifier".

    Raises:
        GankitError: there is no such study.
    """
    if study not in TABLES:
        raise GankitError(f"there is no study {study!r}; {suggestion(study, TABLES)}")
    name, table = TABLES[study]
    made = schema(**{name: table})
    made["title"] = f"gankit study {study}"
    del made["properties"]["training"]["properties"]["max_minutes"]
    if study == "agreement":
        for option in made["properties"]["data"]["anyOf"]:
            if keys := option.get("properties"):
                keys["held_out"] = {**keys["held_out"], "default": HELD_OUT}
                option["properties"] = {key: rule for key, rule in keys.items() if key not in DECIDED}
    return made
