"""One allowed case, and ways to bend it."""

from __future__ import annotations

import copy

AT = "2026-05-04T11:00:00+02:00"


def case(law="gdpr", **changes):
    """Return a case that is allowed under both laws; ``record``, ``request`` and ``subject`` are merged in."""
    result = {
        "id": "c-1",
        "law": law,
        "subject": {
            "subject_id": "s-1", "aliases": [], "birth_date": "1984-03-09", "residence": "DE",
            "timezone": "Europe/Berlin",
        },
        "consent_events": [consent()],
        "rights_events": [],
        "record": {
            "record_id": "rec-1", "subject_id": "s-1", "type": "record", "collected_at": "2025-12-01T10:00:00+01:00",
            "last_activity_at": "2025-12-01T10:00:00+01:00", "retention_rule": "default", "legal_basis": "consent",
            "collected_for": ["train_generator"], "categories": ["demographic"], "special_categories": [],
            "art9_condition": None,
        },
        "request": {
            "purpose": "train_generator", "operation": "train", "time": AT, "as_known_at": None,
            "destination": {"country": "DE", "recipient": "controller", "safeguards": []}, "round": 16,
        },
    }  # fmt: skip
    for key, value in changes.items():
        if key in {"record", "request", "subject"}:
            result[key] |= value
        else:
            result[key] = value
    return copy.deepcopy(result)


def consent(action="given", at="2026-01-10T09:00:00+01:00", **changes):
    """Return a consent event with both clocks at ``at``."""
    return {
        "event_id": f"e-{action}-{at}", "subject_id": "s-1", "purpose": "train_generator", "action": action,
        "explicit": False, "given_by": "subject", "notice_version": 3, "effective_at": at, "recorded_at": at,
        "valid_until": None,
    } | changes  # fmt: skip


def right(kind, at="2026-03-01T09:00:00+01:00", **changes):
    """Return a rights event with both clocks at ``at``."""
    return {
        "event_id": f"x-{kind}-{at}", "subject_id": "s-1", "type": kind, "effective_at": at, "recorded_at": at
    } | changes  # fmt: skip


def artefact(kind="synthetic_release", **changes):
    """Return an artefact nobody objects to."""
    return {
        "record_id": "a-1", "type": kind, "retain_until": "2028-01-01T00:00:00+00:00", "lineage_revoked_records": 0,
        "anonymity_assessment": {"result": "passed", "assessed_at": "2026-04-01T00:00:00+00:00", "method": "m"},
    } | changes  # fmt: skip
