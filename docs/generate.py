"""Writes the reference pages that follow from the code: `python docs/generate.py [FOLDER]`, before mkdocs."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any

import tomlkit
import typer
from griffe import Docstring, DocstringSectionKind
from pydantic import BaseModel

import gankit
from gankit import cli, recipes
from gankit.experiments import experiment as config
from gankit.experiments import tables as part_tables
from gankit.experiments.recipe_files import recipe_facts
from gankit.registry import registry
from gankit.registry.plugins import PART_KINDS, plural
from gankit.studies.commands import study_command
from gankit.studies.reading import packaged_text
from gankit.terminal import help

HERE = Path(__file__).parent
FACTS = ("# For: ", "# Sizes: ", "# Time: ")
RECIPES = HERE.parent / "gankit" / "recipes"
SOURCE = re.compile(r"arXiv \d{4}\.\d{4,5}")
TITLES = {"dataset": "Data sets", "features": "Features"}
OPENINGS = {
    "generator": "Latents to images. An experiment names one in its `[generator]` table.",
    "critic": "Images to scores; larger is more real. An experiment names one in its `[critic]` table.",
    "loss": "Terms of both objectives, added with their weights. An experiment lists them as `[[losses]]`; "
    "[Losses](../explanation/losses.md) says which go together.",
    "augment": "Random changes of the images that the critic sees. An experiment may have one `[augment]` table; "
    "[Augmentation](../explanation/augmentation.md) explains the scopes.",
    "metric": "What is measured between real and generated images: `evaluation.metrics`, or "
    "`gankit evaluate --metrics`; [How to judge](../how-to/judge.md) says how to read the values.",
    "features": "Images to vectors, in which distances are measured: `evaluation.features`, or "
    "`gankit evaluate --features`.",
    "dataset": "Where images come from: the `[data]` table. [Your own images](../how-to/data.md) shows them at work.",
}


def prose(text: str) -> str:
    """Plain text with code spans as Markdown: only what stands in backticks is markup."""
    pieces = re.split(r"(``.+?``|`[^`]+`)", text)
    for place in range(0, len(pieces), 2):
        plain = pieces[place].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        plain = re.sub(r"([*_\[\]])", r"\\\1", plain)
        pieces[place] = SOURCE.sub(lambda found: f"[{found[0]}](https://arxiv.org/abs/{found[0][6:]})", plain)
    return "".join(pieces)


def code(text: str) -> str:
    """A code span; its content may hold backticks."""
    mark = "``" if "`" in text else "`"
    pad = " " if "`" in text else ""
    return f"{mark}{pad}{text}{pad}{mark}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; bars within cells are escaped."""
    lines = [list(head)]
    lines.append(["---"] * len(lines[0]))
    lines += [[" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def toml(value: object) -> str:
    """A value as an experiment file writes it."""
    if isinstance(value, BaseModel):
        return toml(value.model_dump(mode="json", exclude_none=True))
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(toml(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {toml(item)}' for key, item in value.items())}}}"
    if isinstance(value, float):
        return f"{value:g}" if value == int(value) or value < 1e-3 else repr(value)
    return tomlkit.item(str(value) if isinstance(value, Path) else value).as_string()


def alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The types that a setting may have, where there are several."""
    return [inner for each in schema.get("anyOf", schema.get("oneOf", [])) for inner in alternatives(each) or [each]]


def type_of(schema: dict[str, Any]) -> str:
    """The type of a setting in words, from its JSON schema."""
    if options := alternatives(schema):
        if "one of" in schema.get("description", ""):
            return f"{schema['description']}: a name, or a table with a name"
        return " or ".join(dict.fromkeys(type_of(each) for each in options if each.get("type") != "null"))
    if "$ref" in schema:  # to the model of a table inside this one
        return "table"
    if "enum" in schema or "const" in schema:
        return " or ".join(code(toml(value)) for value in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "array" if "prefixItems" in schema:
            return f"list of {len(schema['prefixItems'])}: " + ", ".join(
                type_of(each) for each in schema["prefixItems"]
            )
        case "array":
            return f"list of: {type_of(schema.get('items', {}))}"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"table of: {type_of(schema['additionalProperties'])}"
        case "object":
            return "table"
        case "integer":
            return "whole number"
        case "boolean":
            return "`true` or `false`"
        case "string":
            return "path" if schema.get("format") == "path" else "text"
        case _:
            return "number"


BOUNDS = {
    "minimum": "at least {}", "exclusiveMinimum": "above {}", "maximum": "at most {}", "exclusiveMaximum": "below {}",
    "minItems": "{} entries or more", "maxItems": "{} entries or fewer", "pattern": "matches `{}`",
}  # fmt: skip


def bounds_of(schema: dict[str, Any]) -> str:
    """The bounds of a setting, also those within a list or a table, or beside a null."""
    inner = [schema, *alternatives(schema), *schema.get("prefixItems", [])]
    inner += [option for each in schema.get("prefixItems", []) for option in alternatives(each)]
    inner += [
        each[key] for each in inner for key in ("items", "additionalProperties") if isinstance(each.get(key), dict)
    ]
    found = []
    for each in inner:
        keys = [key for key in BOUNDS if key in each and not (key.endswith("Items") and "prefixItems" in each)]
        limits = {key: "2^63" if each[key] == 2**63 else f"{each[key]}" for key in keys}
        found += [BOUNDS[key].format(limit.removesuffix(".0")) for key, limit in limits.items()]
    return ", ".join(dict.fromkeys(found)) or "any"


def described(text: str | None) -> tuple[str, dict[str, str], list[tuple[str, str]]]:
    """A docstring as its text, its parameters or attributes, and the errors that it names."""
    texts: list[str] = []
    names: dict[str, str] = {}
    errors: list[tuple[str, str]] = []
    for section in Docstring(text or "").parse("google", warnings=False):
        if section.kind is DocstringSectionKind.text:
            texts.append(section.value)
        elif section.kind in (DocstringSectionKind.parameters, DocstringSectionKind.attributes):
            names |= {each.name: each.description for each in section.value}
        elif section.kind is DocstringSectionKind.raises:
            errors += [(str(each.annotation), each.description) for each in section.value]
    return "\n\n".join(texts), names, errors


def attributes(model: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of settings say of each, those of the classes that they extend among them."""
    names: dict[str, str] = {}
    for each in reversed(model.__mro__):
        names |= described(each.__doc__)[1] if issubclass(each, BaseModel) and each is not BaseModel else {}
    return names


def settings_table(model: type[BaseModel], texts: dict[str, str], leave_out: tuple[str, ...] = ()) -> str:
    """One row a setting: name, type, default, bounds, what it is."""
    properties = model.model_json_schema().get("properties", {})
    rows = []
    for name, field in model.model_fields.items():
        if name in leave_out:
            continue
        value = None if field.is_required() else field.get_default(call_default_factory=True)
        default = "needed" if field.is_required() else "not set" if value is None else code(toml(value))
        schema = properties[name]
        about = texts.get(name) or field.description or ""
        rows.append([code(name), type_of(schema), default, bounds_of(schema), prose(about)])
    return table(["setting", "type", "default", "bounds", "what it is"], rows)


def part_pages() -> Iterator[tuple[str, str]]:
    """One page a kind: a table of its parts, then each with its settings."""
    for kind in PART_KINDS:
        rows, sections = [], []
        for listing in registry(kind).list():
            if listing.distribution != "gankit":
                continue
            part, model = registry(kind).get(listing.name), registry(kind).settings(listing.name)
            text, names, errors = described(part.__doc__)
            constructor = inspect.getattr_static(part, "__init__")
            own = getattr(constructor, "__module__", "").startswith("gankit")
            more, inner, raised = described(constructor.__doc__ if own else None)
            if (settings_class := getattr(part, "Settings", None)) is not None:
                names |= described(settings_class.__doc__)[1]
            source = (sys.modules[part.__module__].__doc__ or "").splitlines()[0]
            settings = ", ".join(code(name) for name in model.model_fields) or "none"
            first, _, rest = text.partition("\n\n")
            rows.append(
                [f"[`{listing.name}`](#{listing.name})", prose(first), settings, prose(source), listing.distribution]
            )
            section = f"## `{listing.name}` {{ #{listing.name} }}\n\n{prose(first)}\n\n*{prose(source)}*\n\n"
            section += "".join(f"{prose(each)}\n\n" for each in (rest, more) if each)
            if listing.also:
                section += f"It may also be called {' or '.join(map(code, listing.also))}.\n\n"
            if issubclass(part, gankit.Loss):
                section += f"Weight where the experiment states none: `{toml(part.default_weight)}`.\n\n"
            section += settings_table(model, names | inner) if model.model_fields else "It has no settings.\n"
            for error, when in errors + raised:
                section += f"\n[`{error}`](errors.md): {prose(when)}\n"
            sections.append(section)
        title = TITLES.get(kind, plural(kind).capitalize())
        head = table(["name", "what it is", "settings", "source", "origin"], rows)
        name = plural(kind)
        opening = f"{OPENINGS[kind]} Plug-ins add more: `gankit list` shows all that are installed.\n"
        yield f"{name}.md", "\n".join([f"# {title}\n", opening, head, *sections])


def experiment_page() -> str:
    """Every table and key of an experiment file."""
    text = (
        "# Experiment file\n\nA TOML file (JSON, and YAML with the extra `yaml`, are read too) of the tables below. "
        "Tables that a file lacks come from the recipe [`wgan-gp`](recipes.md#wgan-gp); keys that a table lacks have "
        "the defaults given here. `key.path=value` on the command line overrides both: `training.steps=1000`, "
        "`losses.gradient-penalty.weight=5`. `gankit show` prints an experiment with every key filled in, and "
        "`gankit schema` a [JSON schema for editors](../how-to/experiment-files.md#editor). "
        "[How to write one](../how-to/experiment-files.md).\n"
    )
    _, tables, _ = described(config.Experiment.__doc__)
    parts: dict[str, tuple[type[BaseModel], str]] = {
        "data": (part_tables.DataTable, "datasets"), "generator": (part_tables.GeneratorTable, "generators"),
        "critic": (part_tables.CriticTable, "critics"), "losses": (part_tables.LossTable, "losses"),
        "augment": (part_tables.AugmentTable, "augments"),
    }  # fmt: skip
    for name, about in tables.items():
        heading = f"[[{name}]]" if name == "losses" else f"[{name}]"
        text += f"\n## `{heading}` {{ #{name} }}\n\n{prose(about[:1].upper() + about[1:])}\n\n"
        if name in parts:
            model, page = parts[name]
            text += f"`name` is needed: one of [{page}]({page}.md), whose own settings stand in the same table.\n\n"
            leave_out: tuple[str, ...] = ("part",)
        else:
            others: dict[str, type[BaseModel]] = {
                "training": config.Training, "evaluation": config.Evaluation, "run": config.RunRecord,
            }  # fmt: skip
            model = others[name]
            leave_out = ()
        if set(model.model_fields) - set(leave_out):
            text += settings_table(model, described(model.__doc__)[1], leave_out)
    return text


def studies_page() -> str:
    """The table that each study has beside those of an experiment, the tables in it, and the packaged file."""
    studies = {row.name: registry("study").get(row.name) for row in registry("study").list()}
    schemas = " and ".join(code(f"gankit schema --study {name}") for name in studies)
    text = (
        "# Study files\n\nA study file is an [experiment file](experiment.md) with one table more. Tables that it "
        "lacks come from the recipe [`wgan-gp`](recipes.md#wgan-gp); keys that a table lacks have the defaults given "
        "here. Without a file a study is the packaged one. `key.path=value` on the command line overrides both: "
        f"`study.seeds=3`, `classifier.classical.rotate=0`. {schemas} print [JSON schemas for "
        "editors](../how-to/experiment-files.md#editor). Plug-ins add more: `gankit list study` shows all that are "
        "installed, and [Your own study](../how-to/own-study.md) how to write one.\n"
    )
    for name, study in studies.items():
        model, table_name = registry("study").settings(name), study.table
        about, names = described(study.Settings.__doc__)[0], attributes(study.Settings)
        written = (HERE / "how-to" / f"{name}-study.md").is_file()
        how_to = f"; [how to](../how-to/{name}-study.md)" if written else ""
        text += (
            f"\n## `[{table_name}]` {{ #{table_name} }}\n\n{prose(about)} For "
            f"[`gankit study {name}`](command-line.md#study-{name}){how_to}.\n\n{settings_table(model, names)}"
        )
        for key, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                about, names, _ = described(inner.__doc__)
                text += (
                    f"\n### `[{table_name}.{key}]` {{ #{table_name}-{key} }}\n\n{prose(about)}\n\n"
                    f"{settings_table(inner, names)}"
                )
        others = " ".join(described(study.__doc__)[0].split())
        text += f"\n### The other tables {{ #{table_name}-others }}\n\n{prose(others)}\n"
        if study.file:
            text += (
                f"\n### The packaged study {{ #{table_name}-packaged }}\n\n<!-- study {name} -->\n"
                f"```toml\n{packaged_text(study)}```\n"
            )
    return text


def recipes_page() -> str:
    """Each recipe: its source, what it holds, and its file, or what follows from the eyes."""
    uses, parts, sections = [], [], []
    for name in [row.name for row in registry("recipe").list() if row.distribution == "gankit"]:
        recipe, facts = recipes.get(name), recipe_facts(name)
        told, link = gankit.load(name), f"[`{name}`](#{name})"
        source = prose((sys.modules[recipe.__module__].__doc__ or "").splitlines()[0])
        uses.append([link, prose(facts["For"]), facts["Sizes"], facts["Time"]])
        parts.append([link, "follows from the images", *_parts_of(told), f"{told.training.steps:,}"])
        content = tomlkit.dumps(
            {key: value for key, value in told.tables().items() if key not in ("run", "evaluation")}
        )
        sections.append(
            f"## `{name}` {{ #{name} }}\n\n{source} {prose(described(recipe.__doc__)[0])} Its settings "
            "[follow from the images](../explanation/recipes.md); for the eyes, 2,700 images of 32x32:\n\n"
            f"```toml\n{content}```\n"
        )
    for path in sorted(RECIPES.glob("*.toml")):
        content = path.read_text(encoding="utf-8")
        comment = " ".join(
            line[2:] for line in content[: content.index("[data]")].splitlines() if not line.startswith(FACTS)
        )
        facts = recipe_facts(path.stem)
        told = gankit.load(path.stem)
        name, what = f"[`{path.stem}`](#{path.stem})", prose(comment.split(": ")[0].rstrip("."))
        uses.append([name, prose(facts["For"]), facts["Sizes"], facts["Time"]])
        parts.append([name, what, *_parts_of(told), f"{told.training.steps:,}"])
        sections.append(f"## `{path.stem}` {{ #{path.stem} }}\n\n{prose(comment)}\n\n```toml\n{content}```\n")
    of_use = table(["recipe", "for", "sizes", "time"], uses)
    of_parts = table(["recipe", "what it is", "generator / critic", "losses", "augment", "steps"], parts)
    opening = (
        "Whole experiments by name: `gankit train RECIPE`, `gankit.load(RECIPE)`. What a recipe leaves out has the "
        "[default](experiment.md); any setting can be changed behind the name. All name the embedded eyes as data, so "
        "that they run as they are: `data.name` and its settings put [your own](../how-to/data.md) there.\n"
    )
    return "\n".join(["# Recipes\n", opening, of_use, of_parts, *sections])


def _parts_of(experiment: gankit.Experiment) -> tuple[str, str, str]:
    """Networks, losses and augment of an experiment, by name."""
    augment = code(experiment.augment.name) if experiment.augment else "none"
    losses = " + ".join(code(loss.name) for loss in experiment.losses)
    return f"{code(experiment.generator.name)} / {code(experiment.critic.name)}", losses, augment


def _parameters(command: Any) -> Iterator[tuple[str, Any, Any, object]]:
    """Name, type, typer's description and default of each parameter of a command."""
    hints = typing.get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        hint, info = typing.get_args(hints[name])[:2]
        arguments = [each for each in typing.get_args(hint) if each is not type(None)]
        kind = arguments[0] if typing.get_origin(hint) in (typing.Union, UnionType) else hint
        yield name, kind, info, parameter.default


def command_line_page() -> str:
    """Every command with its arguments and options, from the Typer application."""
    words = {str: "text", Any: "text", int: "whole number", float: "number", Path: "path", bool: "flag"}
    words[list[str]] = "any number of texts"
    groups = [("", cli.app), *((f"{group.name} ", group.typer_instance) for group in cli.app.registered_groups)]
    commands = [
        (first + (each.name or each.callback.__name__), each.callback)
        for first, group in groups
        for each in (group.registered_commands if group else [])
        if each.callback
    ]
    commands += [(f"study {row.name}", study_command(row.name)) for row in registry("study").list()]
    summary, sections = [], []
    for name, command in commands:
        usage, rows = f"gankit {name}", []
        for parameter, kind, info, default in _parameters(command):
            of_kind = words[kind] if kind in words else " or ".join(map(code, typing.get_args(kind)))
            shown = parameter.upper() if isinstance(info, typer.models.ArgumentInfo) else f"--{parameter}"
            if isinstance(info, typer.models.ArgumentInfo):
                word = f"{shown}..." if kind == list[str] else shown
                usage += f" {word}" if default is inspect.Parameter.empty else f" [{word}]"
            elif default is inspect.Parameter.empty:
                usage += f" {shown} {of_kind.split()[-1].upper()}"
            limit = f", at least {info.min}" if info.min is not None else ""
            value = "needed" if default is inspect.Parameter.empty else "none" if default is None else toml(default)
            rows.append(
                [
                    code(shown),
                    of_kind + limit,
                    value if value in ("needed", "none") else code(value),
                    prose(info.help),
                ]
            )
        if any(row[0].startswith("`--") and row[2] != "needed" for row in rows):
            usage += " [OPTIONS]"
        anchor = name.replace(" ", "-")
        about = prose(inspect.getdoc(command) or "")
        summary.append([f"[`gankit {name}`](#{anchor})", about])
        section = f"## `gankit {name}` {{ #{anchor} }}\n\n{about}\n\n```text\n{usage}\n```\n\n"
        if lines := help.examples(name):
            section += "For example:\n\n```text\n" + "\n".join(lines) + "\n```\n\n"
        sections.append(
            section + (table(["argument or option", "type", "default", "what it is"], rows) if rows else "")
        )
    opening = (
        "`gankit COMMAND --help` says the same in the terminal, and `gankit --version` prints the version. "
        "`python -m gankit` is the same program. It exits with 0, with 2 and one line for a [mistake](errors.md), and "
        "with 130 when interrupted (a training writes a checkpoint first).\n"
    )
    variables = "## Environment variables { #environment }\n\n" + table(["variable", "what it is"], [
        ["`GANKIT_CACHE`", "Folder of what gankit keeps on disk and can make again (rendered and decoded images, "
                           "features); by default the user's cache folder of the system."],
        ["`GANKIT_CACHE_GB`", "Gigabytes that cached features may take there before the oldest go; 2 by default."
        ],
        ["`GANKIT_DISABLE_PLUGINS`", "Distributions whose plug-ins are switched off, separated by commas; `*` for all."
        ],
        ["`GANKIT_TRUST`", "Paths of files that hold programs and may be loaded, separated as in `PATH`: "
                           "[who may name them](../how-to/judge.md#features)."],
    ])  # fmt: skip
    return "\n".join(["# Command line\n", opening, table(["command", "what it does"], summary), *sections, variables])


def pages() -> Iterator[tuple[str, str]]:
    """File name and text of every generated page but that of the errors."""
    yield "experiment.md", experiment_page()
    yield "studies.md", studies_page()
    yield from part_pages()
    yield "recipes.md", recipes_page()
    yield "command-line.md", command_line_page()


def write(folder: Path) -> None:
    """Write every generated page, and beside them what the architecture page shows; what stays equal is left alone."""
    import architecture
    import mistakes  # which needs this module

    architecture.write(folder.parent / "project")

    folder.mkdir(parents=True, exist_ok=True)
    for name, text in [*pages(), ("errors.md", mistakes.page())]:
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "reference")
