"""What a person, or an authority, is answered: status, access, portability, and receipts in a standard's words.

Source: GDPR Art. 15, 20; ISO/IEC TS 27560:2023 in the JSON-LD profile of the W3C DPVCG guide "Consent Records and
Receipts as per ISO/IEC TS 27560:2023 using DPV"; W3C DPV 2.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen.errors import DataError
from fedgen.policy.columns import Action, Request
from fedgen.policy.standing import OPERATIVE, OTHER_PURPOSE, SILENT, Flag, stand
from fedgen.policy.store.database import driver_rows
from fedgen.policy.store.events import rfc3339
from fedgen.policy.store.people import look_up
from fedgen.policy.store.tables import PROFILE, RECORD, WRITTEN

if TYPE_CHECKING:
    import sqlalchemy as sa

    from fedgen.policy.store.store import ConsentStore

CONTEXT: Final = {
    "dpv": "https://w3id.org/dpv#",
    "eu-gdpr": "https://w3id.org/dpv/legal/eu/gdpr#",
    "loc": "https://w3id.org/dpv/loc#",
    "dct": "http://purl.org/dc/terms/",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}
RECORD_PROFILE: Final = "https://w3id.org/dpv/schema/dpv-27560#record-eu-gdpr"
RECEIPT_PROFILE: Final = "https://w3id.org/dpv/schema/dpv-27560#receipt"
STATUS: Final = {
    "given": "dpv:ConsentGiven",
    "renewed": "dpv:RenewedConsentGiven",
    "refused": "dpv:ConsentRefused",
    "withdrawn": "dpv:ConsentWithdrawn",
    "invalidated": "dpv:ConsentInvalidated",
    "expired": "dpv:ConsentExpired",
}
_SCHEMA: Final = {"consent_event": "consent_events", "rights_event": "rights_events"}
_INSTANTS: Final = frozenset(
    {
        "effective_at",
        "recorded_at",
        "valid_until",
        "verified_at",
        "acting_at",
        "collected_at",
        "last_activity_at",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """What a consent record says and the store does not know: who is responsible, for what data, and how to withdraw.

    Attributes:
        controller: IRI or name of the controller.
        jurisdiction: ISO 3166-1 alpha-2 code.
        law: IRI of the law, such as ``eu-gdpr:GDPR``.
        language: BCP 47 tag of the notice.
        personal_data: IRIs of the kinds of data, such as ``pd:MedicalHealth``.
        recipients: Who receives it.
        storage_locations: Where it is kept.
        retention: ISO 8601 period, such as ``P2Y``.
        withdrawal: Where consent can be withdrawn.
        purposes: IRIs of DPV for each purpose of ours.
    """

    controller: str
    jurisdiction: str
    law: str = "eu-gdpr:GDPR"
    language: str = "en"
    personal_data: tuple[str, ...]
    recipients: tuple[str, ...] = ()
    storage_locations: tuple[str, ...] = ("dpv:FederatedLocations",)
    retention: str
    withdrawal: str
    purposes: dict[str, tuple[str, ...]]


def status(store: ConsentStore, subject_id: str) -> dict[str, Any]:
    """Return where a person stands now: for each purpose that was ever mentioned, and in their rights.

    Raises:
        DataError: The store does not know the person, or knows that they were erased.
    """
    _known(store, subject_id)
    view = store.columns()
    people = np.array([subject_id.encode()], dtype=np.bytes_)
    words = {OPERATIVE: "consented", SILENT: "nothing said", OTHER_PURPOSE: "consented to another purpose"}
    words |= {int(action): action.name.lower() for action in Action}
    purposes: dict[str, Any] = {}
    flags = Flag(0)
    again: list[str] = []
    for purpose in view.consent.purposes or ("",):
        request = Request(purpose=purpose, operation="train", time=view.known_at)
        standing = stand(people, view.consent, view.rights, view.subjects, request)
        flags = Flag(int(standing.flags[0]))
        if purpose:
            purposes[purpose] = words[int(standing.consent[0])]
            again += [purpose] if standing.needs_reconfirmation[0] else []
    shown = (
        Flag.HOLD,
        Flag.ERASURE,
        Flag.RESTRICTED,
        Flag.OBJECTED,
        Flag.OPTED_OUT,
        Flag.LIMITED,
        Flag.AMBIGUOUS,
    )
    return {
        "subject_id": subject_id,
        "known_at": rfc3339(view.known_at),
        "purposes": purposes,
        # They agreed, and a restriction that came late or lies later blocks it (S2): to be confirmed again.
        "needs_reconfirmation": again,
        "rights": [flag.name.lower() for flag in shown if flag in flags and flag.name],
        # 11 CCR 7025(c)(6): since 2026 a business shows whether the signal was taken as an opt-out.
        "opt_out_signal_honoured": bool(flags & Flag.OPTED_OUT),
    }


def access(store: ConsentStore, subject_id: str) -> dict[str, Any]:
    """Return everything the store holds on a person (Art. 15), with its own SHA-256 for the register.

    Raises:
        DataError: As :func:`status`.
    """
    ref, _ = _known(store, subject_id)
    with store.database.reading() as connection:
        body: dict[str, Any] = {
            "subject_id": subject_id,
            "subject_ref": ref.hex(),
            "at": rfc3339(store.now()),
            "profile": _rows(connection, "subject_profile", PROFILE, ref),
            "records": _rows(connection, "record_meta", RECORD, ref),
            "aliases": [
                row[0]
                for row in driver_rows(
                    connection, "SELECT alias FROM subject_alias WHERE subject_ref = ?", (ref,)
                )
            ],
        }
        for table, name in _SCHEMA.items():
            body[name] = _rows(connection, table, (*WRITTEN[table], "restrictive", "acting_at"), ref)
    return {**body, "manifest_sha256": _digest(body)}


def portability(store: ConsentStore, subject_id: str) -> dict[str, Any]:
    """Return what a person themselves provided, for another controller to read (Art. 20).

    Raises:
        DataError: As :func:`status`.
    """
    whole = access(store, subject_id)
    hidden = {"subject_ref", "seq", "recorded_at", "acting_at", "restrictive", "source"}
    body = {
        "format": "https://fedgen.dev/schema/portability/v1",
        "subject_id": subject_id,
        "profile": [{k: v for k, v in row.items() if k not in hidden} for row in whole["profile"]],
        "consent_events": [
            {k: v for k, v in row.items() if k not in hidden} for row in whole["consent_events"] if _own(row)
        ],
        "rights_events": [
            {k: v for k, v in row.items() if k not in hidden} for row in whole["rights_events"] if _own(row)
        ],
    }
    return {**body, "manifest_sha256": _digest(body)}


def consent_record(store: ConsentStore, subject_id: str, purpose: str, issuer: Issuer) -> dict[str, Any]:
    """Return a consent record in JSON-LD: one purpose, with every event in the order in which it was learned.

    Raises:
        DataError: As :func:`status`, or the person said nothing about the purpose, or it has no DPV term.
    """
    whole = access(store, subject_id)
    events = [row for row in whole["consent_events"] if row["purpose"] in {purpose, "*"}]
    terms = issuer.purposes.get(purpose)
    if not events:
        raise DataError("nothing was said about this purpose", key="purpose", hint="check the spelling")
    if not terms:
        raise DataError("the purpose has no DPV term", key="purpose", hint="name it in the issuer's purposes")
    uid = uuid.uuid5(uuid.UUID(bytes=bytes.fromhex(whole["subject_ref"])), purpose)
    notices = {(row["notice_id"], row["notice_version"]) for row in events if row["notice_id"] is not None}
    explicit = any(row["explicit"] for row in events)
    return {
        "@context": CONTEXT,
        "@id": f"urn:uuid:{uid}",
        "@type": "dpv:ConsentRecord",
        "dct:conformsTo": RECORD_PROFILE,
        "dct:identifier": str(uid),
        "dpv:hasDataSubject": {
            "@id": f"urn:fedgen:subject:{whole['subject_ref']}",
            "@type": "dpv:DataSubject",
        },
        "dpv:hasDataController": issuer.controller,
        "dpv:hasJurisdiction": [f"loc:{issuer.jurisdiction}"],
        "dpv:hasApplicableLaw": issuer.law,
        "dpv:hasLegalBasis": "eu-gdpr:A6-1-a-explicit-consent" if explicit else "eu-gdpr:A6-1-a",
        "dpv:hasNotice": [
            {
                "@type": "dpv:ConsentNotice",
                "@id": f"urn:fedgen:notice:{name}@{version}",
                "dct:language": issuer.language,
            }
            for name, version in sorted(notices, key=str)
        ],
        "dpv:hasProcess": {
            "@type": "dpv:Process",
            "dpv:hasPurpose": list(terms),
            "dpv:hasPersonalData": list(issuer.personal_data),
            "dpv:hasRecipient": [issuer.controller, *issuer.recipients],
            "dpv:hasStorageCondition": [
                {"@type": "dpv:StorageLocation", "dpv:hasLocation": list(issuer.storage_locations)},
                {"@type": "dpv:StorageDuration", "dpv:hasDuration": issuer.retention},
            ],
        },
        "dpv:hasConsentControl": {"@type": "dpv:WithdrawConsent", "dpv:isExercisedAt": issuer.withdrawal},
        "dpv:hasConsentStatus": [_event(row) for row in events],
    }


def receipt(store: ConsentStore, subject_id: str, purpose: str, issuer: Issuer) -> dict[str, Any]:
    """Return a receipt for the person: the consent record, and when and by whom it was handed out.

    Raises:
        DataError: As :func:`consent_record`.
    """
    record = consent_record(store, subject_id, purpose, issuer)
    context = record.pop("@context")
    at = rfc3339(store.now())
    uid = uuid.uuid5(uuid.UUID(record["dct:identifier"]), str(at))
    return {
        "@context": context,
        "@id": f"urn:uuid:{uid}",
        "@type": "dpv:ConsentReceipt",
        "dct:conformsTo": RECEIPT_PROFILE,
        "dct:identifier": str(uid),
        "dct:created": at,
        "dct:publisher": issuer.controller,
        "dpv:hasRecordOfActivity": record,
    }


def _event(row: dict[str, Any]) -> dict[str, Any]:
    """Return one event in DPV's words; the standard has no record time, so it is ours."""
    said: dict[str, Any] = {
        "@type": STATUS[row["action"]],
        "dct:type": "dpv:ExplicitlyExpressedConsent" if row["explicit"] else "dpv:ExpressedConsent",
        "dpv:isIndicatedAtTime": {"@type": "xsd:dateTime", "@value": row["effective_at"]},
        "dpv:isIndicatedBy": row["given_by"],
        "urn:fedgen:recorded_at": row["recorded_at"],
    }
    if row["method"] is not None:
        said["dpv:hasIndicationMethod"] = row["method"]
    if row["valid_until"] is not None:
        said["dct:valid"] = {"@type": "xsd:dateTime", "@value": row["valid_until"]}
    return said


