"""Names of classes and of files, where the same name may be spelled in several ways."""

import re
import unicodedata
from collections.abc import Callable, Iterable

_BETWEEN_WORDS = re.compile(r"[\s_\-\u2010-\u2015]+")
_INVISIBLE = ("Cf", "Cc")  # categories of characters that take no room, such as the zero-width space


def two_spellings(names: Iterable[str], form: Callable[[str], str] | None = None) -> str | None:
    """The first two names that are spellings of one name, as text for messages; None if all names differ.

    Spellings of a name differ in letter case, in Unicode forms, in what stands between words (white space, hyphens,
    underscores), in characters that are not seen, or in how a number is written; or in whatever `form` makes equal.
    """
    spellings: dict[str, str] = {}
    for name in sorted(names):
        key = (form or spelling)(name)
        if key in spellings:
            first = spellings[key]
            return f"{escaped(name)} twice" if first == name else f"{escaped(first)} and {escaped(name)}"
        spellings[key] = name
    return None


def escaped(name: str) -> str:
    """A name between quotation marks, with letters beyond ASCII escaped, as they may look like others."""
    return repr(name) if name.isascii() else ascii(name)


def look(name: str) -> str:
    """A form that is the same for all names that look alike on most screens."""
    return " ".join(visible(unicodedata.normalize("NFKC", name)).split())


def visible(text: str) -> str:
    """A text without the characters that are not seen, and without white space round it."""
    return "".join(letter for letter in text if unicodedata.category(letter) not in _INVISIBLE).strip()


def as_number(text: str, *, comma: bool = False) -> float | None:
    """A text as a number, or None; with `comma` a comma may be the decimal point."""
    if comma and re.fullmatch(r"[+\-\u2212]?\d+,\d+", text):
        text = text.replace(",", ".")
    try:  # Python reads 1_2, which may be a name, as 12
        return None if "_" in text else float(text.replace("\u2212", "-"))
    except ValueError:
        return None


def spelling(name: str) -> str:
    """A form that is the same for all spellings of a name."""
    text = unicodedata.normalize("NFC", look(name).casefold()).replace("\u2212", "-")  # the minus sign
    text = "".join(str(unicodedata.decimal(letter, letter)) for letter in text)  # digits of other scripts
    number = re.fullmatch(r"([+-]?)(\d+)(?:\.(\d*))?", text)
    if number is None:
        return _BETWEEN_WORDS.sub(" ", text)
    sign, whole, decimals = number.groups(default="")
    decimals = decimals.rstrip("0")
    return f"{sign.strip('+')}{whole.lstrip('0') or '0'}{f'.{decimals}' if decimals else ''}"
