"""Errors of settings in plain words: one sentence for each setting that pydantic refuses."""

import re
import reprlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from gankit.errors import suggestion

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 4, 10, 10, 10
shown = _SHORT.repr
"""Shows a value as Python writes it, shortened in its middle where it would fill more than a line or two."""
_NEEDED = {
    **dict.fromkeys(("model_type", "dict_type"), "a table"), **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
}  # fmt: skip
NONE = "none"
"""What stands in a file for None, which TOML lacks."""


def optional_settings(model: type[BaseModel]) -> list[str]:
    """The settings that may be None."""
    return [name for name, field in model.model_fields.items() if type(None) in get_args(field.annotation)]


def read_none(model: type[BaseModel], values: Any) -> Any:
    """The values of a table of settings, with None where a setting that may be None is "none", "null" or empty."""
    if not isinstance(values, Mapping):
        return values
    names = [name for name in optional_settings(model) if isinstance(values.get(name), str)]
    nones = {name: None for name in names if values[name].strip().casefold() in (NONE, "null", "")}
    return {**values, **nones}


def reword_errors(
    model: type[BaseModel],
    value: Any,
    handler: ModelWrapValidatorHandler[Any],
    reserved: Collection[str] = (),
    hint_for: Callable[[str], str] = lambda _: "",
) -> Any:
    """Validate a model after `read_none`, refuse numbers that are probably mistakes, and reword all errors.

    Args:
        model: the model.
        value: what is validated.
        handler: pydantic's own validation, as a validator of mode "wrap" gets it.
        reserved: keys that the table has besides the model's settings, for "did you mean".
        hint_for: maps the name of an unknown setting to a hint that names the parts or tables that have it, or to "".

    Raises:
        ValidationError: each error's context holds gankit's text as `sentence` and pydantic's type as `pydantic_type`.
    """
    value = read_none(model, value)
    given = value if isinstance(value, dict) else {}
    errors = list(_refused_numbers(model, given))
    result = None
    try:
        result = handler(value)
    except ValidationError as error:
        known = [*reserved, *model.model_fields]
        for detail in error.errors(include_url=False):
            # An error of a nested table has its sentence already: the model of that table has reworded it.
            context = detail.get("ctx", {})
            sentence = context.get("sentence") or _sentence(detail, known, hint_for)
            error_type = context.get("pydantic_type", detail["type"])
            errors.append(_error(sentence, error_type, detail["loc"], detail["input"]))
    if errors:
        errors += _unset_hints(model, given, errors)
        raise ValidationError.from_exception_data(model.__name__, errors) from None
    return result


def _refused_numbers(model: type[BaseModel], values: Mapping[str, Any]) -> Iterator[InitErrorDetails]:
    """The errors of values that pydantic would accept as numbers although the user probably meant something else."""
    for name, field in model.model_fields.items():
        value, kinds = values.get(name), _kinds_in(field.annotation)
        takes_number = kinds & {int, float} and kinds.isdisjoint({bool, Any, object})
        # Python, and pydantic with it, takes true and false for the numbers 1 and 0.
        if takes_number and any(isinstance(item, bool) for item in _leaves(value)):
            yield _error(f"a number is needed, not {shown(value)}", "number", (name,), value)
        # 1.000 is a thousand in many countries, and pydantic takes it for the whole number 1.
        if kinds == {int} and any(map(_may_be_thousands, _leaves(value))):
            sentence = f"a whole number is needed, not {shown(value)}: write 1000 for a thousand"
            yield _error(sentence, "number", (name,), value)


def _unset_hints(
    model: type[BaseModel], values: Mapping[str, Any], errors: Collection[InitErrorDetails]
) -> list[InitErrorDetails]:
    """For each refused setting that may be None, a second sentence, which says how to leave it unset."""
    refused = {error["loc"][0]: error["input"] for error in errors if error.get("loc")}
    return [
        _error(f'"{NONE}" unsets it', "none", (name,), refused[name])
        for name in optional_settings(model)
        # Whoever writes a table or a list does not want to unset it.
        if name in refused and not isinstance(values.get(name), (dict, list))
    ]


def _leaves(value: Any) -> list[Any]:
    """The items of a list, and of lists within it; for a value that is no list, the value alone."""
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, (list, tuple)) else [value]


def _may_be_thousands(value: Any) -> bool:
    """Whether a value such as 1.000, which pydantic reads as 1, may stand for 1000.

    A float from 1000 on, such as 1e5, cannot: at most three digits come before the first dot for thousands.
    """
    if isinstance(value, str):
        return re.fullmatch(r"\s*[+-]?\d+\.0*\s*", value) is not None
    return isinstance(value, float) and value.is_integer() and abs(value) < 1000


def _kinds_in(annotation: Any) -> set[Any]:
    """The types in an annotation, such as {int, float} for `list[int] | Annotated[float, Ge(0)] | Literal["a"] | None`.

    Words (`Literal`) and None are left out.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal or annotation in (None, type(None), ...):
        return set()
    if isinstance(annotation, type) or not arguments:
        return {annotation}
    return set().union(*map(_kinds_in, arguments[:1] if origin is Annotated else arguments))


def _error(sentence: str, error_type: str, location: tuple[str | int, ...], value: Any) -> InitErrorDetails:
    """An error of the setting at this location, whose message is the sentence."""
    reworded = PydanticCustomError("reworded", "{sentence}", {"sentence": sentence, "pydantic_type": error_type})
    return {"type": reworded, "loc": location, "input": value}


def _sentence(error: ErrorDetails, known: Collection[str], hint_for: Callable[[str], str]) -> str:
    """Our sentence for an error, or pydantic's where that is plain; `known` are names to suggest for unknown ones."""
    message, value, context = error["msg"], error["input"], error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            name = str(error["loc"][-1])
            return f"there is no such setting; {hint_for(name) or suggestion(name, known)}"
        case "missing" if isinstance(error["loc"][-1], int):
            return "the list is too short"
        case "missing":
            return "this setting is missing, and has no default"
        case kind if kind in _NEEDED:
            return f"{_NEEDED[kind]} is needed, not {shown(value)}"
        case "too_short" | "too_long" as kind:
            bound = f"{context['min_length']} or more" if kind == "too_short" else f"{context['max_length']} or less"
            return f"a list of length {bound} is needed, not of length {context['actual_length']}"
        # "part" comes from `read_part`, the others from validators; their messages are plain already.
        case "part" | "value_error" | "assertion_error":
            return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
        case _:
            return f"{message[:1].lower()}{message[1:]}, not {shown(value)}"
