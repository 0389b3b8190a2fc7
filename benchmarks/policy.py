"""The policy module: what it costs to decide a table before a round, and to say what was decided.

``python benchmarks/policy.py [--json] [--quick]``

One million records of one million people, 2.4 million consent events and 100,000 rights events, two laws with every
rule of their packs on. The request asks for all that costs: a sale, an information-society service, a significant
decision. Bytes per record are the peak that a decision allocates, beside the columns it reads. One case is a fresh
Python process from start to end, wall time. Other figures are the least of several wall times on one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["OMP_NUM_THREADS"] = "1"
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import numpy as np  # noqa: E402
from common import Target, options, publish  # noqa: E402 - a sibling file, run as a script
from policy_store import store_rows  # noqa: E402 - another one

from fedgen.policy.columns import (  # noqa: E402
    NEVER,
    NULL,
    ConsentEvents,
    Destination,
    Records,
    Request,
    RightsEvents,
    Subjects,
)
from fedgen.policy.engine import decide  # noqa: E402
from fedgen.policy.evidence import leaf_sha256, round_summary  # noqa: E402
from fedgen.policy.packs import load_packs  # noqa: E402
from fedgen.policy.standing import stand  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDS, EVENTS, RIGHTS = 1_000_000, 2_400_000, 100_000
LAWS = ("gdpr", "ccpa")
AT = 1_777_885_200_000_000
DAY = 86_400_000_000
CASE = {
    "id": "one", "law": list(LAWS),
    "subject": {"subject_id": "s-1", "birth_date": "1984-03-09", "residence": "DE", "timezone": "Europe/Berlin"},
    "consent_events": [
        {
            "event_id": "e1", "subject_id": "s-1", "purpose": "train_generator", "action": "given",
            "given_by": "subject",
            "notice_version": 3, "effective_at": "2026-01-10T09:00:00+01:00",
            "recorded_at": "2026-01-10T09:00:00+01:00",
        }
    ],
    "rights_events": [],
    "record": {
        "record_id": "r", "subject_id": "s-1", "type": "record", "collected_at": "2025-12-01T10:00:00+01:00",
        "retention_rule": "default", "legal_basis": "consent", "collected_for": ["train_generator"], "categories": [],
        "special_categories": [],
    },
    "request": {
        "purpose": "train_generator", "operation": "train", "time": "2026-05-04T11:00:00+02:00",
        "destination": {"country": "DE", "safeguards": []},
    },
}  # fmt: skip


def consents(people: Any, m: int, rng: np.random.Generator) -> ConsentEvents:
    """Return consent events of every kind, crowded over two years."""
    size = len(people)
    return ConsentEvents(
        people=people,
        purposes=("service_analytics", "train_generator"),
        subject=rng.integers(0, size, m),
        purpose=(rng.random(m) < 0.8).astype(np.int64),
        action=rng.choice(np.array([0, 0, 0, 0, 1, 4, 5], dtype=np.uint8), m),
        explicit=rng.random(m) < 0.3,
        given_by=rng.integers(1, 3, m).astype(np.uint8),
        notice_version=rng.choice(np.array([3, 3, 4, 2], dtype=np.int32), m),
        effective=AT - rng.integers(-DAY, 600 * DAY, m),
        recorded=AT - rng.integers(-DAY, 600 * DAY, m),
        valid_until=np.where(rng.random(m) < 0.5, NEVER, AT + rng.integers(-100 * DAY, 900 * DAY, m)),
        seq=np.arange(m),
        event_id=np.zeros(0, dtype="S1"),
    )


def rights(people: Any, m: int, rng: np.random.Generator) -> RightsEvents:
    """Return rights events of every kind."""
    return RightsEvents(
        people=people,
        scopes=("m-1", "m-2"),
        exceptions=("17(3)(b)",),
        subject=rng.integers(0, len(people), m),
        kind=rng.integers(0, 14, m).astype(np.uint8),
        scope=rng.integers(NULL, 2, m).astype(np.int32),
        exception=np.where(rng.random(m) < 0.2, 0, NULL).astype(np.int32),
        given_by=np.ones(m, dtype=np.uint8),
        after_conflict_notice=rng.random(m) < 0.5,
        effective=AT - rng.integers(0, 600 * DAY, m),
        recorded=AT - rng.integers(0, 600 * DAY, m),
        seq=np.arange(m),
        event_id=np.zeros(0, dtype="S1"),
    )


def subjects(people: Any, rng: np.random.Generator) -> Subjects:
    """Return profiles of all ages in three countries and two zones."""
    size = len(people)
    return Subjects(
        people=people,
        countries=("DE", "DK", "US"),
        zones=("Europe/Berlin", "America/Los_Angeles"),
        birth_day=rng.integers(-15_000, 18_000, size).astype(np.int32),
        residence=rng.integers(0, 3, size).astype(np.int16),
        zone=rng.integers(0, 2, size).astype(np.int16),
        ambiguous=np.zeros(size, dtype=bool),
        malformed=np.zeros(size, dtype=bool),
        alias=np.zeros(0, dtype="S1"),
        alias_of=np.zeros(0, dtype=np.int64),
    )


def table(people: Any, n: int, rng: np.random.Generator) -> Records:
    """Return records in the order of nobody, a quarter on another basis than consent."""
    plain = Records.plain(
        people,
        rng.permutation(len(people)),
        collected_at=AT - rng.integers(0, 1000 * DAY, n),
        collected_for=frozenset({"train_generator"}),
    )
    return replace(
        plain,
        basis=rng.choice(np.array([1, 1, 1, 6], dtype=np.uint8), n),
        sensitive=rng.integers(0, 3, n).astype(np.uint8),
    )


def least(work: Callable[[], object], times: int) -> float:
    """Return the least wall seconds of some runs."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def one_case(times: int) -> float:
    """Return the least wall seconds of deciding one case in a fresh process."""
    code = (
        "import json, sys\n"
        "from fedgen.policy.cases import decide_cases\n"
        "from fedgen.policy.packs import load_packs\n"
        "print(json.dumps(decide_cases(json.load(sys.stdin), load_packs(['gdpr', 'ccpa']))))"
    )
    text = json.dumps(CASE)

    def work() -> None:
        done = subprocess.run(
            [sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True
        )
        if json.loads(done.stdout)[0]["reason_code"] != "ALLOW":
            raise RuntimeError("the case is not allowed: this measures something else")

    return least(work, times)


def engine_rows(*, quick: bool) -> tuple[list[dict[str, Any]], list[Target]]:
    """Return the rows and promises of the engine."""
    scale = 10 if quick else 1
    n, rng = RECORDS // scale, np.random.default_rng(20261121)
    people = np.array([b"p%08d" % number for number in range(n)])
    events, claims = consents(people, EVENTS // scale, rng), rights(people, RIGHTS // scale, rng)
    profiles, rows = subjects(people, rng), table(people, n, rng)
    request = Request(
        "train_generator",
        "train",
        AT,
        destination=Destination("DE"),
        is_sale_or_share=True,
        information_society_service=True,
        significant_decision=True,
    )
    packs, times = load_packs(LAWS), 3 if quick else 5
    standing = stand(people, events, claims, profiles, request)
    decision = decide(rows, standing, request, packs)

    def evidence() -> None:
        leaf_sha256(
            round_summary(
                decision, run_uid="r", round_=1, client_ref="a", decided_at=AT, store_head_seq=EVENTS
            )
        )

    folded = least(lambda: stand(people, events, claims, profiles, request), times)
    decided = least(lambda: decide(rows, standing, request, packs), times)
    told = least(evidence, times)
    tracemalloc.start()
    decide(rows, standing, request, packs)
    peak = tracemalloc.get_traced_memory()[1] / n
    tracemalloc.stop()
    alone = one_case(times)
    rules = sum(len(said.rules) for said in decision.laws)
    shown = [
        {
            "work": f"decide {n:,} records, {rules} rules, two laws",
            "seconds": decided,
            "bytes a record": peak,
        },
        {"work": f"fold {len(events):,} consent and {len(claims):,} rights events", "seconds": folded},
        {"work": "evidence of a round", "seconds": told},
        {"work": "one case, a fresh process", "seconds": alone},
    ]
    targets = [
        Target(
            "seconds to decide a million records under two laws, at most", 0.5, decided * scale, at_most=True
        ),
        Target("bytes a record, at most", 300, peak, at_most=True),
        Target("rules, at least", 17, rules),
        Target("seconds to fold 2.4 million events, at most", 1.5, folded * scale, at_most=True),
        Target(
            "milliseconds for a round's evidence per million records, at most",
            50,
            1000 * told * scale,
            at_most=True,
        ),
        Target("seconds for one case with start-up, at most", 1.0, alone, at_most=True),
    ]
    return shown, targets


def main() -> int:
    """Measure and print."""
    chosen = options(__doc__).parse_args()
    rows, targets = engine_rows(quick=chosen.quick)
    more_rows, more_targets = store_rows(quick=chosen.quick)
    return publish("policy", rows + more_rows, targets + more_targets, as_json=chosen.json)


if __name__ == "__main__":
    raise SystemExit(main())
