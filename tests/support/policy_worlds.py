"""Random tables of people, events and records under one request, seeded; instants crowd around the edges."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from fedgen._resources import kit
from fedgen.policy.cases import read_request
from fedgen.policy.engine import decide
from fedgen.policy.plain import consent_columns, record_columns, rights_columns, subject_columns
from fedgen.policy.standing import stand
from fedgen.schema.yamlsource import load_yaml

LAWS = ("gdpr", "ccpa")
ZONES = [
    "Europe/Berlin",
    "America/Los_Angeles",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Europe/Copenhagen",
    None,
]
COUNTRIES = ["DE", "DK", "SI", "AT", "US", None]


@lru_cache(maxsize=1)
def facts():
    """The packs' YAML as plain dicts."""
    return {law: load_yaml(kit("policies", f"{law}.yaml"))[0] for law in LAWS}


def stamp(moment):
    return moment.isoformat()


class World:
    """One request and ``size`` people with a record each."""

    def __init__(self, seed, size):
        self.random = random.Random(seed)
        dice = self.random
        edges = [
            datetime(2026, 5, 4, 9, tzinfo=UTC),
            datetime(2026, 3, 29, 1, tzinfo=UTC),
            datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
            datetime(2024, 2, 29, 12, tzinfo=UTC),
            datetime(2027, 2, 28, 23, 30, tzinfo=UTC),
            datetime(2027, 1, 1, 8, tzinfo=UTC),
            datetime(2026, 1, 26, 23, tzinfo=UTC),
            datetime(2024, 1, 1, tzinfo=UTC),
        ]
        self.at = dice.choice(edges) + timedelta(microseconds=dice.choice([0, -1, 1, 0, 3_600_000_000]))
        self.request = self._request()
        self.people = [self._person(number) for number in range(size)]
        self.records = [self._record(number) for number in range(size)]
        self.consents = [self._consents(person) for person in self.people]
        self.rights = [self._rights(person) for person in self.people]

    def case(self, number):
        return {
            "id": str(number),
            "law": list(LAWS),
            "subject": self.people[number],
            "consent_events": self.consents[number],
            "rights_events": self.rights[number],
            "record": self.records[number],
            "request": self.request,
        }

    def columns(self):
        """Return records, consent, rights, subjects and request, as the engine reads them."""
        return (
            record_columns(self.records),
            consent_columns([event for events in self.consents for event in events]),
            rights_columns([event for events in self.rights for event in events]),
            subject_columns(self.people),
            read_request(self.request),
        )

    def decide(self, packs):
        """Return the engine's decision on the whole table."""
        records, consent, rights, subjects, request = self.columns()
        return decide(records, stand(records.people, consent, rights, subjects, request), request, packs)

    def _request(self):
        dice = self.random
        operation = dice.choice(["train", "train", "share_update", "release", "decide", "retain"])
        return {
            "purpose": dice.choice(
                ["train_generator"] * 3 + ["service_analytics", "provide_service", "marketing"]
            ),
            "operation": operation,
            "time": stamp(self.at),
            "as_known_at": dice.choice(
                [None, None, stamp(self.at - timedelta(days=1)), stamp(self.at + timedelta(hours=1))]
            ),
            "destination": dice.choice(
                [{"country": "DE", "safeguards": []}] * 3
                + [
                    {"country": "US", "safeguards": [], "dpf_certified": True},
                    {"country": "US", "safeguards": ["scc"], "tia": dice.random() < 0.5},
                    {"country": "BR", "safeguards": []},
                    {"country": "IN", "safeguards": dice.choice([[], ["scc"], ["art49"]])},
                    None,
                ]
            ),
            "is_sale_or_share": dice.choice([False, True, True, None]),
            "information_society_service": dice.choice([False, True, None]),
            "significant_decision": dice.choice([False, True]),
        }

    def near(self):
        """An instant near T: exactly, a microsecond off, hours, days or years off."""
        dice = self.random
        gaps = [
            timedelta(),
            timedelta(microseconds=1),
            timedelta(hours=1),
            timedelta(days=1),
            timedelta(days=300),
        ]
        return self.at + dice.choice([-1, -1, -1, 1]) * dice.choice(gaps)

    def _person(self, number):
        dice = self.random
        years = dice.choice([12, 13, 14, 15, 16, 16, 30, 40])
        shift = dice.choice([0, 0, 1, -1, 40, -300])
        day = (self.at + timedelta(days=shift)).date()
        born = day.replace(year=day.year - years, day=min(day.day, 28)) if dice.random() < 0.8 else None
        birth = born.isoformat() if born else dice.choice(["2008-02-29", "2012-02-29", None])
        return {
            "subject_id": f"s-{number:05d}",
            "aliases": [f"d-{number:05d}"] if dice.random() < 0.2 else [],
            "birth_date": birth,
            "residence": dice.choice(COUNTRIES),
            "timezone": dice.choice(ZONES),
        }

    def _record(self, number):
        dice, person = self.random, self.people[number]
        kind = dice.choice(["record"] * 8 + ["checkpoint", "synthetic_release"])
        years = dice.choice([0, 0, 0, 2, 3])
        near = self.near()
        collected = near.replace(year=near.year - years, day=min(near.day, 28 if near.month == 2 else 30))
        collected = min(collected, self.at)
        row = {
            "record_id": f"r-{number}",
            "subject_id": dice.choice([person["subject_id"], *person["aliases"]]),
            "type": kind,
            "collected_at": stamp(collected),
            "last_activity_at": dice.choice([stamp(collected), None]),
            "retention_rule": "default",
            "legal_basis": dice.choice(
                ["consent"] * 4 + ["contract", "legitimate_interest", "public_task", None]
            ),
            "collected_for": dice.choice(
                [["train_generator"], ["service_analytics", "provide_service"], [], None]
            ),
            "categories": ["demographic"],
            "special_categories": dice.choice([[], [], ["health"], None]),
            "art9_condition": dice.choice([None, "9(2)(j)"]),
            "sensitive_pi": dice.choice([False, True, None]),
            "inaccurate": dice.random() < 0.05,
            "deidentified": dice.choice(
                [
                    None,
                    None,
                    None,
                    {
                        n: dice.random() < 0.8
                        for n in ("reasonable_measures", "public_commitment", "contractual_no_reid")
                    },
                ]
            ),
        }
        if kind != "record":
            row |= {
                "retain_until": stamp(self.near() + timedelta(days=dice.choice([0, 400]))),
                "lineage_revoked_records": dice.choice([0, 0, 3]),
                "anonymity_assessment": dice.choice(
                    [
                        None,
                        {
                            "result": dice.choice(["passed", "failed"]),
                            "assessed_at": dice.choice([None, stamp(self.near())]),
                            "method": "m",
                        },
                    ]
                ),
            }
        return row

    def consent(self, person):
        dice = self.random
        action = dice.choice(
            ["given"] * 5 + ["renewed", "refused", "withdrawn", "withdrawn", "invalidated", "expired"]
        )
        purposes = ["train_generator"] * 4 + ["service_analytics"]
        grant = action in {"given", "renewed"}
        return {
            "event_id": f"e-{dice.random()}",
            "subject_id": dice.choice([person["subject_id"], *person["aliases"]]),
            "purpose": dice.choice(purposes if grant else [*purposes, "*"]),
            "action": action,
            "explicit": dice.random() < 0.5,
            "given_by": dice.choice(["subject", "subject", "parent"]),
            "notice_version": dice.choice([3, 3, 4, 2, None]),
            "effective_at": stamp(self.near()),
            "recorded_at": stamp(self.near()),
            "valid_until": dice.choice([None, None, stamp(self.near()), stamp(self.at + timedelta(days=90))]),
        }

    def _consents(self, person):
        return [self.consent(person) for _ in range(self.random.choice([0, 1, 1, 2, 3, 4]))]

    def right(self, person, kinds=None):
        dice = self.random
        kind = dice.choice(
            kinds
            or [
                "erasure_request", "erasure_request_cancelled", "legal_hold", "legal_hold_released", "restriction",
                "restriction_lifted", "objection", "objection_rejected", "opt_out_sale_share", "gpc",
                "opt_in_sale_share", "opt_in_sale_share", "limit_sensitive", "limit_sensitive_lifted", "admt_opt_out",
            ]
        )  # fmt: skip
        row = {
            "event_id": f"x-{dice.random()}",
            "subject_id": dice.choice([person["subject_id"], *person["aliases"]]),
            "type": kind,
            "effective_at": stamp(self.near()),
            "recorded_at": stamp(self.near()),
            "given_by": dice.choice(["subject", "parent"]),
            "after_conflict_notice": dice.random() < 0.6,
        }
        if kind.startswith("legal_hold"):
            row["matter"] = dice.choice([None, "m-1", "m-2"])
        if kind.startswith("objection"):
            row["purpose"] = dice.choice([None, None, "train_generator", "service_analytics"])
        if kind == "erasure_request" and dice.random() < 0.4:
            row["exception"] = "17(3)(b)"
        return row

    def _rights(self, person):
        return [self.right(person) for _ in range(self.random.choice([0, 0, 0, 1, 1, 2, 3]))]
