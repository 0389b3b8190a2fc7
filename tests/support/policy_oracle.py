"""An independent evaluator of the policy semantics: one case at a time, plain Python, written from the specification.

It shares nothing with the engine but the facts of the packs. It reads well-formed cases only; what is malformed is
tested by example. ``decide(case, law, facts)`` returns the decision's reason code and the set of every code that
hit.
"""

from __future__ import annotations

import calendar
import re
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

PERMISSIVE = {"given", "renewed"}
SEVERITY = ["expired", "invalidated", "refused", "withdrawn"]
ORDER = {
    "gdpr": [
        "SUBJECT_AMBIGUOUS",
        "LEGAL_HOLD_RETAIN",
        "LEGAL_HOLD_NO_USE",
        "ARTEFACT_RETENTION_EXPIRED",
        "ARTEFACT_LINEAGE_REVOKED",
        "RELEASE_ANONYMITY_FAILED",
        "RELEASE_ANONYMITY_NOT_SHOWN",
        "ERASURE_EXCEPTION_RETAIN",
        "ERASURE_EXCEPTION_LIMITED_USE",
        "ERASURE_REQUESTED",
        "RETENTION_EXPIRED",
        "PROCESSING_RESTRICTED",
        "OBJECTED",
        "NO_LAWFUL_BASIS",
        "CONSENT_WITHDRAWN_NO_OTHER_BASIS",
        "PURPOSE_NOT_CONSENTED",
        "CONSENT_MISSING",
        "CONSENT_WITHDRAWN",
        "CONSENT_REFUSED",
        "CONSENT_INVALIDATED",
        "CONSENT_EXPIRED",
        "CONSENT_SUPERSEDED",
        "CHILD_PARENTAL_CONSENT_REQUIRED",
        "PURPOSE_INCOMPATIBLE",
        "SPECIAL_CATEGORY_NO_CONDITION",
        "TRANSFER_NO_SAFEGUARD",
        "TRANSFER_TIA_MISSING",
    ],
    "ccpa": [
        "SUBJECT_AMBIGUOUS",
        "OUT_OF_SCOPE_DEIDENTIFIED",
        "LEGAL_HOLD_RETAIN",
        "LEGAL_HOLD_NO_USE",
        "ARTEFACT_RETENTION_EXPIRED",
        "ARTEFACT_LINEAGE_REVOKED",
        "RELEASE_ANONYMITY_FAILED",
        "RELEASE_ANONYMITY_NOT_SHOWN",
        "ERASURE_EXCEPTION_RETAIN",
        "ERASURE_EXCEPTION_LIMITED_USE",
        "ERASURE_REQUESTED",
        "RETENTION_EXPIRED",
        "PROCESSING_RESTRICTED",
        "PURPOSE_NOT_DISCLOSED",
        "OPTED_OUT_SALE_SHARE",
        "MINOR_OPT_IN_REQUIRED",
        "SENSITIVE_USE_LIMITED",
        "ADMT_OPTED_OUT",
    ],
}
ERASES = {
    "ARTEFACT_RETENTION_EXPIRED", "ARTEFACT_LINEAGE_REVOKED", "ERASURE_REQUESTED", "RETENTION_EXPIRED",
    "CONSENT_WITHDRAWN_NO_OTHER_BASIS",
}  # fmt: skip
ALLOWS = {"ALLOW", "LEGAL_HOLD_RETAIN", "ERASURE_EXCEPTION_RETAIN", "OUT_OF_SCOPE_DEIDENTIFIED"}
QUARANTINES = {"MALFORMED_RECORD", "SUBJECT_AMBIGUOUS"}


def always(_):
    return True


def when(text):
    return datetime.fromisoformat(text)


def verdict(code):
    return (
        "quarantine"
        if code in QUARANTINES
        else "erase"
        if code in ERASES
        else "allow"
        if code in ALLOWS
        else "deny"
    )


def decide(case, law, facts):
    """Return ``(code, hits)`` for a well-formed case under one law; ``facts`` is the pack's YAML as a dict."""
    hits = set(_hits(case, law, facts))
    return next((code for code in ORDER[law] if code in hits), "ALLOW"), hits


