"""Checks of whole columns of a file: what is wrong with which row, in a word from a closed list, and never a value."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from fedgen.errors import DataError
from fedgen.policy.store.events import MAX_TEXT, microseconds_of
from fedgen.policy.subjects import MAX_SUBJECT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fedgen.policy.store.layout import Part

_LOCAL: Final = r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?"
_ZONED: Final = rf"^{_LOCAL}([Zz]|[+-]\d{{2}}:\d{{2}})$"
_NAIVE: Final = re.compile(_LOCAL)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_FLAGS: Final = {None: 0, False: 0, True: 1, "false": 0, "true": 1, "0": 0, "1": 1}
_UNSAID: Final = np.iinfo(np.int64).min
_PLAIN_MOST: Final = min(MAX_TEXT, MAX_SUBJECT_BYTES)


class Fault(NamedTuple):
    """Why a row is kept out: its number in the file, the column, and a word from a closed list."""

    row: int
    column: str
    reason: str


class Checks:
    """Reads the columns of one part; the first fault of a row is the one that is told."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self.size = len(part.rows)
        self.faults: dict[int, Fault] = {}

    def fault(self, place: int, column: str, reason: str) -> None:
        """Keep a row out."""
        self.faults.setdefault(place, Fault(self._part.rows[place], column, reason))

    def has(self, name: str) -> bool:
        """Return whether the file has a column of this name."""
        return name in self._part.columns

    def column(self, name: str) -> Any:
        """Return a column as it was read, nulls if the file has none of this name."""
        return self._part.columns.get(name) or [None] * self.size

    def plain(self, name: str) -> list[Any]:
        """Return a column as a list that may be changed."""
        column = self.column(name)
        if isinstance(column, list):
            return list(column)
        return [None if value is None else str(value) for value in column.to_pylist()]

    def good(self) -> list[int]:
        """Return the places of rows without a fault."""
        return [place for place in range(self.size) if place not in self.faults]

    def checked(
        self, name: str, good: Callable[[Any], bool], reason: str, *, needed: bool = False
    ) -> list[Any]:
        """Return a column each of whose distinct values was asked about once."""
        values = self.plain(name)
        try:
            distinct = set(values)
        except TypeError:  # a list or an object where a word belongs
            values = [v if v is None or isinstance(v, str) else 0 for v in values]
            distinct = set(values)
        bad = {value for value in distinct if value is not None and not good(value)}
        if bad or (needed and None in distinct):
            for place, value in enumerate(values):
                if value is None and needed:
                    self.fault(place, name, "missing")
                elif value in bad:
                    self.fault(place, name, reason)
        return values

    def text(
        self, name: str, good: Callable[[str], bool], reason: str = "not-text", *, needed: bool = False
    ) -> list[Any]:
        """Return a column of bare words; whole columns of plain ones are told at once, which is most of them."""
        values = self.plain(name)
        if all_plain(values):
            return values
        if reason == "not-a-person":  # a whole number and its text are one person
            values = [str(v) if type(v) is int else v for v in values]
            self._part.columns[name] = values
        return self.checked(name, is_text(good), reason, needed=needed)

    def flags(self, name: str) -> list[int]:
        """Return zeros and ones; a null is no."""
        if not self.has(name):
            return [0] * self.size
        values = [v.lower() if isinstance(v, str) else v for v in self.plain(name)]
        for place, value in enumerate(values):
            if not isinstance(value, str | bool | int | None) or value not in _FLAGS:
                self.fault(place, name, "not-a-flag")
                values[place] = None
        return [_FLAGS[value] for value in values]

    def numbers(self, name: str) -> list[int | None]:
        """Return whole numbers from 0 that fit 31 bits, or None."""
        values = self.plain(name)
        known = {v: int(v) for v in {v for v in values if type(v) is str} if _is_number(v)}
        for place, value in enumerate(values):
            if value is None or (type(value) is int and 0 <= value < 2**31):
                continue
            if type(value) is str and value in known:
                values[place] = known[value]
            else:
                self.fault(place, name, "not-a-number")
                values[place] = None
        return values

    def digests(self, name: str) -> list[bytes | None]:
        """Return digests as bytes."""
        values = self.checked(name, is_text(lambda text: bool(_SHA256.fullmatch(text))), "not-a-digest")
        return [bytes.fromhex(v) if isinstance(v, str) and _SHA256.fullmatch(v) else None for v in values]

    def instants(self, name: str, *, needed: bool = False, latest: int | None = None) -> list[Any]:
        """Return microseconds since 1970, or None; nothing naive, nothing after ``latest``."""
        if not needed and not self.has(name):
            return [None] * self.size
        instants, odd = _instants(self.column(name))
        for place, reason in odd.items():
            self.fault(place, name, reason)
        unsaid = np.flatnonzero(instants == _UNSAID).tolist()
        if needed:
            for place in unsaid:
                self.fault(place, name, "missing")
        if latest is not None:
            for place in np.flatnonzero(instants > latest).tolist():
                self.fault(place, name, "in-the-future")
        values: list[Any] = instants.tolist()
        for place in unsaid:
            values[place] = None
        return values


