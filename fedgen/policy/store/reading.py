"""Events as columns, kept in memory: a later call reads only what was written since.

A person is a place in order of arrival here; sorted identifiers, which the engine wants, are worked out once per change
of people. Events of people who were erased belong to nobody and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen.policy.columns import NEVER, NULL, UNKNOWN
from fedgen.policy.store.database import driver_rows
from fedgen.policy.store.events import ACTIONS, GIVERS, RIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import sqlalchemy as sa
    from numpy.typing import NDArray

_WINDOW: Final = 100_000  # rows in memory as Python objects at one time
_WORD: Final = 8
_FEW_WORDS: Final = 4  # identifiers of up to 32 bytes; of longer ones the text itself is compared
_FEW: Final = 16  # words that the database turns into numbers
_HALVES: Final = np.dtype([("high", ">u8"), ("low", ">u8")])


def _codes(column: str, words: dict[str, Any]) -> str:
    """Return SQL that turns words into codes: cheaper in the database than in Python."""
    cases = " ".join(f"WHEN '{word}' THEN {int(code)}" for word, code in words.items())
    return f"CASE {column} {cases} ELSE {UNKNOWN} END"


_CONSENT: Final = (
    "SELECT seq, subject_ref, recorded_at, effective_at, {words}, "  # noqa: S608 -- constants
    f"{_codes('action', ACTIONS)} + 256 * {_codes('given_by', GIVERS)} + 65536 * explicit, "  # one object, not three
    f"COALESCE(notice_version, {NULL}), "
    f"COALESCE(valid_until, {NEVER}) FROM consent_event WHERE seq > ? AND seq <= ? ORDER BY seq"
)
_RIGHTS: Final = (
    f"SELECT seq, subject_ref, recorded_at, effective_at, scope, {_codes('kind', RIGHTS)}, after_conflict_notice, "  # noqa: S608 -- constants
    f"CASE WHEN given_by IS NULL THEN 0 ELSE {_codes('given_by', GIVERS)} END, exception "
    "FROM rights_event WHERE seq > ? AND seq <= ? ORDER BY seq"
)


class Growing:
    """A column that grows at its end; its array is shared until it must move."""

    __slots__ = ("_room", "size")

    def __init__(self, kind: Any) -> None:
        self._room: NDArray[Any] = np.empty(1024, dtype=kind)
        self.size = 0

    def extend(self, values: NDArray[Any]) -> None:
        """Append ``values``."""
        after = self.size + len(values)
        if after > len(self._room):
            room = np.empty(max(after, len(self._room) * 3 // 2), dtype=self._room.dtype)
            room[: self.size] = self._room[: self.size]
            self._room = room
        self._room[self.size : after] = values
        self.size = after

    def array(self) -> NDArray[Any]:
        """Return the column; what is appended later never shows in it."""
        view = self._room[: self.size]
        view.setflags(write=False)
        return view


@dataclass(slots=True)
class Words:
    """Distinct words in order of arrival."""

    places: dict[str | None, int] = field(default_factory=dict)

    def code(self, words: Iterable[str | None]) -> NDArray[np.int32]:
        """Return each word's place; None is NULL."""
        places = self.places
        words = list(words)
        for word in set(words) - places.keys() - {None}:
            places[word] = len(places)
        return np.array([NULL if w is None else places[w] for w in words], dtype=np.int32)

    def query(self, connection: sa.Connection, column: str) -> tuple[str, tuple[Any, ...]]:
        """Return SQL for the column, and its values: a word that is known comes as its place, another as itself.

        In SQLite a number costs less than a text, there and here; almost every event has one of few purposes.
        """
        known = list(islice(self.places, _FEW))
        if not known or connection.dialect.name == "postgresql":  # where a column has one type
            return column, ()
        whens = " ".join(f"WHEN ? THEN {place}" for place in range(len(known)))
        return f"CASE {column} {whens} ELSE {column} END", tuple(known)

    def places_of(self, column: Sequence[Any]) -> NDArray[np.int32]:
        """Return the places of what :meth:`query` gave."""
        if set(map(type, column)) <= {int}:
            return np.fromiter(column, dtype=np.int32, count=len(column))
        names = list(self.places)
        return self.code(names[word] if type(word) is int else word for word in column)

    def sorted(self) -> tuple[tuple[str, ...], NDArray[np.int32]]:
        """Return the words in order, and the new place of each old one."""
        names = [name for name in self.places if name is not None]
        order = sorted(range(len(names)), key=names.__getitem__)
        place = np.empty(len(names) + 1, dtype=np.int32)
        place[order] = np.arange(len(names), dtype=np.int32)
        place[-1] = NULL  # so that NULL, which is -1, stays NULL
        return tuple(names[i] for i in order), place