def _own(row: dict[str, Any]) -> bool:
    return bool(row["given_by"] != "controller")


def _known(store: ConsentStore, subject_id: str) -> tuple[bytes, dict[str, int]]:
    """Return a person's pseudonym.

    Raises:
        DataError: There is none.
    """
    with store.database.reading() as connection:
        known = look_up(connection, store.secret, [subject_id])
    if subject_id in known.erased:
        hint = "nothing but a tombstone is kept"
        raise DataError("the person was erased", where=store.name, key="subject_id", hint=hint)
    if subject_id not in known.refs:
        raise DataError(
            "nobody of that name", where=store.name, key="subject_id", hint="check the identifier"
        )
    return known.refs[subject_id], known.erased


def _rows(
    connection: sa.Connection, table: str, columns: tuple[str, ...], ref: bytes
) -> list[dict[str, Any]]:
    """Return a person's rows as JSON values."""
    query = f"SELECT {', '.join(columns)} FROM {table} WHERE subject_ref = ? ORDER BY seq"  # noqa: S608 -- names are constants
    return [
        {name: _plain(name, value) for name, value in zip(columns, row, strict=True)}
        for row in driver_rows(connection, query, (ref,))
    ]


def _plain(name: str, value: Any) -> Any:
    if name in _INSTANTS:
        return rfc3339(value)
    return bytes(value).hex() if isinstance(value, bytes | memoryview) else value


def _digest(body: dict[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
