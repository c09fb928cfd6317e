"""The JSON schemas of experiments and studies accept and refuse what loading does."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from settings_texts import errors, write

import gankit
from gankit.errors import SettingsError
from gankit.experiments.recipe_files import fixed_recipe_names, recipe_text
from gankit.experiments.schema import schema
from gankit.registry import registry
from gankit.studies.reading import load_study, packaged_text, study_schema


def valid(value: Any, rule: dict[str, Any], definitions: dict[str, Any]) -> bool:
    """As much of JSON Schema as gankit's schema uses."""
    if "$ref" in rule:
        return valid(value, definitions[rule["$ref"].removeprefix("#/$defs/")], definitions)
    types = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool,
             "null": type(None)}  # fmt: skip
    if "type" in rule and (
        not isinstance(value, types[rule["type"]]) or (rule["type"] in ("number", "integer") and value is True)
    ):
        return False
    if ("const" in rule and value != rule["const"]) or ("enum" in rule and value not in rule["enum"]):
        return False
    if "anyOf" in rule and not any(valid(value, option, definitions) for option in rule["anyOf"]):
        return False
    if "oneOf" in rule and sum(valid(value, option, definitions) for option in rule["oneOf"]) != 1:
        return False
    if isinstance(value, (int, float)) and not (
        rule.get("minimum", value) <= value <= rule.get("maximum", value)
        and rule.get("exclusiveMinimum", value - 1) < value < rule.get("exclusiveMaximum", value + 1)
    ):
        return False
    if isinstance(value, list):
        items = [*rule.get("prefixItems", []), *[rule.get("items", {})] * len(value)]
        return rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)) and all(
            valid(item, schema, definitions) for item, schema in zip(value, items, strict=False)
        )
    if isinstance(value, dict):
        known, others = rule.get("properties", {}), rule.get("additionalProperties", True)
        further = [item for key, item in value.items() if key not in known]
        if others is False and further:
            return False
        if isinstance(others, dict) and not all(valid(item, others, definitions) for item in further):
            return False
        return set(rule.get("required", [])) <= set(value) and all(
            valid(item, known[key], definitions) for key, item in value.items() if key in known
        )
    return True


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return json.loads(json.dumps(schema()))


def test_the_schema_accepts_every_recipe(made: dict[str, Any]) -> None:
    for name in fixed_recipe_names():
        assert valid(tomllib.loads(recipe_text(name)), made, made["$defs"]), name
        assert valid(gankit.load(name).tables(), made, made["$defs"]), name
    none = {
        "data": {"name": "folder", "path": "x", "subset": "none", "grey": "none"},
        "training": {"max_minutes": "none"},
    }
    assert valid(none, made, made["$defs"])
    assert not valid({"training": {"steps": "none"}}, made, made["$defs"])
    assert valid({"augment": "none", "losses": ["hinge"], "critic": "resnet"}, made, made["$defs"])


@pytest.mark.parametrize(
    "tables",
    [
        {"trainig": {}},
        {"training": {"steps": 0}},
        {"training": {"stepz": 3}},
        {"critic": {"width": 4}},
        {"critic": {"name": "resnet", "widht": 4}},
        {"critic": {"name": "unheard-of"}},
        {"losses": []},
        {"losses": [{"name": "hinge", "weight": -1}]},
        {"augment": {"name": "diffaugment", "scope": "all"}},
    ],
)
def test_the_schema_refuses_what_loading_refuses(made: dict[str, Any], tables: dict[str, Any]) -> None:
    assert not valid(tables, made, made["$defs"])
    errors(tables)


