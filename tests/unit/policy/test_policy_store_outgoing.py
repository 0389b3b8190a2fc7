"""What people are answered: status, access, portability, and receipts in the words of ISO/IEC TS 27560 and DPV."""

import json
import uuid
from datetime import timedelta

import pytest
from support.stores import NOON, TRAIN, Clock, consent, right

from fedgen.errors import DataError
from fedgen.policy.store import ConsentStore
from fedgen.policy.store.outgoing import Issuer, access, consent_record, portability, receipt, status

ISSUER = Issuer(
    controller="https://hospital.example",
    jurisdiction="DE",
    personal_data=("pd:MedicalHealth",),
    retention="P2Y",
    withdrawal="https://hospital.example/withdraw",
    purposes={TRAIN: ("dpv:ResearchAndDevelopment",)},
)
# The mandatory fields of a consent record (POLICY 2.1, from ISO/IEC TS 27560:2023, clause 6), as DPV names them.
MANDATORY = (
    "dct:conformsTo", "dct:identifier", "dpv:hasDataSubject", "dpv:hasNotice", "dpv:hasProcess",
    "dpv:hasDataController", "dpv:hasJurisdiction", "dpv:hasConsentControl", "dpv:hasConsentStatus",
)  # fmt: skip
IN_PROCESS = ("dpv:hasPurpose", "dpv:hasPersonalData", "dpv:hasRecipient", "dpv:hasStorageCondition")


@pytest.fixture
def lived_in(store: ConsentStore, clock: Clock) -> ConsentStore:
    store.record(
        consent("a", notice_id="n1", notice_version=3, method="form", valid_until=NOON + timedelta(days=365)),
        consent("a", purpose="service_analytics", explicit=True),
        consent("b"),
        right("a", "legal_hold", scope="m1", given_by="controller"),
    )
    store.put_profiles([("a", "1990-01-01", "DE", "Europe/Berlin")])
    store.put_alias("a-old", "a")
    store.put_records([{"record_id": "r1", "subject_id": "a", "collected_at": 0}])
    clock.go(hours=1)
    store.withdraw("a", TRAIN)
    store.record(right("a", "gpc", at=clock()))
    return store


def test_status_says_where_a_person_stands(lived_in: ConsentStore) -> None:
    said = status(lived_in, "a")
    assert said["purposes"] == {TRAIN: "withdrawn", "service_analytics": "consented"}
    assert said["rights"] == ["hold", "opted_out"]
    assert said["opt_out_signal_honoured"] is True
    assert status(lived_in, "b")["purposes"] == {
        TRAIN: "consented", "service_analytics": "consented to another purpose",
    }  # fmt: skip


def test_access_gives_everything_and_of_nobody_else(lived_in: ConsentStore) -> None:
    said = access(lived_in, "a")
    assert [e["action"] for e in said["consent_events"]] == ["given", "given", "withdrawn"]
    assert [e["kind"] for e in said["rights_events"]] == ["legal_hold", "gpc"]
    assert said["consent_events"][0]["effective_at"] == "2026-05-04T12:00:00Z"
    assert [p["birth_date"] for p in said["profile"]] == ["1990-01-01"]
    assert (said["aliases"], [r["record_id"] for r in said["records"]]) == (["a-old"], ["r1"])
    assert len(said["manifest_sha256"]) == 64
    assert access(lived_in, "a-old")["subject_ref"] == said["subject_ref"]
    json.dumps(said)
    assert access(lived_in, "b")["rights_events"] == []


def test_portability_gives_what_the_person_said(lived_in: ConsentStore) -> None:
    said = portability(lived_in, "a")
    assert [e["kind"] for e in said["rights_events"]] == ["gpc"]  # a hold is the controller's word
    assert len(said["consent_events"]) == 3
    assert "recorded_at" not in said["consent_events"][0]
    json.dumps(said)


def test_a_consent_record_has_the_mandatory_fields(lived_in: ConsentStore) -> None:
    record = consent_record(lived_in, "a", TRAIN, ISSUER)
    assert set(MANDATORY) <= record.keys()
    assert set(IN_PROCESS) <= record["dpv:hasProcess"].keys()
    assert record["@type"] == "dpv:ConsentRecord"
    assert record["dct:conformsTo"] == "https://w3id.org/dpv/schema/dpv-27560#record-eu-gdpr"
    assert uuid.UUID(record["dct:identifier"])
    assert record["dpv:hasJurisdiction"] == ["loc:DE"]
    assert record["dpv:hasLegalBasis"] == "eu-gdpr:A6-1-a"
    assert record["dpv:hasNotice"][0]["@id"] == "urn:fedgen:notice:n1@3"
    given, withdrawn = record["dpv:hasConsentStatus"]
    assert (given["@type"], withdrawn["@type"]) == ("dpv:ConsentGiven", "dpv:ConsentWithdrawn")
    assert given["dpv:isIndicatedAtTime"]["@value"] == "2026-05-04T12:00:00Z"
    assert given["dct:valid"]["@value"] == "2027-05-04T12:00:00Z"
    assert given["dpv:hasIndicationMethod"] == "form"
    kinds = [c["@type"] for c in record["dpv:hasProcess"]["dpv:hasStorageCondition"]]
    assert kinds == ["dpv:StorageLocation", "dpv:StorageDuration"]
    assert consent_record(lived_in, "a", "service_analytics", replaced())["dpv:hasLegalBasis"].endswith(
        "explicit-consent"
    )
    prefixes = {key.split(":")[0] for key in walk(record) if ":" in key and not key.startswith("urn:")}
    assert prefixes <= record["@context"].keys()


def replaced() -> Issuer:
    from dataclasses import replace

    return replace(ISSUER, purposes={"service_analytics": ("dpv:ServiceUsageAnalytics",)})


def walk(value: object) -> set[str]:
    """Return every key of a document."""
    if isinstance(value, dict):
        inner = [walk(v) for k, v in value.items() if k != "@context"]
        return set(value) - {"@context"} | set().union(*inner)
    return set().union(*map(walk, value)) if isinstance(value, list) else set()


def test_a_receipt_holds_the_record(lived_in: ConsentStore) -> None:
    said = receipt(lived_in, "a", TRAIN, ISSUER)
    record = consent_record(lived_in, "a", TRAIN, ISSUER)
    assert said["@type"] == "dpv:ConsentReceipt"
    assert said["dct:created"] == "2026-05-04T13:00:00Z"
    assert said["dpv:hasRecordOfActivity"] == {k: v for k, v in record.items() if k != "@context"}
    assert said["dct:identifier"] != record["dct:identifier"]


def test_nobody_and_the_erased_are_told_apart(lived_in: ConsentStore) -> None:
    with pytest.raises(DataError, match="nobody of that name"):
        status(lived_in, "zz")
    with pytest.raises(DataError, match="nothing was said"):
        consent_record(lived_in, "b", "service_analytics", replaced())
    with pytest.raises(DataError, match="no DPV term"):
        consent_record(lived_in, "a", "service_analytics", ISSUER)
    lived_in.erase("a")
    for ask in (status, access, portability):
        with pytest.raises(DataError, match="was erased"):
            ask(lived_in, "a")
