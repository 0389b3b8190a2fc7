"""Names of the store's columns, in the order in which rows are written; the tables are made by the migrations."""

from __future__ import annotations

from typing import Final

HEAD_REVISION: Final = "0001"

# What the store itself says of an event comes first; the rest is what the sender said.
_OWN: Final = ("seq", "recorded_at", "source")
CONSENT_SAID: Final = (
    "event_id",
    "subject_ref",
    "purpose",
    "action",
    "explicit",
    "given_by",
    "notice_id",
    "notice_version",
    "method",
    "valid_until",
    "effective_at",
    "evidence_sha256",
)
RIGHTS_SAID: Final = (
    "event_id",
    "subject_ref",
    "kind",
    "scope",
    "exception",
    "given_by",
    "after_conflict_notice",
    "method",
    "verified_at",
    "effective_at",
    "evidence_sha256",
)
SAID: Final = {"consent_event": CONSENT_SAID, "rights_event": RIGHTS_SAID}
WRITTEN: Final = {table: (*_OWN, *said) for table, said in SAID.items()}
PROFILE: Final = (
    "seq", "subject_ref", "birth_date", "residence", "timezone", "corrects", "recorded_at",
)  # fmt: skip
RECORD: Final = (
    "seq",
    "record_id",
    "subject_ref",
    "type",
    "collected_at",
    "last_activity_at",
    "retention_rule",
    "legal_basis",
    "collected_for",
    "categories",
    "special_categories",
    "art9_condition",
    "sensitive_pi",
    "deidentified",
    "inaccurate",
    "compatibility_ref",
    "criminal_law_ref",
    "recorded_at",
)

NEVER: Final = 2**63 - 1
