"""The JSON schema of experiment files, and of study files, which add a table; it covers all installed parts."""

from typing import Any

from pydantic import BaseModel

from gankit.errors import PartError
from gankit.experiments.experiment import Evaluation, Training
from gankit.experiments.tables import AugmentTable, CriticTable, DataTable, GeneratorTable, LossTable, PartTable
from gankit.registry import registry
from gankit.registry.messages import NONE
from gankit.registry.plugins import PlugIn


def schema(load: bool = False, **more: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of an experiment, with `more` top-level tables, for example that of a study.

    Plug-ins are imported only with `load`; else the schema allows them any settings. Parts that cannot be imported are
    left out.
    """
    definitions: dict[str, Any] = {}

    def settings_schema(settings: type[BaseModel], owner: str) -> dict[str, Any]:
        # With the owner as prefix: two parts may have different nested models of the same name.
        content = settings.model_json_schema(ref_template=f"#/$defs/{owner}.{{model}}")
        for setting in content.get("properties", {}).values():
            if {"type": "null"} in setting.get("anyOf", []):
                setting["anyOf"].append({"const": NONE})
        definitions.update({f"{owner}.{name}": value for name, value in content.pop("$defs", {}).items()})
        return content

    def part_schema(table: type[PartTable]) -> dict[str, Any]:
        table_schema = settings_schema(table, table.kind)
        table_properties = {key: value for key, value in table_schema["properties"].items() if key != "part"}
        options: list[dict[str, Any]] = [{"type": "string", "description": "the name alone, with default settings"}]
        parts = registry(table.kind)
        for name in parts.names():
            content: dict[str, Any] = {}
            if load or not isinstance(parts.find(name), PlugIn):
                try:
                    content = settings_schema(parts.settings(name), f"{table.kind}.{name}".replace(":", "."))
                except PartError:
                    continue
                content["additionalProperties"] = False
            content["properties"] = {"name": {"const": name}, **table_properties, **content.get("properties", {})}
            content["required"] = ["name", *content.get("required", [])]
            content["title"] = f"{table.kind} {name}"
            options.append(content)
        return {"description": table_schema.get("description", ""), "anyOf": options}

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gankit experiment", "type": "object", "additionalProperties": False,
        "properties": {
            **{name: settings_schema(table, name) for name, table in more.items()},
            "data": part_schema(DataTable), "generator": part_schema(GeneratorTable),
            "critic": part_schema(CriticTable), "augment": part_schema(AugmentTable),
            "losses": {"type": "array", "minItems": 1, "items": part_schema(LossTable)},
            "training": settings_schema(Training, "training"),
            "evaluation": settings_schema(Evaluation, "evaluation"),
            "run": {"type": "object", "description": "The record of a run; not an input."},
        },
        "$defs": definitions,
    }  # fmt: skip
