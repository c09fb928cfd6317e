"""The JSON schema of an experiment file, or of one with further tables: every installed part with its settings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from gankit.errors import PartError
from gankit.experiments.experiment import Evaluation, Training
from gankit.experiments.tables import AugmentTable, CriticTable, DataTable, GeneratorTable, LossTable, PartTable
from gankit.registry import registry


def schema(**more: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of an experiment; parts that cannot be imported are left out.

    Args:
        more: further tables by name, as a study has one.
    """
    definitions: dict[str, Any] = {}

    def model(settings: type[BaseModel], owner: str) -> dict[str, Any]:
        # Two parts may call different tables alike.
        content = settings.model_json_schema(ref_template=f"#/$defs/{owner}.{{model}}")
        definitions.update({f"{owner}.{name}": value for name, value in content.pop("$defs", {}).items()})
        return content

    def part(table: type[PartTable]) -> dict[str, Any]:
        own = table.model_json_schema()
        keys = {key: value for key, value in own["properties"].items() if key != "part"}
        options: list[dict[str, Any]] = [{"type": "string", "description": "the name alone: every setting by default"}]
        for name in registry(table.kind).names():
            try:
                content = model(registry(table.kind).settings(name), f"{table.kind}.{name}".replace(":", "."))
            except PartError:
                continue
            content["properties"] = {"name": {"const": name}, **keys, **content.get("properties", {})}
            content["required"] = ["name", *content.get("required", [])]
            content["title"] = f"{table.kind} {name}"
            content["additionalProperties"] = False
            options.append(content)
        return {"description": own.get("description", ""), "anyOf": options}

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gankit experiment",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **{name: model(table, name) for name, table in more.items()},
            "data": part(DataTable),
            "generator": part(GeneratorTable),
            "critic": part(CriticTable),
            "losses": {"type": "array", "minItems": 1, "items": part(LossTable)},
            "augment": part(AugmentTable),
            "training": model(Training, "training"),
            "evaluation": model(Evaluation, "evaluation"),
            "run": {"type": "object", "description": "The record of a run; not an input."},
        },
        "$defs": definitions,
    }
