"""Validating the settings of a document; each error is one line that says where the setting stands."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gankit.errors import SettingsError
from gankit.experiments.document import SettingsDocument
from gankit.experiments.lines import KeyPath

Model = TypeVar("Model", bound=BaseModel)


def read_settings(model: type[Model], document: SettingsDocument, complete: bool = False) -> Model:
    """Validate the settings of a document.

    Args:
        model: what the settings are for.
        document: the settings.
        complete: whether all parts must be there. If False, those of a run may be missing, but for the generator.

    Raises:
        SettingsError: as `load`.
    """
    document.refuse_control_characters()
    # Parts of a run may have been registered in another program; sampling needs only the generator.
    may_lack_parts = "run" in document.values and not complete
    try:
        return model.model_validate(document.values, context="run" if may_lack_parts else None)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    # An override such as data.path=2024-05-01 is read as a date, where a text is meant.
    not_texts = [error["loc"] for error in errors if error["ctx"]["reason"] == "string_type"]
    if any(document.take_as_text(_path_in_document(document.values, location, "")) for location in not_texts):
        return read_settings(model, document, complete)
    raise SettingsError("\n".join(_error_lines(document, errors)))


def _error_lines(document: SettingsDocument, errors: list[ErrorDetails]) -> list[str]:
    """One line for each refused setting: where it stands, its name, and what is wrong with it.

    A setting of several types has an error for each of them; its line joins them with "or".
    """
    messages: dict[str, list[str]] = {}
    for error in errors:
        reason = error["ctx"]["reason"]  # from `reword_errors`: pydantic's error type, or "part" for a bad name
        path = _path_in_document(document.values, error["loc"], reason)
        place = document.where((*path, "name") if reason == "part" else path)
        setting = ".".join(map(str, path)) or "experiment"
        messages.setdefault(f"{place}: {setting}", []).append(error["msg"])
    return [f"{where}: {'; or '.join(dict.fromkeys(sentences))}" for where, sentences in messages.items()]


def _path_in_document(values: Any, location: tuple[str | int, ...], reason: str) -> KeyPath:
    """The path of the setting at pydantic's `location`, which also holds the names of branches of unions.

    Keys that the document lacks are left out, but for the last one of a setting that is missing.
    """
    keys: list[str | int] = []
    for key in location:
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            continue
        keys.append(key)
    if reason == "missing" and isinstance(values, dict):
        keys.append(location[-1])
    return tuple(keys)
