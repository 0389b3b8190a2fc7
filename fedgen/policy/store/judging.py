"""Which rows of a block are events: column by column, with a reason for each that is not, and never a value."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from fedgen.errors import DataError
from fedgen.policy.columns import EVERY_PURPOSE
from fedgen.policy.store.events import (
    ACTIONS,
    FUTURE_US,
    GIVERS,
    GRANTS,
    RIGHTS,
    good_subject,
    good_text,
    microseconds_of,
)
from fedgen.policy.store.files import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fedgen.policy.store.files import Part

_LOCAL: Final = r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?"
_ZONED: Final = rf"^{_LOCAL}([Zz]|[+-]\d{{2}}:\d{{2}})$"
_NAIVE: Final = re.compile(_LOCAL)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_FLAGS: Final = {None: 0, False: 0, True: 1, "false": 0, "true": 1, "0": 0, "1": 1}
_UNSAID: Final = np.iinfo(np.int64).min


class Fault(NamedTuple):
    """Why a row is kept out: its number in the file, the column, and a word from a closed list."""

    row: int
    column: str
    reason: str


class Judged(NamedTuple):
    """Rows in the order of the store, each one's number in the file, and what was wrong with the others."""

    said: list[tuple[Any, ...]]
    rows: list[int]
    faults: list[Fault]


def judge(part: Part, now: int) -> Judged:
    """Return the events of a part and the faults of its other rows.

    Reasons: ``missing``, ``not-text``, ``not-a-person``, ``unknown-word``, ``not-a-time``, ``naive-time``,
    ``in-the-future``, ``not-a-number``, ``not-a-flag``, ``not-a-digest``, ``grants-every-purpose``.
    """
    judge_ = _Judge(part)
    consent = part.table == "consent_event"
    word = "action" if consent else "kind"
    columns: dict[str, list[Any]] = {
        "event_id": judge_.text("event_id", needed=True),
        "subject_id": judge_.checked("subject_id", _is(good_subject), "not-a-person", needed=True),
        word: judge_.checked(
            word, (ACTIONS if consent else RIGHTS).__contains__, "unknown-word", needed=True
        ),
        "effective_at": judge_.instants("effective_at", needed=True, latest=now + FUTURE_US),
        "given_by": judge_.checked("given_by", GIVERS.__contains__, "unknown-word"),
        "method": judge_.text("method"),
        "evidence_sha256": judge_.digests("evidence_sha256"),
    }
    if consent:
        columns["given_by"] = [giver or "subject" for giver in columns["given_by"]]
        columns |= {
            "purpose": judge_.text("purpose", needed=True),
            "explicit": judge_.flags("explicit"),
            "notice_id": judge_.text("notice_id"),
            "notice_version": judge_.numbers("notice_version"),
            "valid_until": judge_.instants("valid_until"),
        }
        if EVERY_PURPOSE in columns["purpose"]:
            for place, (purpose, action) in enumerate(
                zip(columns["purpose"], columns["action"], strict=True)
            ):
                if purpose == EVERY_PURPOSE and action in GRANTS:
                    judge_.fault(place, "purpose", "grants-every-purpose")
    else:
        columns |= {
            "scope": judge_.text("scope"),
            "exception": judge_.text("exception"),
            "after_conflict_notice": judge_.flags("after_conflict_notice"),
            "verified_at": judge_.instants("verified_at"),
        }
    said = list(zip(*(columns[name] for name in COLUMNS[part.table]), strict=True))
    if not judge_.faults:
        return Judged(said, part.rows, [])
    good = [place for place in range(len(said)) if place not in judge_.faults]
    return Judged([said[i] for i in good], [part.rows[i] for i in good], list(judge_.faults.values()))


def _is(check: Callable[[str], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and check(value)


class _Judge:
    """Reads the columns of one part; the first fault of a row is the one that is told."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self.faults: dict[int, Fault] = {}

    def fault(self, place: int, column: str, reason: str) -> None:
        """Keep a row out."""
        self.faults.setdefault(place, Fault(self._part.rows[place], column, reason))

    def _column(self, name: str) -> Any:
        return self._part.columns.get(name) or [None] * len(self._part.rows)

    def checked(
        self, name: str, good: Callable[[Any], bool], reason: str, *, needed: bool = False
    ) -> list[Any]:
        """Return a column each of whose distinct values was asked about once."""
        values = _plain(self._column(name))
        if name == "subject_id":  # a whole number and its text are one person
            values = [str(v) if type(v) is int else v for v in values]
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

    def text(self, name: str, *, needed: bool = False) -> list[Any]:
        """Return a column of bare words."""
        return self.checked(name, _is(good_text), "not-text", needed=needed)

    def flags(self, name: str) -> list[Any]:
        """Return zeros and ones; a null is no."""
        values = [v.lower() if isinstance(v, str) else v for v in _plain(self._column(name))]
        for place, value in enumerate(values):
            if not isinstance(value, str | bool | int | None) or value not in _FLAGS:
                self.fault(place, name, "not-a-flag")
                values[place] = None
        return [_FLAGS[value] for value in values]

    def numbers(self, name: str) -> list[Any]:
        """Return whole numbers from 0 that fit 31 bits, or None."""
        values = _plain(self._column(name))
        for place, value in enumerate(values):
            if value is None or (type(value) is int and 0 <= value < 2**31):
                continue
            if isinstance(value, str) and value.isdecimal() and value.isascii() and int(value) < 2**31:
                values[place] = int(value)
            else:
                self.fault(place, name, "not-a-number")
                values[place] = None
        return values

    def digests(self, name: str) -> list[Any]:
        """Return digests as bytes."""
        values = self.checked(name, _is(lambda text: bool(_SHA256.fullmatch(text))), "not-a-digest")
        return [bytes.fromhex(v) if isinstance(v, str) and _SHA256.fullmatch(v) else None for v in values]

    def instants(self, name: str, *, needed: bool = False, latest: int | None = None) -> list[Any]:
        """Return microseconds since 1970, or None; nothing naive, nothing after ``latest``."""
        column = self._column(name)
        instants, odd = _instants(column)
        for place, reason in odd.items():
            self.fault(place, name, reason)
        unsaid = instants == _UNSAID
        if needed:
            for place in np.flatnonzero(unsaid).tolist():
                self.fault(place, name, "missing")
        if latest is not None:
            for place in np.flatnonzero(instants > latest).tolist():
                self.fault(place, name, "in-the-future")
        values: list[Any] = instants.tolist()
        for place in np.flatnonzero(unsaid).tolist():
            values[place] = None
        return values


def _plain(column: Any) -> list[Any]:
    """Return a list that may be changed."""
    return list(column) if isinstance(column, list) else [str(value) for value in column.to_pylist()]


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
