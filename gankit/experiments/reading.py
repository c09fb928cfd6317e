"""Validating the settings of a document; each error is one line that says where the setting stands."""

from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gankit.errors import SettingsError
from gankit.experiments.document import SettingsDocument
from gankit.experiments.lines import KeyPath
from gankit.experiments.tables import Settings

Model = TypeVar("Model", bound=Settings)


def read_settings(model: type[Model], document: SettingsDocument, complete: bool = False) -> Model:
    """Validate the settings of a document; raises a SettingsError with one line for each that is refused.

    Of a run, parts other than the generator need not be installed, unless `complete`.
    """
    document.refuse_control_characters()
    # Parts of a run may have been registered in another program; sampling needs only the generator.
    may_lack_parts = "run" in document.values and not complete
    try:
        return model.model_validate(document.values, context={"may_be_missing": may_lack_parts})
    except ValidationError as error:
        errors = error.errors(include_url=False)
    # An override such as data.path=2024-05-01 is read as a date, where a text is meant.
    for detail in errors:
        path = _path_in_document(document.values, detail["loc"], "")
        if detail["ctx"]["pydantic_type"] == "string_type" and document.take_as_text(path):
            return read_settings(model, document, complete)
    raise SettingsError("\n".join(_error_lines(document, errors)))


def _error_lines(document: SettingsDocument, errors: list[ErrorDetails]) -> list[str]:
    """One line for each refused setting; where it may be of several types, "or" joins the error of each."""
    sentences: dict[str, list[str]] = {}  # by place and setting
    for error in errors:
        error_type = error["ctx"]["pydantic_type"]  # from `reword_errors`: pydantic's type, or "part" for a bad name
        path = _path_in_document(document.values, error["loc"], error_type)
        place = document.where((*path, "name") if error_type == "part" else path)
        setting = ".".join(map(str, path)) or "experiment"
        hint = f"; give it as {setting}={str(path[-1]).upper()}" if path and error_type == "missing" else ""
        sentences.setdefault(f"{place}: {setting}", []).append(error["msg"] + hint)
    return [f"{heading}: {'; or '.join(dict.fromkeys(texts))}" for heading, texts in sentences.items()]


def _path_in_document(values: Any, location: tuple[str | int, ...], error_type: str) -> KeyPath:
    """The path of the setting at pydantic's `location`.

    Keys that the document lacks are left out, such as the union member that pydantic tried, but not the name of a
    missing setting.
    """
    keys: list[str | int] = []
    for key in location:
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            continue
        keys.append(key)
    if error_type == "missing" and isinstance(values, dict):
        keys.append(location[-1])
    return tuple(keys)
