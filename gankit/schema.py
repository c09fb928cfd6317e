"""The JSON schema of an experiment file, for editors: every part that is installed, with its settings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from gankit.config import (
    AugmentTable,
    CriticTable,
    DataTable,
    Evaluation,
    GeneratorTable,
    LossTable,
    PartTable,
    Training,
)
from gankit.errors import PartError
from gankit.registry import registry


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of an experiment; parts that cannot be imported are left out."""
    definitions: dict[str, Any] = {}

    def model(settings: type[BaseModel]) -> dict[str, Any]:
        content = settings.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(content.pop("$defs", {}))
        return content

    def part(table: type[PartTable]) -> dict[str, Any]:
        own = model(table)
        keys = {key: value for key, value in own["properties"].items() if key != "part"}
        options: list[dict[str, Any]] = []
        for name in registry(table.kind).names():
            try:
                content = model(registry(table.kind).settings(name))
            except PartError:
                continue
            content["properties"] = {"name": {"const": name}, **keys, **content.get("properties", {})}
            content["required"] = ["name", *content.get("required", [])]
            content["title"] = f"{table.kind} {name}"
            content["additionalProperties"] = False
            options.append(content)
        return {"description": own.get("description", ""), "oneOf": options}

    augment = part(AugmentTable)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gankit experiment",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "data": part(DataTable),
            "generator": part(GeneratorTable),
            "critic": part(CriticTable),
            "losses": {"type": "array", "minItems": 1, "items": part(LossTable)},
            "augment": {"anyOf": [{"const": "none"}, augment]},
            "training": model(Training),
            "evaluation": model(Evaluation),
            "run": {"type": "object", "description": "The record of a run; not an input."},
        },
        "$defs": definitions,
    }