def is_text(check: Callable[[str], bool]) -> Callable[[Any], bool]:
    """Return the check for values of any type."""
    return lambda value: isinstance(value, str) and check(value)


def all_plain(values: list[Any]) -> bool:
    """Return whether all are short, printable ASCII without any space: bare words and identifiers, none missing.

    Edge cases:
        - False says nothing of any one value.
    """
    try:
        joined = "".join(values)
    except TypeError:  # a null, or no text
        return False
    plain = joined.isascii() and joined.isprintable() and " " not in joined
    return plain and all(values) and max(map(len, values), default=0) <= _PLAIN_MOST


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) <= MAX_TEXT and int(text) < 2**31


def _instants(column: Any) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Return instants, with the least number for a null, and what is wrong by place."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(column, list):
        if column.type.tz is None:
            return np.full(len(column), _UNSAID), dict.fromkeys(range(len(column)), "naive-time")
        try:
            whole = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        except pa.ArrowInvalid:  # nanoseconds
            return np.full(len(column), _UNSAID), dict.fromkeys(range(len(column)), "not-a-time")
        return np.asarray(whole.fill_null(_UNSAID).to_numpy(zero_copy_only=False)), {}
    odd = {i: "not-a-time" for i, v in enumerate(column) if v is not None and not isinstance(v, str)}
    texts = [None if i in odd else v for i, v in enumerate(column)] if odd else column
    try:
        array = pa.array(texts, pa.string())
    except (UnicodeEncodeError, pa.ArrowInvalid):
        texts = [t if t is None or t.isascii() else "?" for t in texts]
        array = pa.array(texts, pa.string())
    shaped = pc.match_substring_regex(array, _ZONED)
    for place in np.flatnonzero(~shaped.fill_null(True).to_numpy(zero_copy_only=False)).tolist():
        odd.setdefault(place, "naive-time" if _NAIVE.fullmatch(texts[place] or "") else "not-a-time")
    clean = pc.if_else(shaped.fill_null(False), array, None)
    try:
        whole = clean.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    except pa.ArrowInvalid:  # a 31 February; find whose
        whole = pa.array([_one(text, place, odd) for place, text in enumerate(clean.to_pylist())], pa.int64())
    return np.asarray(whole.fill_null(_UNSAID).to_numpy(zero_copy_only=False)), odd


def _one(text: str | None, place: int, odd: dict[int, str]) -> int | None:
    """Return one instant, or None and why."""
    if text is None:
        return None
    try:
        return microseconds_of(datetime.fromisoformat(text.upper()), "time")
    except (ValueError, OverflowError, DataError):
        odd[place] = "not-a-time"
        return None