def test_the_schema_has_bounds_defaults_and_every_part(made: dict[str, Any]) -> None:
    training = made["properties"]["training"]["properties"]
    assert training["steps"]["minimum"] == 1
    number = training["averaging"]["oneOf"][0]
    assert number == {**number, "type": "number", "minimum": 0, "exclusiveMaximum": 1}
    assert training["averaging"]["default"] == 0.999
    for table, kind in (("generator", "generator"), ("critic", "critic"), ("data", "dataset"), ("augment", "augment")):
        options = made["properties"][table]["anyOf"]
        names = [option["properties"]["name"]["const"] for option in options if "properties" in option]
        assert names == registry(kind).names()
    losses = made["properties"]["losses"]["items"]["anyOf"]
    penalty = next(option for option in losses if option.get("title") == "loss gradient-penalty")["properties"]
    assert (penalty["target"]["default"], penalty["every"]["minimum"], penalty["every"]["default"]) == (1.0, 1, 1)
    references = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(made)))
    assert references <= set(made["$defs"])


PACKAGED = [name for name in registry("study").built_in() if registry("study").get(name).file]
"""Studies that come with a study file; one of readers has nothing to ask about before images are named."""


@pytest.fixture(scope="module", params=PACKAGED)
def of_study(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, json.loads(json.dumps(study_schema(request.param)))


def test_nothing_of_the_eyes_is_left_where_other_data_are_named() -> None:
    of_eyes = re.compile(r"eyes|tropia|strabismus|deviation|right eye")
    own = ["data.name=npz", "data.path=x.npz", "data.held_out=0.2"]
    for name in fixed_recipe_names():
        assert not of_eyes.search(gankit.load(name, *own).toml()), name
    for name in PACKAGED:
        assert of_eyes.search(load_study(name).toml()), name
        assert not of_eyes.search(load_study(name, None, *own).toml()), name


def test_the_schema_of_a_study_accepts_the_packaged_one(of_study: tuple[str, dict[str, Any]]) -> None:
    name, made = of_study
    text = packaged_text(registry("study").get(name))
    assert valid(tomllib.loads(text), made, made["$defs"])
    assert valid(load_study(name).tables(), made, made["$defs"])
    references = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(made)))
    assert references <= set(made["$defs"])
    assert not valid(tomllib.loads(text), schema(), schema()["$defs"])  # of an experiment without the study's table


@pytest.mark.parametrize(
    ("study", "text"),
    [
        ("agreement", "[study]\nthreshold = [0.5]"),
        ("agreement", "[study]\nthresholds = [1.5]"),
        ("agreement", '[study]\ncontrols = ["no-subset"]'),
        ("agreement", "[classifier]\nseeds = 2"),
        ("agreement", '[data]\nname = "eyes"\nmin_agreement = 0.5'),
        ("agreement", '[data]\nname = "eyes"\nsubset = 9'),
        ("agreement", "[training]\nmax_minutes = 5.0"),
        ("classifier", "[classifier]\nseed = 2"),
        ("classifier", '[classifier]\narms = ["unreal"]'),
        ("classifier", "[classifier]\ngroupings = {none = []}"),
        ("classifier", "[classifier.classical]\nrotation = 3"),
        ("classifier", "[classifier.classical]\nrotate = 181"),
        ("classifier", "[study]\nseeds = 2"),
        ("classifier", "[training]\nmax_minutes = 5.0"),
    ],
)
def test_the_schema_of_a_study_refuses_what_loading_refuses(study: str, text: str, tmp_path: Path) -> None:
    made = study_schema(study)
    assert not valid(tomllib.loads(text), made, made["$defs"])
    with pytest.raises(SettingsError):
        load_study(study, write(tmp_path / "study.toml", text))


def test_the_schema_of_a_study_tells_its_own_defaults(made: dict[str, Any], tmp_path: Path) -> None:
    def held_out(of: dict[str, Any]) -> set[float]:
        tables = [option["properties"] for option in of["properties"]["data"]["anyOf"] if "properties" in option]
        return {table["held_out"]["default"] for table in tables}

    file = write(tmp_path / "study.toml", '[data]\nname = "eyes"')
    for name in PACKAGED:
        assert held_out(study_schema(name)) == {load_study(name, file).experiment.data.held_out}, name
    assert held_out(made) == {gankit.load(file).data.held_out} == {0.0}