def decide_all(case, laws, facts):
    """Return the code that decides under several laws (S9): the strictest verdict, the first law's of equals."""
    rank = ["allow", "deny", "erase", "quarantine"]
    said = [decide(case, law, facts[law])[0] for law in laws]
    return max(said, key=lambda code: rank.index(verdict(code)))


class Timeline:
    """Events of one dominance pair: S1 and S2."""

    def __init__(self, events, permits, at, known):
        self.bars, self.grants = [], []
        for event in events:
            effective, recorded = when(event["effective_at"]), when(event["recorded_at"])
            if recorded > known:
                continue
            permit = permits(event)
            acting = max(effective, recorded) if permit else min(effective, recorded)
            if acting <= at:
                (self.grants if permit else self.bars).append((acting, effective, recorded, event))

    def counting(self):
        return [
            grant
            for grant in self.grants
            if all(grant[1] > bar[1] and grant[2] > bar[2] for bar in self.bars)
        ]

    def newest(self):
        counting = self.counting()
        last = max((grant[0] for grant in counting), default=None)
        return last, [grant[3] for grant in counting if grant[0] == last]

    def latest_bars(self):
        last = max((bar[0] for bar in self.bars), default=None)
        return [bar[3] for bar in self.bars if bar[0] == last]

    def stands(self):
        return bool(self.bars) and not self.counting()


def _hits(case, law, facts):
    subject, record, request = case["subject"], case["record"], case["request"]
    at = when(request["time"])
    known = when(request["as_known_at"]) if request.get("as_known_at") else at
    mine = {subject["subject_id"], *subject.get("aliases", [])}
    rights = [event for event in case["rights_events"] if event["subject_id"] in mine]
    consents = [event for event in case["consent_events"] if event["subject_id"] in mine]
    retain = request["operation"] == "retain"

    def pair(restrictions, lifts, where=always):
        chosen = [event for event in rights if event["type"] in {*restrictions, *lifts} and where(event)]
        return Timeline(chosen, lambda event: event["type"] in lifts, at, known)

    holds = any(
        pair({"legal_hold"}, {"legal_hold_released"}, lambda e, m=m: e.get("matter") == m).stands()
        for m in {event.get("matter") for event in rights}
    )
    if holds:
        yield "LEGAL_HOLD_RETAIN" if retain else "LEGAL_HOLD_NO_USE"
    if record["type"] != "record":
        yield from _artefact(record, request, at, law, facts)
        return
    if law == "ccpa" and record.get("deidentified") and all(record["deidentified"].values()):
        yield "OUT_OF_SCOPE_DEIDENTIFIED"
    erasure = pair({"erasure_request"}, {"erasure_request_cancelled"})
    if erasure.stands():
        kept = all(event.get("exception") for event in erasure.latest_bars())
        yield (
            ("ERASURE_EXCEPTION_RETAIN" if retain else "ERASURE_EXCEPTION_LIMITED_USE")
            if kept
            else "ERASURE_REQUESTED"
        )
    if at >= retention_end(record, facts):
        yield "RETENTION_EXPIRED"
    if not retain and (pair({"restriction"}, {"restriction_lifted"}).stands() or record.get("inaccurate")):
        yield "PROCESSING_RESTRICTED"
    state = consent_state(consents, request["purpose"], at, known)
    if law == "gdpr":
        yield from _gdpr(case, facts, consents, state, pair, at, known)
    elif not retain:
        yield from _ccpa(case, facts, state, pair, at)


def retention_end(record, facts):
    rule = facts["retention_rules"][record["retention_rule"]]
    started = record[rule["clock"]]
    if started is None:
        return datetime.min.replace(tzinfo=ZoneInfo("UTC"))
    local = when(started).astimezone(ZoneInfo(rule["tz"]))
    number, unit = re.fullmatch(r"P(\d+)([YMD])", rule["period"]).groups()
    if unit == "D":
        return (local.replace(tzinfo=None, fold=0) + timedelta(days=int(number))).replace(
            tzinfo=ZoneInfo(rule["tz"])
        )
    months = int(number) * (12 if unit == "Y" else 1)
    year, month = local.year + (local.month - 1 + months) // 12, (local.month - 1 + months) % 12 + 1
    day = min(local.day, calendar.monthrange(year, month)[1])
    return local.replace(year=year, month=month, day=day, fold=0)


