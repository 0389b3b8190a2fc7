"""What a ledger can say, and the bytes it says it in (docs/spec/ledger.md).

The set of entries is closed: none is ever removed, no field changes its meaning, and a new field must be optional
with the old meaning as its default. ``from_body(to_body(entry, time)) == (entry, time)`` for every entry.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, ClassVar, Final, TypeAlias

from fedgen.errors import Code, IntegrityError
from fedgen.messages import canonical
from fedgen.privacy.events import MAX_COUNT, Event, from_json, to_json
from fedgen.privacy.units import Unit

FORMAT: Final = 1
GENESIS: Final = bytes(32)  # what the first entry follows
MAX_BODY: Final = 2**20
_HEX32: Final = re.compile(r"[0-9a-f]{64}")
_TEXT_MAX: Final = 256
OUTCOMES: Final = frozenset({"completed", "budget", "quorum", "interrupted"})


def _hex(**values: object) -> None:
    """Raise unless every value is 64 lower-case hex digits."""
    for name, value in values.items():
        if not isinstance(value, str) or not _HEX32.fullmatch(value):
            raise ValueError(f"{name} must be 64 lower-case hex digits")


def _text(**values: object) -> None:
    """Raise unless every value is short printable text."""
    for name, value in values.items():
        if not isinstance(value, str) or not 0 < len(value) <= _TEXT_MAX or not value.isprintable():
            raise ValueError(f"{name} must be 1 to {_TEXT_MAX} printable characters")


def _whole(least: int, **values: object) -> None:
    """Raise unless every value is a whole number of at least ``least``."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_COUNT:
            raise ValueError(f"{name} must be a whole number of at least {least}")


@dataclass(frozen=True, slots=True)
class Opened:
    """The first entry: whose ledger this is.

    Attributes:
        origin: Name of the ledger, such as ``hospital-3/claims``.
        public_key: Ed25519 key that signs every entry, hex.
        durable: Every entry was on the disk before it was acknowledged; False only in a simulation.
        format: Version of the byte format.
    """

    kind: ClassVar[str] = "opened"
    origin: str
    public_key: str
    durable: bool
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Check the fields."""
        _text(origin=self.origin)
        _hex(public_key=self.public_key)
        _whole(1, format=self.format)
        if not isinstance(self.durable, bool):
            raise ValueError("durable must be true or false")  # noqa: TRY004 -- one error for whatever is malformed


@dataclass(frozen=True, slots=True)
class Admitted:
    """A study was admitted to a data set for a run."""

    kind: ClassVar[str] = "admitted"
    study_hash: str
    run: str
    dataset: str

    def __post_init__(self) -> None:
        """Check the fields."""
        _hex(study_hash=self.study_hash, run=self.run)
        _text(dataset=self.dataset)


@dataclass(frozen=True, slots=True)
class Refused:
    """A study or a round was refused; round and attempt are 0 for a whole study."""

    kind: ClassVar[str] = "refused"
    study_hash: str
    run: str
    round: int
    attempt: int
    code: str

    def __post_init__(self) -> None:
        """Check the fields."""
        _hex(study_hash=self.study_hash, run=self.run)
        _whole(0, round=self.round, attempt=self.attempt)
        Code(self.code)


@dataclass(frozen=True, slots=True)
class Reserved:
    """Privacy was spent: ``count`` times ``event`` on ``dataset``, whether or not the round ever finished.

    Attributes:
        dataset: Identity of the data set, for its whole life.
        study_hash: Hash of the resolved study, hex.
        run: Identity of the run, hex.
        round: One-based.
        attempt: One-based.
        event: What one step did.
        count: How many steps.
        unit: What the event protects as a whole: ``record``, ``person`` or ``site``. Events of different units do not
            compose. ``record`` is left out of the bytes, so that entries of before there was a choice read the same.
    """

    kind: ClassVar[str] = "reserved"
    dataset: str
    study_hash: str
    run: str
    round: int
    attempt: int
    event: Event
    count: int
    unit: str = Unit.RECORD.value

    def __post_init__(self) -> None:
        """Check the fields."""
        _text(dataset=self.dataset)
        _hex(study_hash=self.study_hash, run=self.run)
        _whole(1, round=self.round, attempt=self.attempt, count=self.count)
        Unit(self.unit)


@dataclass(frozen=True, slots=True)
class Settled:
    """A reserved round left the site.

    Attributes:
        reservation: Index of the :class:`Reserved` entry.
        round: Its round.
        attempt: Its attempt.
        digest: SHA-256 of what left, hex.
    """

    kind: ClassVar[str] = "settled"
    reservation: int
    round: int
    attempt: int
    digest: str

    def __post_init__(self) -> None:
        """Check the fields."""
        _whole(1, reservation=self.reservation, round=self.round, attempt=self.attempt)
        _hex(digest=self.digest)


@dataclass(frozen=True, slots=True)
class Closed:
    """A run of a study is over at this site."""

    kind: ClassVar[str] = "closed"
    study_hash: str
    run: str
    outcome: str
    rounds: int

    def __post_init__(self) -> None:
        """Check the fields."""
        _hex(study_hash=self.study_hash, run=self.run)
        _whole(0, rounds=self.rounds)
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome must be one of {', '.join(sorted(OUTCOMES))}")


@dataclass(frozen=True, slots=True)
class Decided:
    """Which of a site's rows might be used in a round, and on what that rests; it names nobody.

    Written before the round is reserved, and again when a later check of the same attempt takes a row back: then the
    update is discarded, or is not summed. The ledger stays at the site, so counts are exact.

    Attributes:
        study_hash: Hash of the resolved study, hex.
        run: Identity of the run, hex.
        round: One-based.
        attempt: One-based.
        check: ``load``, ``commit`` or ``sum``: before rows are read, before the update leaves, before it is summed.
        revoked: Rows that were used and are no longer permitted; 0 for ``load``.
        asked_at: T, microseconds since 1970 in UTC.
        known_at: K, likewise.
        store_batches: Where the consent store stood: its batches,
        store_digest: the digest of the last one, hex,
        store_consent: the number of its last consent event,
        store_rights: and of its last rights event.
        purpose: What was asked.
        operation: For what.
        destination: Country the update goes to; empty if nobody said.
        packs: ``(law, id, version, sha256)`` of each pack.
        engine: Version of the engine.
        considered: Rows asked about.
        allowed: Rows that might be used.
        reasons: Reason code and rows, in order of code; they sum to ``considered``.
        mask: Digest of which rows might be used, hex (docs/spec/ledger.md).
    """

    kind: ClassVar[str] = "decided"
    study_hash: str
    run: str
    round: int
    attempt: int
    check: str
    revoked: int
    asked_at: int
    known_at: int
    store_batches: int
    store_digest: str
    store_consent: int
    store_rights: int
    purpose: str
    operation: str
    destination: str
    packs: tuple[tuple[str, str, str, str], ...]
    engine: str
    considered: int
    allowed: int
    reasons: tuple[tuple[str, int], ...]
    mask: str

    def __post_init__(self) -> None:
        """Check the fields."""
        _hex(study_hash=self.study_hash, run=self.run, mask=self.mask, store_digest=self.store_digest)
        _whole(1, round=self.round, attempt=self.attempt)
        _whole(0, revoked=self.revoked, considered=self.considered, allowed=self.allowed)
        _whole(0, batches=self.store_batches, consent=self.store_consent, rights=self.store_rights)
        _text(purpose=self.purpose, operation=self.operation, engine=self.engine)
        if self.destination:
            _text(destination=self.destination)
        if self.check not in CHECKS:
            raise ValueError(f"check must be one of {', '.join(CHECKS)}")
        for moment in (self.asked_at, self.known_at):
            if isinstance(moment, bool) or not isinstance(moment, int):
                raise ValueError("instants are whole microseconds")  # noqa: TRY004 -- one error for whatever is malformed
        for law, name, version, digest in self.packs:
            _text(law=law, id=name, version=version)
            _hex(sha256=digest)
        for code, rows in self.reasons:
            _text(code=code)
            _whole(0, rows=rows)
        if sum(rows for _, rows in self.reasons) != self.considered or self.allowed > self.considered:
            raise ValueError("reasons must sum to the rows considered")


CHECKS: Final = ("load", "commit", "sum")
Entry: TypeAlias = Opened | Admitted | Refused | Reserved | Settled | Closed | Decided

_KINDS: Final[dict[str, type[Any]]] = {
    entry.kind: entry for entry in (Opened, Admitted, Refused, Reserved, Settled, Closed, Decided)
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry as it stands in a ledger."""

    index: int
    time: datetime
    hash: bytes
    entry: Entry


