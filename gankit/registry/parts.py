"""Parts with validated settings: read from names and tables, and built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from gankit.errors import GankitError, PartError, suggestion, typed_line
from gankit.registry.messages import shown
from gankit.registry.plugins import KINDS, plural
from gankit.registry.registry import Registry
from gankit.registry.settings import as_table, interface, takes_positional
from gankit.registry.trust import check_trust, trust
from gankit.terminal.text import as_columns

if TYPE_CHECKING:  # not at run time: the interfaces load torch, which `gankit list` does not need
    from gankit.interfaces import Augment, Critic, Dataset, Features, Generator, ImageSpec, Loss, Metric


class Part(BaseModel):
    """A part that an experiment names: validated settings, nothing built yet."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    kind: str
    name: str
    settings: Any

    def build(self, argument: object = None) -> Any:
        """Build the part. `argument` is an `ImageSpec`; for a data set it is its (height, width) or None.

        Raises:
            PartError: as `construct`; or the part would load a program that the user has not named, or changes what all
                parts share, such as torch's seed.
        """
        from gankit.seeds import unchanged_settings  # loads torch, which lists of parts do not need

        # The name of the setting that takes a program file, for parts that have one (`Features.program`).
        setting = getattr(registry(self.kind).get(self.name), "program", None)
        if setting is not None and (file := getattr(self.settings, setting)) is not None:
            check_trust(file, f"{self.kind} {self.name}")
        with unchanged_settings(f"{self.kind} {self.name}"):
            return construct(self.kind, self.name, argument, self.settings)

    def names(self) -> list[str]:
        """Its own qualified name and those of the parts within its settings."""
        values = [getattr(self.settings, key) for key in type(self.settings).model_fields]
        return [self.name, *(name for part in _parts_in(values) for name in part.names())]

    def table(self) -> dict[str, Any]:
        """The part as a table of an experiment file."""
        return {"name": self.name, **as_table(self.settings)}


def _parts_in(value: Any) -> Iterator[Part]:
    """The parts in a setting's value, also those in lists and tables."""
    if isinstance(value, Part):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _parts_in(item)


def registry(kind: str) -> Registry:
    """The registry of a kind; there is one per process.

    Raises:
        PartError: there is no such kind.
    """
    if kind not in KINDS:
        raise PartError(f"there is no kind of part named {kind!r}; {suggestion(kind, KINDS)}")
    return _registry(kind)


@cache
def _registry(kind: str) -> Registry:
    return Registry(kind, nested_part)


def nested_part(kind: str) -> Any:
    """The type annotation of a setting that holds a `Part` of this kind, read from a name or a table with a name."""
    table = {"type": "object", "required": ["name"]}
    schema = {"description": f"one of {plural(kind)}", "anyOf": [{"type": "string"}, table]}

    def validate(value: object, info: ValidationInfo) -> Part:
        # The parts of a recorded run may be missing here: another program may have registered them.
        return read_part(kind, value, may_be_missing=bool(info.context and info.context["may_be_missing"]))

    read = BeforeValidator(validate)
    return Annotated[Part, read, PlainSerializer(Part.table), WithJsonSchema(schema)]


class UnreadSettings(BaseModel):
    """The settings of a part that cannot be found, as they are written."""

    model_config = ConfigDict(frozen=True, extra="allow")


def read_part(kind: str, value: object, may_be_missing: bool = False) -> Part:
    """A validated part from its name or from a table with a name, for pydantic's validators.

    With `may_be_missing`, a part that cannot be found is kept as it is written, and refused only when it is built.

    Raises:
        PydanticCustomError: of the type "part": no name, or a name that cannot be used.
        pydantic.ValidationError: a setting is not valid.
    """
    if isinstance(value, Part):
        return value
    try:
        name, settings = name_and_settings(kind, value)
        if may_be_missing:
            try:
                registry(kind).get(name)
            except PartError:
                return Part(kind=kind, name=name, settings=UnreadSettings(**settings))
        return _validate(kind, name, settings)
    except PartError as error:
        raise PydanticCustomError("part", "{reason}", {"reason": str(error)}) from error


def name_and_settings(kind: str, value: object) -> tuple[str, dict[str, Any]]:
    """A part's name and its settings, not validated, from its name or from a table with a name.

    Raises:
        PartError: the value is neither.
    """
    table = {"name": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping):
        raise PartError(f"a name, or a table with a name, is needed, not {shown(value)}")
    if not isinstance(name := table.get("name"), str):
        raise PartError(f"the table needs a name; known: {', '.join(registry(kind).names())}")
    return name, {key: item for key, item in table.items() if key != "name"}


def valid_part(kind: str, name: str, settings: Mapping[str, Any]) -> Part:
    """A validated part, for code outside pydantic's validators: it raises `PartError`, never a `ValidationError`.

    Raises:
        PartError: an unknown name, or settings that are not valid.
    """
    try:
        return _validate(kind, name, settings)
    except ValidationError as error:
        sentences = []
        for detail in error.errors(include_url=False):
            setting = ".".join([name, *map(str, detail["loc"])])
            sentences.append(f"{setting}: {detail['msg']}")
        raise PartError(f"{kind} {'; '.join(sentences)}") from None