class People:
    """Pseudonyms and identifiers, in order of arrival."""

    __slots__ = ("_clash", "_high", "_low", "_order", "names", "refs", "seq")

    def __init__(self) -> None:
        self.refs = Growing(_HALVES)
        self.names: list[str] = []
        self.seq = 0
        self._order: NDArray[np.int64] | None = None
        self._high: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._low: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._clash: dict[bytes, int] | None = None

    def read(self, connection: sa.Connection) -> bool:
        """Read who came since; return whether anybody did."""
        query = "SELECT seq, subject_ref, subject_id FROM subject_salt WHERE seq > ? ORDER BY seq LIMIT ?"
        before = len(self.names)
        while rows := driver_rows(connection, query, (self.seq, _WINDOW)):
            columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True))
            self.refs.extend(halves(columns[1]))
            self.names += columns[2]
            self.seq = rows[-1][0]
        if len(self.names) == before and self._order is not None:
            return False
        refs = self.refs.array()
        high, low = refs["high"].astype(np.uint64), refs["low"].astype(np.uint64)
        self._order = np.lexsort((low, high))
        self._high, self._low = high[self._order], low[self._order]
        # With ten million people two share 64 random bits once in a million stores; then all 128 are compared.
        shared = bool((self._high[1:] == self._high[:-1]).any())
        self._clash = {ref.tobytes(): i for i, ref in enumerate(refs)} if shared else None
        return True

    def places(self, refs: NDArray[Any]) -> NDArray[np.int32]:
        """Return each pseudonym's place, -1 for one whose person is gone."""
        if self._order is None or not len(self._order):
            return np.full(len(refs), -1, dtype=np.int32)
        if self._clash is not None:
            return np.array([self._clash.get(ref.tobytes(), -1) for ref in refs], dtype=np.int32)
        high, low = refs["high"].astype(np.uint64), refs["low"].astype(np.uint64)
        at = np.searchsorted(self._high, high)
        at[at == len(self._high)] = 0
        found = (self._high[at] == high) & (self._low[at] == low)
        return np.where(found, self._order[at], -1).astype(np.int32)


def halves(refs: Iterable[bytes]) -> NDArray[Any]:
    """Return pseudonyms of 16 bytes as pairs of numbers."""
    return np.frombuffer(b"".join(refs), dtype=_HALVES)


class EventCache:
    """The columns of one table of events."""

    __slots__ = ("_query", "columns", "refs", "seq", "subject", "words")

    def __init__(self, query: str, numbers: dict[str, Any], words: tuple[str, ...]) -> None:
        self._query = query
        self.columns = {name: Growing(kind) for name, kind in numbers.items()}
        self.words = {name: Words() for name in words}
        self.refs = Growing(_HALVES)
        self.subject = Growing(np.int32)
        self.seq = 0

    def read(self, connection: sa.Connection, upto: int, people: People) -> None:
        """Read the events after those that are known, up to ``upto``."""
        for first in range(self.seq, upto, _WINDOW):
            query, values = self._asked(connection)
            rows = driver_rows(connection, query, (*values, first, min(first + _WINDOW, upto)))
            if not rows:
                continue
            self._take(list(zip(*rows, strict=True)), people)
        self.seq = max(self.seq, upto)

    def _asked(self, connection: sa.Connection) -> tuple[str, tuple[Any, ...]]:  # noqa: ARG002 -- others ask it
        """Return the query and its first values."""
        return self._query, ()

    def _take(self, fields: list[tuple[Any, ...]], people: People) -> None:
        """Append one window; fields stand in the order of the query."""
        raise NotImplementedError