def consent_state(consents, purpose, at, known):
    """Return ``(state, operative)``: the operative consent's facts, pointwise the least of several at one instant."""
    here = [
        event
        for event in consents
        if event["purpose"] == purpose or (event["purpose"] == "*" and event["action"] not in PERMISSIVE)
    ]
    line = Timeline(here, lambda event: event["action"] in PERMISSIVE, at, known)
    acting, newest = line.newest()
    if newest:
        ends = [when(event["valid_until"]) for event in newest if event["valid_until"]]
        versions = [event["notice_version"] for event in newest]
        return "operative", {
            "acting": acting,
            "until": min(ends, default=None),
            "explicit": all(event["explicit"] for event in newest),
            "parent": all(event["given_by"] == "parent" for event in newest),
            "notice": None if None in versions else min(versions),
        }
    if line.bars:
        return max((event["action"] for event in line.latest_bars()), key=SEVERITY.index), None
    other = Timeline(
        [event for event in consents if event["purpose"] != purpose and event["action"] in PERMISSIVE],
        always,
        at,
        known,
    )
    return ("other" if other.grants else "none"), None


def _artefact(record, request, at, law, facts):
    assessed = record.get("anonymity_assessment")
    counts = (
        assessed is not None and assessed["assessed_at"] is not None and when(assessed["assessed_at"]) <= at
    )
    passed = counts and assessed["result"] == "passed"
    if when(record["retain_until"]) <= at:
        yield "ARTEFACT_RETENTION_EXPIRED"
    if record["lineage_revoked_records"] != 0 and not passed:
        yield "ARTEFACT_LINEAGE_REVOKED"
    if request["operation"] == "release" and not passed:
        yield "RELEASE_ANONYMITY_FAILED" if counts else "RELEASE_ANONYMITY_NOT_SHOWN"
    if law == "gdpr" and request["operation"] != "retain" and not passed:
        yield from _transfer(request.get("destination"), at, facts)


def _gdpr(case, facts, consents, state, pair, at, known):  # noqa: PLR0912 - the specification's own order
    record, request, subject = case["record"], case["request"], case["subject"]
    retain, basis = request["operation"] == "retain", record["legal_basis"]
    word, operative = state
    if basis is None:
        yield "NO_LAWFUL_BASIS"
    if retain:
        if basis == "consent":
            purposes = {event["purpose"] for event in consents}
            states = [consent_state(consents, purpose, at, known) for purpose in purposes]
            held = any(w == "operative" and (o["until"] is None or o["until"] > at) for w, o in states)
            if not held:
                if any(w == "withdrawn" for w, _ in states):
                    yield "CONSENT_WITHDRAWN_NO_OTHER_BASIS"
                yield from _consent(word if word != "withdrawn" else None, operative, at)
        return
    purpose = facts["purposes"].get(request["purpose"], {})
    by_purpose = lambda event: event.get("purpose") in {None, request["purpose"]}  # noqa: E731
    objects = pair({"objection"}, {"objection_rejected"}, by_purpose)
    if objects.stands() and (basis in {"public_task", "legitimate_interest"} or purpose.get("research")):
        yield "OBJECTED"
    if purpose.get("direct_marketing") and objects.bars:
        yield "OBJECTED"
    if basis == "consent":
        yield from _consent(word, operative, at)
        if operative:
            least = purpose.get("min_notice_version") if request["purpose"] in facts["purposes"] else 10**9
            if least and (operative["notice"] is None or operative["notice"] < least):
                yield "CONSENT_SUPERSEDED"
            alone = request.get("information_society_service", False) is not False and not operative["parent"]
            if alone and was_child(subject, operative["acting"], facts):
                yield "CHILD_PARENTAL_CONSENT_REQUIRED"
    elif basis is not None and request["purpose"] not in (record["collected_for"] or []):
        yield "PURPOSE_INCOMPATIBLE"
    special = record["special_categories"]
    if special is None or special:
        live = operative and (operative["until"] is None or operative["until"] > at) and operative["explicit"]
        if not live and record["art9_condition"] is None:
            yield "SPECIAL_CATEGORY_NO_CONDITION"
    yield from _transfer(request.get("destination"), at, facts)


