"""Facts the law asks an organisation to keep, which software can require and store but not decide.

Each kind says which fields a stored fact must have, by when it must be answered, and whether an export shows it.
The store keeps facts as JSON; :func:`check_fact` refuses one that lacks a field, and :func:`export` lists what is
on file and what is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from fedgen.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class FactKind:
    """One kind of fact.

    Attributes:
        id: As in the tables of the specification.
        law: ``gdpr`` or ``ccpa``.
        citation: Where the law asks for it.
        what: In a line.
        fields: What a stored fact must hold.
        always: Whether at least one must be on file for a run, whatever happened.
        due: When it must be answered, in words; empty: no clock.
    """

    id: str
    law: str
    citation: str
    what: str
    fields: tuple[str, ...]
    always: bool = False
    due: str = ""


_MONTH: Final = "one month, two more if complex and told within the first"
_DAYS: Final = "10 business days, then 45 days (+45)"

_GDPR: Final = (
    FactKind(
        "G-5.2",
        "gdpr",
        "GDPR Art. 5(2), 24",
        "every decision can be explained from what is stored",
        ("pack_sha256", "engine_version", "store_head_seq", "known_at"),
        always=True,
    ),
    FactKind(
        "G-7.3d",
        "gdpr",
        "GDPR Art. 7(3)",
        "withdrawing is as easy as giving",
        ("notice_id", "grant_channel", "withdrawal_method"),
        always=True,
    ),
    FactKind(
        "G-11",
        "gdpr",
        "GDPR Art. 11",
        "the controller cannot identify the person by itself",
        ("statement", "recorded_at"),
    ),
    FactKind(
        "G-12",
        "gdpr",
        "GDPR Art. 12(3)",
        "a request of a person and its answer",
        ("request_id", "kind", "received_at", "verified_at", "answered_at", "extension_reason"),
        due=_MONTH,
    ),
    FactKind(
        "G-15",
        "gdpr",
        "GDPR Art. 15",
        "access: what was used, by whom, how long, in which rounds and artefacts",
        ("request_id", "manifest_sha256"),
        due=_MONTH,
    ),
    FactKind(
        "G-19",
        "gdpr",
        "GDPR Art. 19",
        "every recipient was told of a correction, erasure or restriction",
        ("request_id", "recipients", "acknowledged_at"),
    ),
    FactKind(
        "G-20",
        "gdpr",
        "GDPR Art. 20",
        "a structured export",
        ("request_id", "manifest_sha256"),
        due=_MONTH,
    ),
    FactKind(
        "G-30",
        "gdpr",
        "GDPR Art. 30",
        "the record of processing for the run",
        ("purposes", "categories", "recipients", "transfers", "retention", "measures", "version"),
        always=True,
    ),
    FactKind(
        "G-33",
        "gdpr",
        "GDPR Art. 33",
        "a breach",
        ("detected_at", "range", "authority_told_at"),
        due="72 hours",
    ),
    FactKind(
        "G-34",
        "gdpr",
        "GDPR Art. 34",
        "people told of a breach of high risk",
        ("cohort_sha256", "told_at"),
    ),
)

_CCPA: Final = (
    FactKind(
        "C-110",
        "ccpa",
        "Cal. Civ. Code 1798.110, .115; 11 CCR 7024",
        "what is known of a consumer, and to whom it was disclosed or sold",
        ("request_id", "manifest_sha256"),
        due=_DAYS,
    ),
    FactKind(
        "C-125",
        "ccpa",
        "Cal. Civ. Code 1798.125",
        "no worse service for using a right",
        ("design_note",),
        always=True,
    ),
    FactKind(
        "C-130",
        "ccpa",
        "Cal. Civ. Code 1798.130; 11 CCR 7021",
        "a request of a consumer and its answer",
        ("request_id", "received_at", "acknowledged_at", "answered_at"),
        due=_DAYS,
    ),
    FactKind(
        "C-135w",
        "ccpa",
        "Cal. Civ. Code 1798.135(c)(4)",
        "nobody is asked again for twelve months after an opt-out",
        ("last_asked_at",),
        due="12 months",
    ),
    FactKind(
        "C-7101",
        "ccpa",
        "11 CCR 7101",
        "the log of requests, kept 24 months and used for nothing else",
        ("request_id", "received_at", "nature", "manner", "answered_at", "answer", "denial_basis"),
        due="24 months",
    ),
    FactKind(
        "C-7102",
        "ccpa",
        "11 CCR 7102",
        "yearly counts, from ten million consumers on",
        ("year", "counts"),
    ),
    FactKind(
        "C-CYB",
        "ccpa",
        "11 CCR 7120-7124",
        "the yearly audit of security, by size",
        ("audit_id", "certified_at"),
    ),
    FactKind(
        "C-AB566",
        "ccpa",
        "Cal. Civ. Code 1798.136",
        "signals are read more than once without harm",
        ("signal_source", "idempotency_tested_at"),
    ),
)

KINDS: Final[Mapping[str, FactKind]] = MappingProxyType({kind.id: kind for kind in (*_GDPR, *_CCPA)})


def check_fact(kind: str, fact: Mapping[str, Any]) -> None:
    """Return if a fact may be stored.

    Edge cases:
        - A field that does not apply yet is null; a missing one is refused.

    Raises:
        DataError: There is no such kind, or a field is missing.
    """
    known = KINDS.get(kind)
    if known is None:
        raise DataError("no such kind of fact", key=kind, hint=f"one of {', '.join(KINDS)}")
    missing = [name for name in known.fields if name not in fact]
    if missing:
        raise DataError(
            "a field is missing", key=f"{kind}.{missing[0]}", hint=f"needs {', '.join(known.fields)}"
        )


def missing(stored: Iterable[str], laws: Iterable[str]) -> tuple[FactKind, ...]:
    """Return the kinds that must be on file for a run under these laws, and are not."""
    there, asked = set(stored), set(laws)
    return tuple(
        kind for kind in KINDS.values() if kind.always and kind.law in asked and kind.id not in there
    )


def export(facts: Mapping[str, Iterable[Mapping[str, Any]]], laws: Iterable[str]) -> list[dict[str, Any]]:
    """Return one entry for each kind of these laws: what it is, its clock, and what is on file.

    Raises:
        DataError: A stored fact is not complete.
    """
    asked, result = set(laws), []
    for kind in KINDS.values():
        if kind.law not in asked:
            continue
        held = [dict(fact) for fact in facts.get(kind.id, ())]
        for fact in held:
            check_fact(kind.id, fact)
        result.append(
            {
                "id": kind.id,
                "law": kind.law,
                "citation": kind.citation,
                "what": kind.what,
                "due": kind.due or None,
                "required": kind.always,
                "facts": held,
            }
        )
    return result
