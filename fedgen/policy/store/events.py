"""What somebody said, as the caller of the store says it; not when it was learned, since the store sets that."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fedgen.errors import DataError
from fedgen.policy.columns import EVERY_PURPOSE, Action, GivenBy, Right
from fedgen.policy.subjects import MAX_SUBJECT_BYTES

ACTIONS: Final = {action.name.lower(): action for action in Action}
RIGHTS: Final = {right.name.lower(): right for right in Right}
GIVERS: Final = {giver.name.lower(): giver for giver in GivenBy if giver is not GivenBy.NOBODY}
GRANTS: Final = frozenset({"given", "renewed"})
MAX_TEXT: Final = 256
FUTURE_US: Final = 5 * 60 * 1_000_000  # POLICY S3
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TEXT: Final = re.compile("[\0\ud800-\udfff]")  # a lone surrogate has no bytes
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def _event_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentSaid:
    """One consent event.

    Attributes:
        subject_id: The person, as in the tables.
        purpose: Compared exactly; ``"*"`` is every purpose, on restrictions only.
        action: ``given``, ``renewed``, ``refused``, ``withdrawn``, ``invalidated`` or ``expired``.
        effective_at: From when it holds by its own account; with a time zone.
        event_id: What makes it one event however often it is sent; made up if left out.
        explicit: Whether it was explicit consent (Art. 9(2)(a)).
        given_by: ``subject``, ``parent``, ``agent`` or ``controller``.
        notice_id: The notice that was shown.
        notice_version: Its version.
        method: How it was said.
        valid_until: First instant at which a grant is over; None does not end.
        evidence_sha256: Digest of the evidence, 64 hex digits.
    """

    subject_id: str
    purpose: str
    action: str
    effective_at: datetime
    event_id: str = field(default_factory=_event_id)
    explicit: bool = False
    given_by: str = "subject"
    notice_id: str | None = None
    notice_version: int | None = None
    method: str | None = None
    valid_until: datetime | None = None
    evidence_sha256: str | None = None

    def said(self, now: int) -> tuple[Any, ...]:
        """Return the row in the order of ``CONSENT_SAID``, the person by name.

        Raises:
            DataError: A field is missing, unknown or too far in the future.
        """
        _common(self, now)
        _one_of(self.action, ACTIONS, "action")
        _one_of(self.given_by, GIVERS, "given_by")
        _texts(self, "purpose", "notice_id", "method")
        if self.purpose == EVERY_PURPOSE and self.action in GRANTS:
            raise DataError("a grant for every purpose", key="purpose", hint="name the purpose granted")
        if self.notice_version is not None and not 0 <= self.notice_version < 2**31:
            raise DataError("not a version", key="notice_version", hint="a whole number from 0")
        return (
            self.event_id,
            self.subject_id,
            self.purpose,
            self.action,
            int(self.explicit),
            self.given_by,
            self.notice_id,
            self.notice_version,
            self.method,
            _instant(self.valid_until, "valid_until"),
            microseconds_of(self.effective_at, "effective_at"),
            _digest(self.evidence_sha256),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RightSaid:
    """One rights event.

    Attributes:
        subject_id: The person, as in the tables.
        kind: Such as ``erasure_request``, ``objection`` or ``gpc``; the list is POLICY's.
        effective_at: From when it holds by its own account; with a time zone.
        event_id: What makes it one event however often it is sent; made up if left out.
        scope: The matter of a hold, the purpose of an objection; None is all of them.
        exception: Why an erasure is not carried out, such as ``17(3)(b)``.
        given_by: ``subject``, ``parent``, ``agent``, ``controller`` or None.
        after_conflict_notice: Whether an opt-in followed a notice of the conflict with a signal.
        method: How it was said.
        verified_at: When the person's identity was verified.
        evidence_sha256: Digest of the evidence, 64 hex digits.
    """

    subject_id: str
    kind: str
    effective_at: datetime
    event_id: str = field(default_factory=_event_id)
    scope: str | None = None
    exception: str | None = None
    given_by: str | None = "subject"
    after_conflict_notice: bool = False
    method: str | None = None
    verified_at: datetime | None = None
    evidence_sha256: str | None = None

    def said(self, now: int) -> tuple[Any, ...]:
        """Return the row in the order of ``RIGHTS_SAID``, the person by name.

        Raises:
            DataError: A field is missing, unknown or too far in the future.
        """
        _common(self, now)
        _one_of(self.kind, RIGHTS, "kind")
        if self.given_by is not None:
            _one_of(self.given_by, GIVERS, "given_by")
        _texts(self, "scope", "exception", "method")
        return (
            self.event_id,
            self.subject_id,
            self.kind,
            self.scope,
            self.exception,
            self.given_by,
            int(self.after_conflict_notice),
            self.method,
            _instant(self.verified_at, "verified_at"),
            microseconds_of(self.effective_at, "effective_at"),
            _digest(self.evidence_sha256),
        )


def microseconds_of(at: datetime, key: str) -> int:
    """Return microseconds since 1970 in UTC.

    Raises:
        DataError: ``at`` has no time zone.
    """
    if at.tzinfo is None or at.utcoffset() is None:
        raise DataError("a time without an offset", key=key, hint="write 2026-05-04T11:00:00+02:00")
    return (at - _EPOCH) // timedelta(microseconds=1)


def moment(instant: int | None) -> datetime | None:
    """Return the inverse of :func:`microseconds_of`."""
    return None if instant is None else _EPOCH + timedelta(microseconds=instant)


def rfc3339(instant: int | None) -> str | None:
    """Return an instant as text in UTC, or None."""
    at = moment(instant)
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def good_subject(text: str) -> bool:
    """Return whether ``text`` names a person as :mod:`fedgen.policy.subjects` has it."""
    return good_text(text) and len(text.encode()) <= MAX_SUBJECT_BYTES


def good_text(text: str) -> bool:
    """Return whether ``text`` is a bare, bounded word."""
    return bool(text) and text == text.strip() and len(text) <= MAX_TEXT and not _NO_TEXT.search(text)


def _common(event: ConsentSaid | RightSaid, now: int) -> None:
    """Check what both kinds have."""
    if not good_subject(event.subject_id):
        raise DataError("names no person", key="subject_id", hint="1 to 128 bytes, no space around it")
    if not good_text(event.event_id):
        raise DataError("not an event's identifier", key="event_id", hint="1 to 256 characters")
    if microseconds_of(event.effective_at, "effective_at") > now + FUTURE_US:
        hint = "check the sender's clock"
        raise DataError("more than five minutes in the future", key="effective_at", hint=hint)


def _one_of(value: str, known: dict[str, Any], key: str) -> None:
    if value not in known:
        raise DataError("not a known word", key=key, hint=f"one of {', '.join(known)}")


def _texts(event: ConsentSaid | RightSaid, *names: str) -> None:
    """Check texts that may be None, except a purpose, which is never None."""
    for name in names:
        value = getattr(event, name)
        if value is not None and not good_text(value):
            raise DataError("empty, padded or too long", key=name, hint=f"1 to {MAX_TEXT} characters")


def _instant(at: datetime | None, key: str) -> int | None:
    return None if at is None else microseconds_of(at, key)


def _digest(text: str | None) -> bytes | None:
    """Return a digest's bytes.

    Raises:
        DataError: It is not 64 lower-case hex digits.
    """
    if text is None:
        return None
    if not _SHA256.fullmatch(text):
        raise DataError("not a SHA-256", key="evidence_sha256", hint="64 lower-case hex digits")
    return bytes.fromhex(text)
