"""Single values as JSON has them: read exactly, or refused by the name of their field."""

from __future__ import annotations

import difflib
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from fedgen.policy.calendar import microseconds_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Row = Mapping[str, Any]

_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)")
MAX_TEXT: Final = 256


class Unreadable(ValueError):
    """A value that cannot be understood; the text names the field, never the value."""


def instant(row: Row, key: str, default: int | None = None) -> int:
    """Return an RFC 3339 instant with an offset as microseconds (S3)."""
    value = row.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or _INSTANT.fullmatch(value) is None:
        raise Unreadable(key)
    try:
        return microseconds_of(datetime.fromisoformat(value.upper()))
    except (ValueError, OverflowError):
        raise Unreadable(key) from None


def text(row: Row, key: str) -> str:
    """Return a text that must be there."""
    value = row.get(key)
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT or "\0" in value:
        raise Unreadable(key)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unreadable(key) from None
    return value


def text_or_none(row: Row, key: str) -> str | None:
    """Return a text, or None for a null."""
    return None if row.get(key) is None else text(row, key)


def flag(row: Row, key: str, *, default: bool | None = False) -> bool | None:
    """Return a boolean; None for a null; ``default`` if the key is not there."""
    if key not in row:
        return default
    value = row[key]
    if value is not None and not isinstance(value, bool):
        raise Unreadable(key)
    return value


def words(row: Row, key: str) -> frozenset[str] | None:
    """Return a list of texts as a set; None for a null."""
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise Unreadable(key)
    return frozenset(value)


def identifiers(row: Row, key: str) -> frozenset[str]:
    """Return a list of identifiers as a set, each a text as :func:`text` has it; empty for a null."""
    return frozenset(text({key: each}, key) for each in words(row, key) or ())


def mapping(row: Row, key: str) -> Row | None:
    """Return an object; None for a null."""
    value = row.get(key)
    if value is not None and not isinstance(value, dict):
        raise Unreadable(key)
    return value


def check_keys(row: Row, known: Iterable[str]) -> None:
    """Refuse a key that is nearly one of ours: misspelt, ``valid_until`` would never end a consent."""
    names = tuple(known)
    for key in row:
        if key not in names and difflib.get_close_matches(str(key), names, n=1, cutoff=0.85):
            raise Unreadable(str(key)[:64])