def _consent(word, operative, at):
    names = {
        "none": "CONSENT_MISSING", "other": "PURPOSE_NOT_CONSENTED", "withdrawn": "CONSENT_WITHDRAWN",
        "refused": "CONSENT_REFUSED", "invalidated": "CONSENT_INVALIDATED", "expired": "CONSENT_EXPIRED",
    }  # fmt: skip
    if word in names:
        yield names[word]
    if operative and operative["until"] is not None and operative["until"] <= at:
        yield "CONSENT_EXPIRED"


def age_on(birth, day):
    had = (day.month, day.day) >= (birth.month, birth.day)
    return day.year - birth.year - (0 if had else 1)


def was_child(subject, acting, facts):
    if None in {subject["birth_date"], subject["residence"], subject["timezone"]}:
        return True
    day = acting.astimezone(ZoneInfo(subject["timezone"])).date()
    rows = [
        row
        for row in facts["child_age"].get(subject["residence"], [])
        if date.fromisoformat(row["from"]) <= day
    ]
    age = max(rows, key=lambda row: row["from"])["age"] if rows else 16
    return age_on(date.fromisoformat(subject["birth_date"]), day) < age


def _transfer(destination, at, facts):
    to = destination or {"country": None}
    if to["country"] in facts["eea"]:
        return
    today = at.astimezone(ZoneInfo("Europe/Brussels")).date().isoformat()
    for row in facts["adequacy"]:
        holds = row["from"] <= today and (row["until"] is None or today < row["until"])
        met = row["requires"] is None or to.get(row["requires"])
        if row["country"] == to["country"] and holds and met:
            return
    if not set(to.get("safeguards", [])) & {"scc", "bcr"}:
        yield "TRANSFER_NO_SAFEGUARD"
    elif not to.get("tia"):
        yield "TRANSFER_TIA_MISSING"


def _ccpa(case, facts, state, pair, at):
    record, request, subject = case["record"], case["request"], case["subject"]
    purpose, (word, operative) = request["purpose"], state
    spared = purpose in facts["spi_permitted_purposes"]
    consented = word == "operative" and (operative["until"] is None or operative["until"] > at)
    named = purpose in (record["collected_for"] or []) and (purpose in facts["purposes"] or spared)
    if not named and not consented:
        yield "PURPOSE_NOT_DISCLOSED"
    if request.get("is_sale_or_share", False) is not False:
        by_hand = pair({"opt_out_sale_share", "gpc"}, {"opt_in_sale_share"})
        signal = pair({"gpc"}, set()).bars
        counting = [g for g in by_hand.counting() if not signal or g[3].get("after_conflict_notice")]
        if by_hand.bars and not counting:
            yield "OPTED_OUT_SALE_SHARE"
        last = max((grant[0] for grant in counting), default=None)
        givers = {grant[3]["given_by"] for grant in counting if grant[0] == last}
        if _minor_without(subject, givers, at):
            yield "MINOR_OPT_IN_REQUIRED"
    limited = pair({"limit_sensitive"}, {"limit_sensitive_lifted"}).stands()
    if limited and record.get("sensitive_pi", False) is not False and not spared:
        yield "SENSITIVE_USE_LIMITED"
    out = pair({"admt_opt_out"}, set()).bars
    if (
        out
        and request.get("significant_decision", False) is not False
        and at >= when(facts["admt_applies_from"])
    ):
        yield "ADMT_OPTED_OUT"


def _minor_without(subject, givers, at):
    if subject["birth_date"] is None or subject["timezone"] is None:
        return True
    age = age_on(
        date.fromisoformat(subject["birth_date"]), at.astimezone(ZoneInfo(subject["timezone"])).date()
    )
    return age < 16 and givers != {"subject" if age >= 13 else "parent"}