class ConsentCache(EventCache):
    """Consent events."""

    __slots__ = ()

    def __init__(self) -> None:
        kinds = {
            "seq": np.int64,
            "recorded": np.int64,
            "effective": np.int64,
            "purpose": np.int32,
            "action": np.uint8,
            "explicit": np.bool_,
            "given_by": np.uint8,
            "notice_version": np.int32,
            "valid_until": np.int64,
        }
        super().__init__(_CONSENT, kinds, ("purpose",))

    def _asked(self, connection: sa.Connection) -> tuple[str, tuple[Any, ...]]:
        words, values = self.words["purpose"].query(connection, "purpose")
        return self._query.replace("{words}", words), values

    def _take(self, fields: list[tuple[Any, ...]], people: People) -> None:
        seq, ref, recorded, effective, purpose, packed, notice, valid_until = fields
        refs = halves(ref)
        self.refs.extend(refs)
        self.subject.extend(people.places(refs))
        codes = _whole(packed)
        said = (codes & 255, codes >> 16, codes >> 8 & 255)
        places = self.words["purpose"].places_of(purpose)
        values: tuple[Any, ...] = (seq, recorded, effective, places, *said, notice, valid_until)
        for (_, column), value in zip(self.columns.items(), values, strict=True):
            column.extend(value if isinstance(value, np.ndarray) else _whole(value))


class RightsCache(EventCache):
    """Rights events."""

    __slots__ = ()

    def __init__(self) -> None:
        kinds = {
            "seq": np.int64,
            "recorded": np.int64,
            "effective": np.int64,
            "scope": np.int32,
            "kind": np.uint8,
            "after_conflict_notice": np.bool_,
            "given_by": np.uint8,
            "exception": np.int32,
        }
        super().__init__(_RIGHTS, kinds, ("scope", "exception"))

    def _take(self, fields: list[tuple[Any, ...]], people: People) -> None:
        seq, ref, recorded, effective, scope, kind, notice, given_by, exception = fields
        refs = halves(ref)
        self.refs.extend(refs)
        self.subject.extend(people.places(refs))
        words = self.words
        scopes, exceptions = words["scope"].code(scope), words["exception"].code(exception)
        values: tuple[Any, ...] = (seq, recorded, effective, scopes, kind, notice, given_by, exceptions)
        for (_, column), value in zip(self.columns.items(), values, strict=True):
            column.extend(value if isinstance(value, np.ndarray) else _whole(value))


def _whole(numbers: Sequence[int]) -> NDArray[np.int64]:
    return np.fromiter(numbers, dtype=np.int64, count=len(numbers))


def relabelled(cache: EventCache, people: People) -> None:
    """Ask again whose each event is: somebody was erased, or came."""
    subject = Growing(np.int32)
    subject.extend(people.places(cache.refs.array()))
    cache.subject = subject


def sorted_names(people: People) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """Return identifiers in order, and the new place of each old one."""
    names = np.array([name.encode() for name in people.names], dtype=np.bytes_)
    if not len(names):
        return np.empty(0, dtype="S1"), np.empty(0, dtype=np.int64)
    order = order_of(names)
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    return names[order], place


def order_of(names: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Return the places of ``names`` in ascending order, equal ones as they come.

    Bytes that are padded with zeros are in the order of big-endian numbers, which sort several times faster than text.
    """
    width, words = names.dtype.itemsize, -(-names.dtype.itemsize // _WORD)
    if words > _FEW_WORDS:
        return np.argsort(names, kind="stable")
    padded = np.zeros((len(names), words * _WORD), dtype=np.uint8)
    padded[:, :width] = names.view(np.uint8).reshape(len(names), width)
    keys = padded.view(">u8").astype(np.uint64)
    return np.lexsort(tuple(keys[:, word] for word in reversed(range(words))))
