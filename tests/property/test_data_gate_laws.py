"""From consent events to rows: what passes the gate is what the log permits, row by row."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.data.encoded import EncodedTable
from fedgen.data.gate import permit
from fedgen.errors import Code, Refused
from fedgen.policy.consent import ConsentLog

START = datetime(2026, 1, 1, tzinfo=UTC)
PEOPLE = ("ann", "bob", "cyd", "dan")

event = st.tuples(
    st.sampled_from(PEOPLE),
    st.sampled_from(["train", "care"]),
    st.sampled_from(["granted", "granted", "withdrawn", "objected", "refused"]),
    st.integers(0, 9),
)


def log_of(rows: Any, folder: Any) -> Any:
    lines = [
        f"{who},{why},{what},{(START + timedelta(days=day)).isoformat()}" for who, why, what, day in rows
    ]
    path = Path(folder, "consent.csv")
    path.write_text("\n".join(["subject,purpose,status,recorded_at", *lines]) + "\n")
    return ConsentLog.read(path)


@given(
    st.lists(event, max_size=12),
    st.lists(st.sampled_from([*PEOPLE, "eve"]), min_size=1, max_size=15),
    st.integers(0, 10),
    st.sampled_from(["opt-in", "opt-out"]),
)
@settings(max_examples=150, deadline=None)
def test_what_passes_is_what_the_log_permits(rows: Any, owners: Any, day: Any, regime: Any) -> None:
    """Without a second clock the rule is plain: the last word counts, and of two on one day the no."""
    said = {}
    for who, why, what, when in sorted(rows, key=lambda r: (r[3], r[2] != "granted")):
        if why == "train" and when <= day:
            said[who] = what == "granted"
    expected = [i for i, who in enumerate(owners) if said.get(who, regime == "opt-out")]
    with tempfile.TemporaryDirectory() as folder:
        log = log_of(rows, folder)
    subjects = np.array([who.encode() for who in owners])
    decision = log.decide(subjects, "train", START + timedelta(days=day), regime)
    table = EncodedTable(np.arange(len(owners), dtype=np.uint8)[:, None], subjects)
    assert sum(decision.reasons.values()) + len(expected) == len(owners)
    if not expected:
        with pytest.raises(Refused) as caught:
            permit(table, decision, min_cohort=1)
        assert caught.value.code is Code.CONSENT
        return
    permitted = permit(table, decision, min_cohort=1)
    assert permitted.codes[:, 0].tolist() == expected
    assert permitted.excluded == decision.reasons
