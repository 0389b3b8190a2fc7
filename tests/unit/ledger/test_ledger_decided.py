"""What packs decided, in the ledger: once for each attempt and check, closed in form, and old ledgers stay readable."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from fedgen.crypto.keys import SigningKey
from fedgen.errors import IntegrityError
from fedgen.ledger.entries import Decided, from_body, to_body
from fedgen.ledger.store import Ledger
from fedgen.ledger.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ENTRY = Decided(
    study_hash="1" * 64,
    run="2" * 64,
    round=3,
    attempt=1,
    check="load",
    revoked=0,
    asked_at=1_780_000_000_000_000,
    known_at=1_780_000_000_000_000,
    store_batches=2,
    store_digest="3" * 64,
    store_consent=40,
    store_rights=1,
    purpose="train_generator",
    operation="train",
    destination="",
    packs=(("gdpr", "gdpr", "gdpr-2026.11", "4" * 64),),
    engine="fedgen-engine/1",
    considered=40,
    allowed=38,
    reasons=(("ALLOW", 38), ("CONSENT_WITHDRAWN", 2)),
    mask="5" * 64,
)


def test_an_entry_is_read_back_as_it_was_written() -> None:
    assert from_body(to_body(ENTRY, NOW)) == (ENTRY, NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"round": 0},
        {"check": "later"},
        {"revoked": -1},
        {"mask": "5" * 63},
        {"packs": (("gdpr", "gdpr", "1", "no digest"),)},
        {"reasons": (("ALLOW", 38),)},
        {"allowed": 41},
        {"asked_at": 1.5},
        {"purpose": ""},
    ],
)
def test_what_contradicts_itself_is_no_entry(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|whole"):
        replace(ENTRY, **change)


def test_a_body_that_merely_means_the_same_is_refused() -> None:
    body = to_body(ENTRY, NOW)
    with pytest.raises(IntegrityError):
        from_body(body.replace(b'"revoked":0', b'"revoked":0.0'))
    with pytest.raises(IntegrityError):
        from_body(body.replace(b'[["ALLOW",38]', b'[["ALLOW",38,1]'))


def test_a_decision_is_written_once_for_each_attempt_and_check(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path, origin="test", signing_key=SigningKey.generate(), durable=False) as ledger:
        assert ledger.decided(ENTRY) is not None
        assert ledger.decided(ENTRY) is None
        assert ledger.decided(replace(ENTRY, allowed=37)) is None
        assert ledger.decided(replace(ENTRY, check="sum", revoked=1)) is not None
        assert ledger.decided(replace(ENTRY, attempt=2)) is not None
        with pytest.raises(ValueError, match="own verb"):
            ledger.append(ENTRY)
        assert [it.entry.kind for it in ledger.entries()] == ["opened", "decided", "decided", "decided"]
    assert verify(path).ok
