"""Errors of settings in plain words: one sentence for each setting that pydantic refuses."""

import difflib
import reprlib
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 4, 10, 10, 10
MOST_LISTED = 40
"""The largest number of known names that an error lists."""
NONE = "none"
"""What stands in a file for None, which TOML lacks."""
shown = _SHORT.repr
"""A value as Python writes it, shortened in its middle where it would fill more than a line or two."""


def suggestion(name: str, known: Collection[str], *, list_all: bool = False) -> str:
    """What to say after an unknown name: the closest known one, else all of them, or the first of very many.

    Args:
        name: the unknown name.
        known: the names that there are.
        list_all: whether all of them are listed after the closest one too.
    """
    listing = f"known: {', '.join(islice(known, MOST_LISTED))}" if known else "there are none"
    if len(known) > MOST_LISTED:
        listing += f", ... ({len(known)} in all)"
    folded = {item.casefold(): item for item in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    if not close:
        return listing
    question = f"did you mean {folded[close[0]]!r}?"
    return f"{question} {listing}" if list_all else question


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
    elsewhere: Callable[[str], str] = lambda _: "",
) -> Any:
    """Validate a model after `read_none`, and put its errors in gankit's words.

    Args:
        model: the model.
        value: to validate.
        handler: pydantic's own validation, as a validator of mode "wrap" gets it.
        reserved: keys that the table has besides the model's settings, for "did you mean".
        elsewhere: maps the name of an unknown setting to a hint that names other parts with it, or to "".

    Raises:
        ValidationError: the context of each error holds gankit's text as `sentence` and pydantic's type as `reason`.
    """
    value = read_none(model, value)
    known = [*reserved, *model.model_fields]
    details: list[InitErrorDetails] = []
    for name, field in model.model_fields.items():
        given = value.get(name) if isinstance(value, dict) else None
        # Python, and pydantic with it, takes true and false for the numbers 1 and 0.
        if any(isinstance(item, bool) for item in _leaves(given)) and _takes_numbers_alone(field.annotation):
            details.append(_error(f"a number is needed, not {shown(given)}", "number", (name,), given))
    result = None
    try:
        result = handler(value)
    except ValidationError as error:
        details += [_reword(detail, known, elsewhere) for detail in error.errors(include_url=False)]
    if details:
        # A refused setting that may be None gets a second sentence, which says how to leave it unset.
        refused = {detail["loc"][0]: detail["input"] for detail in details if detail["loc"]}
        for name in set(optional_settings(model)) & refused.keys():
            if isinstance(value, dict) and not isinstance(value.get(name), (dict, list)):
                details.append(_error(f'"{NONE}" unsets it', "none", (name,), refused[name]))
        raise ValidationError.from_exception_data(model.__name__, details) from None
    return result


def _leaves(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, (list, tuple)) else [value]


def _takes_numbers_alone(annotation: Any) -> bool:
    """Whether a setting's type allows numbers, and no truth values."""
    types = _types_in(annotation)
    return any(kind in (int, float) for kind in types) and not any(kind in (bool, Any, object) for kind in types)


def _types_in(annotation: Any) -> list[Any]:
    """The types that unions, containers and `Annotated` are made of."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) or origin is Literal or not arguments:
        return [annotation]
    inner = arguments[:1] if origin is Annotated else arguments
    return [kind for argument in inner for kind in _types_in(argument)]


def _reword(error: ErrorDetails, known: Collection[str], elsewhere: Callable[[str], str]) -> InitErrorDetails:
    context = error.get("ctx", {})
    # An error of a nested table has its sentence already: the model of that table has reworded it.
    if "sentence" in context:
        return _error(context["sentence"], context["reason"], error["loc"], error["input"])
    return _error(_sentence(error, known, elsewhere), error["type"], error["loc"], error["input"])


def _error(sentence: str, reason: str, location: tuple[str | int, ...], value: Any) -> InitErrorDetails:
    reworded = PydanticCustomError("reworded", "{sentence}", {"sentence": sentence, "reason": reason})
    return {"type": reworded, "loc": location, "input": value}


def _sentence(error: ErrorDetails, known: Collection[str], elsewhere: Callable[[str], str]) -> str:
    message, value, context = error["msg"], error["input"], error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            name = str(error["loc"][-1])
            return f"there is no such setting; {elsewhere(name) or suggestion(name, known)}"
        case "missing" if isinstance(error["loc"][-1], int):
            return "the list is too short"
        case "missing":
            return "this setting is missing, and has no default"
        case "model_type" | "dict_type":
            return f"a table is needed, not {shown(value)}"
        case "int_type" | "int_parsing" | "int_from_float":
            return f"a whole number is needed, not {shown(value)}"
        case "float_type" | "float_parsing":
            return f"a number is needed, not {shown(value)}"
        case "list_type" | "tuple_type":
            return f"a list is needed, not {shown(value)}"
        case "too_short":
            return f"a list of at least {context['min_length']} is needed, not of {context['actual_length']}"
        case "too_long":
            return f"a list of at most {context['max_length']} is needed, not of {context['actual_length']}"
        # "part" comes from `read_part`, the others from validators; their messages are plain already.
        case "part" | "value_error" | "assertion_error":
            return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
        case _:
            return f"{message[:1].lower()}{message[1:]}, not {shown(value)}"