def to_body(entry: Entry, time: datetime) -> bytes:
    """Return the canonical bytes of ``entry``; inverse of :func:`from_body`.

    Args:
        entry: What to say.
        time: When, timezone-aware; kept to the microsecond in UTC.
    """
    values: dict[str, Any] = {name: getattr(entry, name) for name in entry.__slots__}
    if isinstance(entry, Reserved):
        values["event"] = to_json(entry.event)
        if entry.unit == Unit.RECORD.value:
            del values["unit"]
    moment = time.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    return canonical({**values, "entry": entry.kind, "time": f"{moment}Z"})


def from_body(body: bytes) -> tuple[Entry, datetime]:
    """Return the entry in ``body`` and its time; inverse of :func:`to_body`.

    Guarantees:
        - Accepts exactly the canonical bytes of an entry of the closed set, nothing that merely means the same.

    Raises:
        IntegrityError: It is anything else (code ``ledger``).
    """
    try:
        return _parse(body)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise IntegrityError("an entry this version cannot read", code=Code.LEDGER) from error


def _parse(body: bytes) -> tuple[Entry, datetime]:
    """Return the entry in ``body``, or raise what the parts raise."""
    if len(body) > MAX_BODY:
        raise ValueError("an entry over the size limit")
    values = json.loads(body)
    if not isinstance(values, dict):
        raise ValueError("an entry is a JSON object")  # noqa: TRY004 -- one error for whatever is malformed
    make = _KINDS[values.pop("entry")]
    time = datetime.fromisoformat(values.pop("time"))
    if make is Reserved:
        values["event"] = from_json(values["event"])
    if make is Decided:
        values["packs"] = tuple(tuple(pack) for pack in values["packs"])
        values["reasons"] = tuple((code, rows) for code, rows in values["reasons"])
    entry: Entry = make(**values)
    if to_body(entry, time) != body:
        raise ValueError("an entry that is not in canonical form")
    return entry, time


def entry_digest(prev: bytes, index: int, body: bytes) -> bytes:
    """Return what is signed of an entry: SHA-256 of the hash before it, its index (8 bytes, big-endian) and its body.

    Args:
        prev: Hash of the entry before, 32 bytes; :data:`GENESIS` for the first.
        index: Zero-based position.
        body: Canonical bytes of the entry.
    """
    return sha256(b"".join((prev, index.to_bytes(8, "big"), body))).digest()


def entry_hash(digest: bytes, signature: bytes) -> bytes:
    """Return the hash of an entry, which the next one follows: SHA-256 of its digest and its signature.

    It covers the signature too, so that one valid signature at the end vouches for every byte before it.

    Args:
        digest: From :func:`entry_digest`.
        signature: Ed25519 over it.
    """
    return sha256(digest + signature).digest()