def _validate(kind: str, name: str, settings: Mapping[str, Any]) -> Part:
    """A part with validated settings, for `read_part` and `valid_part`; raises PartError or ValidationError."""
    model = registry(kind).settings(name)
    try:
        validated = model.model_validate(dict(settings))
    except (ValidationError, GankitError):
        raise
    except Exception as error:  # one of the part's own validators raised something other than ValueError
        raise PartError(f"{kind} {name!r} cannot validate its settings: {typed_line(error, 500)}") from error
    return Part(kind=kind, name=registry(kind).qualified_name(name), settings=validated)


def construct(kind: str, name: str | type, argument: object, settings: BaseModel) -> Any:
    """Build a part from validated settings.

    Args:
        kind: the part's kind.
        name: the part's name, or its class.
        argument: the value for the constructor's positional parameter, if it has one: an `ImageSpec`; for a data set
            its (height, width) or None; for a study its experiment.
        settings: an instance of the part's settings model; nested parts are built first, with the same argument.

    Raises:
        PartError: the part is unknown or cannot be imported, it needs an image specification and got none, or its
            constructor raised an error other than a `GankitError`, which passes through.
    """
    part = registry(kind).get(name)
    positional = takes_positional(part)
    if positional and registry(kind).positional == "image" and not isinstance(argument, interface("ImageSpec")):
        raise PartError(f"{kind} {name!r} needs an ImageSpec as image, not {argument!r}")
    values = {key: _build_nested(getattr(settings, key), argument) for key in type(settings).model_fields}
    try:
        return part(argument, **values) if positional else part(**values)
    except GankitError:
        raise
    except (Exception, SystemExit) as error:
        raise PartError(f"{kind} {name!r} cannot be built: {typed_line(error, 500)}") from error


def _build_nested(value: Any, argument: object) -> Any:
    """A setting's value with the parts in it built, also those in lists and tables."""
    if isinstance(value, Part):
        return value.build(argument)
    if isinstance(value, (list, tuple)):
        return type(value)(_build_nested(item, argument) for item in value)
    if isinstance(value, dict):
        return {key: _build_nested(item, argument) for key, item in value.items()}
    return value


@overload
def build(kind: Literal["generator"], name: str, image: ImageSpec | None = None, **settings: Any) -> Generator: ...
@overload
def build(kind: Literal["critic"], name: str, image: ImageSpec | None = None, **settings: Any) -> Critic: ...
@overload
def build(kind: Literal["loss"], name: str, image: ImageSpec | None = None, **settings: Any) -> Loss: ...
@overload
def build(kind: Literal["augment"], name: str, image: ImageSpec | None = None, **settings: Any) -> Augment: ...
@overload
def build(kind: Literal["metric"], name: str, image: ImageSpec | None = None, **settings: Any) -> Metric: ...
@overload
def build(kind: Literal["features"], name: str, image: ImageSpec | None = None, **settings: Any) -> Features: ...
@overload
def build(kind: Literal["dataset"], name: str, image: tuple[int, int] | None = None, **settings: Any) -> Dataset: ...
@overload
def build(kind: str, name: str, image: Any = None, **settings: Any) -> Any: ...
def build(kind: str, name: str, image: Any = None, **settings: Any) -> Any:
    """Build one part by name.

    Args:
        kind: "generator", "critic", "loss", "augment", "metric", "features" or "dataset".
        name: as in `gankit list`.
        image: the constructor's positional argument: the `ImageSpec` for parts that ask for one; for a data set its
            (height, width), or None.
        settings: the part's settings, validated as in an experiment.

    Raises:
        PartError: an unknown name, settings that are not valid, or an `ImageSpec` that the part does not support.
        DataError: raised by a data set.
    """
    if not isinstance(name, str):
        raise PartError(f"{kind}: a name is needed, not {shown(name)}; known: {', '.join(registry(kind).names())}")
    if (first := registry(kind).positional) in settings.keys() - registry(kind).settings(name).model_fields.keys():
        raise PartError(
            f"{kind} {name}: {first} is not a setting: give it before the settings, build({kind!r}, {name!r}, {first})"
        )
    trust(settings)  # the user's own program names these files
    return valid_part(kind, name, settings).build(image)


def list_parts(kind: str | None = None, load: bool = False) -> tuple[list[str], int]:
    """The lines that `gankit list` prints, and how many parts failed.

    A line holds name, kind and distribution of a part, and the other names that gankit knows it by.

    Args:
        kind: the kind of parts to list, in the singular or plural; None for all kinds.
        load: whether to import every part and end its line with "ok", or "fails:" and the reason.

    Raises:
        PartError: there is no such kind.
    """
    singular = {plural(name): name for name in KINDS}
    registries = [registry(singular.get(kind, kind))] if kind else map(registry, KINDS)
    cells = []
    failures = 0
    for row in (row for parts in registries for row in parts.list()):
        remark = f"also {', '.join(row.also)}" if row.also else ""
        if load:
            try:
                registry(row.kind).settings(row.name)
                remark = f"ok, {remark}" if remark else "ok"
            except GankitError as error:
                remark = f"fails: {error}"
                failures += 1
        cells.append((row.name, row.kind, row.distribution, remark))
    return as_columns(cells), failures
