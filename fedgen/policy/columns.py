"""What the engine reads: events, people, records and the request, as columns of NumPy arrays and plain values.

The store, the sites and the case reader make these; the engine only reads them. Four conventions hold for all:

- An instant is an int64 of microseconds since 1970 in UTC; :data:`NEVER` is "does not end", and a null is told apart by
  a mask or a code, never by an instant.
- A word from a closed list is a uint8 of the enum beside it; :data:`UNKNOWN` is a word that is not on the list, and the
  records it touches are quarantined.
- A word from an open list (a purpose, a country, a matter) is an index into a tuple beside it; :data:`NULL` is none.
- People are sorted, distinct identifiers as bytes, and an index into them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.policy.fold import EVERY_PURPOSE, NEVER

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "EVERY_PURPOSE",
    "LONG_AGO",
    "NEVER",
    "NO_DAY",
    "NULL",
    "UNKNOWN",
    "Action",
    "Assessment",
    "Basis",
    "ConsentEvents",
    "Destination",
    "GivenBy",
    "Records",
    "Request",
    "Right",
    "RightsEvents",
    "Subjects",
    "ThreeWay",
    "Type",
]

LONG_AGO: Final = np.iinfo(np.int64).min
UNKNOWN: Final = 255
NULL: Final = -1
NO_DAY: Final = np.iinfo(np.int32).min


class Action(IntEnum):
    """What a consent event says; of two restrictions at once the greater names the reason."""

    GIVEN = 0
    RENEWED = 1
    EXPIRED = 2
    INVALIDATED = 3
    REFUSED = 4
    WITHDRAWN = 5


class GivenBy(IntEnum):
    """Who spoke; ``NOBODY`` is a null."""

    NOBODY = 0
    SUBJECT = 1
    PARENT = 2
    AGENT = 3
    CONTROLLER = 4


class Right(IntEnum):
    """The kinds of rights events."""

    ERASURE_REQUEST = 0
    ERASURE_REQUEST_CANCELLED = 1
    LEGAL_HOLD = 2
    LEGAL_HOLD_RELEASED = 3
    RESTRICTION = 4
    RESTRICTION_LIFTED = 5
    OBJECTION = 6
    OBJECTION_REJECTED = 7
    OPT_OUT_SALE_SHARE = 8
    GPC = 9
    OPT_IN_SALE_SHARE = 10
    LIMIT_SENSITIVE = 11
    LIMIT_SENSITIVE_LIFTED = 12
    ADMT_OPT_OUT = 13


class Basis(IntEnum):
    """The lawful basis of a record (GDPR Art. 6(1)); ``NONE`` is a null."""

    NONE = 0
    CONSENT = 1
    CONTRACT = 2
    LEGAL_OBLIGATION = 3
    VITAL_INTERESTS = 4
    PUBLIC_TASK = 5
    LEGITIMATE_INTEREST = 6


class Type(IntEnum):
    """What a row of the table is."""

    RECORD = 0
    CHECKPOINT = 1
    SYNTHETIC_RELEASE = 2


class Assessment(IntEnum):
    """What an anonymity assessment of an artefact found; ``NONE`` is a null."""

    NONE = 0
    PASSED = 1
    FAILED = 2


class ThreeWay(IntEnum):
    """A yes or no that may be missing."""

    NO = 0
    YES = 1
    MISSING = 2


@dataclass(frozen=True, slots=True, eq=False)
class ConsentEvents:
    """Consent events, shape ``(m,)`` each.

    Attributes:
        people: Sorted, distinct identifiers, bytes, shape ``(u,)``.
        purposes: Sorted, distinct purposes; ``"*"`` is every purpose and is used by restrictions only.
        subject: Index into ``people``, int32 or int64.
        purpose: Index into ``purposes``, any integer type.
        action: :class:`Action`, uint8, or UNKNOWN.
        explicit: Whether the consent was explicit (a null is False), bool.
        given_by: :class:`GivenBy`, uint8, or UNKNOWN.
        notice_version: Version of the notice, int32; NULL if none.
        effective: When it holds from by its own account, int64.
        recorded: When the store learned it, int64.
        valid_until: First instant at which a grant is over, int64; NEVER if it does not end.
        seq: Place in the store, int64: for explanations only, never for a decision.
        event_id: Identifiers, bytes: for explanations only. Empty (shape ``(0,)``) if not asked for.
    """

    people: NDArray[np.bytes_]
    purposes: tuple[str, ...]
    subject: NDArray[np.integer]
    purpose: NDArray[np.integer]
    action: NDArray[np.uint8]
    explicit: NDArray[np.bool_]
    given_by: NDArray[np.uint8]
    notice_version: NDArray[np.int32]
    effective: NDArray[np.int64]
    recorded: NDArray[np.int64]
    valid_until: NDArray[np.int64]
    seq: NDArray[np.int64]
    event_id: NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.subject)


@dataclass(frozen=True, slots=True, eq=False)
class RightsEvents:
    """Rights events, shape ``(m,)`` each.

    Attributes:
        people: Sorted, distinct identifiers, bytes, shape ``(u,)``.
        scopes: Distinct scopes: the matter of a legal hold, the purpose of an objection.
        exceptions: Distinct exceptions to erasure, such as ``"17(3)(b)"``.
        subject: Index into ``people``.
        kind: :class:`Right`, uint8, or UNKNOWN.
        scope: Index into ``scopes``, int32; NULL is all of them.
        exception: Index into ``exceptions``, int32; NULL is none.
        given_by: :class:`GivenBy`, uint8, or UNKNOWN.
        after_conflict_notice: Whether an opt-in followed a notice of the conflict with a signal, bool.
        effective: When it holds from by its own account, int64.
        recorded: When the store learned it, int64.
        seq: Place in the store, int64: for explanations only.
        event_id: Identifiers, bytes: for explanations only. Empty if not asked for.
    """

    people: NDArray[np.bytes_]
    scopes: tuple[str, ...]
    exceptions: tuple[str, ...]
    subject: NDArray[np.integer]
    kind: NDArray[np.uint8]
    scope: NDArray[np.int32]
    exception: NDArray[np.int32]
    given_by: NDArray[np.uint8]
    after_conflict_notice: NDArray[np.bool_]
    effective: NDArray[np.int64]
    recorded: NDArray[np.int64]
    seq: NDArray[np.int64]
    event_id: NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.subject)


@dataclass(frozen=True, slots=True, eq=False)
class Subjects:
    """What is known of people, shape ``(u,)`` each.

    Attributes:
        people: Sorted, distinct identifiers, bytes.
        countries: Distinct ISO 3166-1 alpha-2 codes.
        zones: Distinct IANA zones.
        birth_day: Days since 1970-01-01, int32; NO_DAY if not known.
        residence: Index into ``countries``, int16; NULL if not known.
        zone: Index into ``zones``, int16; NULL if not known.
        ambiguous: Whether two different people stand under this identifier, bool.
        malformed: Whether a profile could not be understood, bool.
        alias: Sorted other identifiers, bytes, shape ``(k,)``; one under two people stands twice.
        alias_of: Index into ``people`` for each alias, shape ``(k,)``.
    """

    people: NDArray[np.bytes_]
    countries: tuple[str, ...]
    zones: tuple[str, ...]
    birth_day: NDArray[np.int32]
    residence: NDArray[np.int16]
    zone: NDArray[np.int16]
    ambiguous: NDArray[np.bool_]
    malformed: NDArray[np.bool_]
    alias: NDArray[np.bytes_]
    alias_of: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.people)


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """Rows and artefacts that are asked about, shape ``(n,)`` each.

    A set of words (what a record was collected for) is an index into the distinct sets of the table: a table of a
    million rows has a handful. The first set may be None, a null.

    Attributes:
        people: Sorted, distinct identifiers, bytes, shape ``(u,)``.
        subject: Index into ``people``, int32; NULL for an artefact of no one person.
        type: :class:`Type`, uint8, or UNKNOWN.
        collected_at: int64, and ``NEVER`` where it is null.
        last_activity_at: int64, and ``NEVER`` where it is null.
        retention_rules: Distinct names of rules.
        retention_rule: Index into ``retention_rules``, int16; NULL is none.
        basis: :class:`Basis`, uint8, or UNKNOWN.
        purpose_sets: Distinct sets that ``collected_for`` points to; None is a null.
        collected_for: Index into ``purpose_sets``, int16.
        category_sets: Distinct sets of ordinary and special categories, as pairs; None in a place is a null.
        categories: Index into ``category_sets``, int16.
        art9_conditions: Distinct conditions, as letters of Art. 9(2) or what was written.
        art9_condition: Index into ``art9_conditions``, int16; NULL is none.
        sensitive: :class:`ThreeWay`: sensitive personal information (1798.140(ae)), uint8.
        deidentified: Whether all three measures of 1798.140(m) stand, bool.
        inaccurate: Whether the row is flagged as wrong or under correction (Art. 5(1)(d)), bool.
        compatible: Whether a compatibility assessment (Art. 6(4)) is on file for the row, bool.
        criminal_law: Whether a law that allows criminal-conviction data is on file, bool.
        malformed: Whether the row could not be understood, bool.
        retain_until: When an artefact must go, int64; ``LONG_AGO`` where it is null. Unused for records.
        lineage_revoked: Revoked records in an artefact's lineage, int32; NULL if not known.
        assessment: :class:`Assessment`, uint8, or UNKNOWN.
        assessed_at: int64; NEVER where it is null.
        assessment_until: First instant at which the assessment no longer counts, int64; NEVER if it does not end.
    """

    people: NDArray[np.bytes_]
    subject: NDArray[np.int32]
    type: NDArray[np.uint8]
    collected_at: NDArray[np.int64]
    last_activity_at: NDArray[np.int64]
    retention_rules: tuple[str, ...]
    retention_rule: NDArray[np.int16]
    basis: NDArray[np.uint8]
    purpose_sets: tuple[frozenset[str] | None, ...]
    collected_for: NDArray[np.int16]
    category_sets: tuple[tuple[frozenset[str] | None, frozenset[str] | None], ...]
    categories: NDArray[np.int16]
    art9_conditions: tuple[str, ...]
    art9_condition: NDArray[np.int16]
    sensitive: NDArray[np.uint8]
    deidentified: NDArray[np.bool_]
    inaccurate: NDArray[np.bool_]
    compatible: NDArray[np.bool_]
    criminal_law: NDArray[np.bool_]
    malformed: NDArray[np.bool_]
    retain_until: NDArray[np.int64]
    lineage_revoked: NDArray[np.int32]
    assessment: NDArray[np.uint8]
    assessed_at: NDArray[np.int64]
    assessment_until: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.subject)

    @classmethod
    def plain(
        cls,
        people: NDArray[np.bytes_],
        subject: NDArray[np.integer],
        *,
        collected_at: NDArray[np.int64],
        last_activity_at: NDArray[np.int64] | None = None,
        basis: Basis = Basis.CONSENT,
        retention_rule: str = "default",
        collected_for: frozenset[str] | None = None,
        categories: frozenset[str] | None = frozenset(),
        special_categories: frozenset[str] | None = frozenset(),
        art9_condition: str | None = None,
    ) -> Records:
        """Return a table of records that differ in person and clocks only, as one source of one site has."""
        n = len(subject)
        no, zero = np.zeros(n, dtype=bool), np.zeros(n, dtype=np.int16)
        condition = zero if art9_condition is not None else np.full(n, NULL, dtype=np.int16)
        return cls(
            people=people,
            subject=subject.astype(np.int32, copy=False),
            type=np.full(n, Type.RECORD, dtype=np.uint8),
            collected_at=collected_at,
            last_activity_at=collected_at if last_activity_at is None else last_activity_at,
            retention_rules=(retention_rule,),
            retention_rule=zero,
            basis=np.full(n, basis, dtype=np.uint8),
            purpose_sets=(collected_for,),
            collected_for=zero,
            category_sets=((categories, special_categories),),
            categories=zero,
            art9_conditions=() if art9_condition is None else (art9_condition,),
            art9_condition=condition,
            sensitive=np.full(n, ThreeWay.YES if special_categories else ThreeWay.NO, dtype=np.uint8),
            deidentified=no,
            inaccurate=no,
            compatible=no,
            criminal_law=no,
            malformed=no,
            retain_until=np.full(n, NEVER, dtype=np.int64),
            lineage_revoked=np.zeros(n, dtype=np.int32),
            assessment=np.zeros(n, dtype=np.uint8),
            assessed_at=np.full(n, NEVER, dtype=np.int64),
            assessment_until=np.full(n, NEVER, dtype=np.int64),
        )


@dataclass(frozen=True, slots=True)
class Destination:
    """Where what is made goes.

    Attributes:
        country: ISO code, or None.
        recipient: ``controller``, ``processor``, ``service_provider``, ``contractor`` or ``third_party``, or None.
        safeguards: Tools of Art. 46, such as ``scc`` or ``bcr``.
        tia: Whether a transfer impact assessment is on file.
        met: What an adequacy decision may require of the importer and is met, such as ``dpf_certified``.
    """

    country: str | None = None
    recipient: str | None = None
    safeguards: frozenset[str] = frozenset()
    tia: bool = False
    met: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of every row: one purpose, one operation, one instant.

    Attributes:
        purpose: Compared exactly.
        operation: ``train``, ``share_update``, ``release``, ``decide`` or ``retain``.
        time: T of the semantics, microseconds since 1970 in UTC.
        known_at: K of the semantics; None is ``time``.
        destination: None is a null, and a transfer nobody described.
        is_sale_or_share: None is a null.
        information_society_service: None is a null.
        significant_decision: None is a null.
        fields: Columns asked for, None if not said.
        strict_fields: Whether a column outside the purpose's list denies, instead of being dropped.
        round: For the explanation only.
    """

    purpose: str
    operation: str
    time: int
    known_at: int | None = None
    destination: Destination | None = None
    is_sale_or_share: bool | None = False
    information_society_service: bool | None = False
    significant_decision: bool | None = False
    fields: frozenset[str] | None = None
    strict_fields: bool = False
    round: int | None = field(default=None, compare=False)

    @property
    def horizon(self) -> int:
        """K: what was recorded later is not known."""
        return self.time if self.known_at is None else self.known_at


OPERATIONS: Final = ("train", "share_update", "release", "decide", "retain")
