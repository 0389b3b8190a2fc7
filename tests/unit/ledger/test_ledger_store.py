"""What a ledger says and how it is opened again, wherever it lies."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.open_ledgers import H2, KEY, R2, STEP, D, H, R, opened, reserve

from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code, IntegrityError
from fedgen.ledger import _tally, store
from fedgen.ledger.entries import Admitted, Closed, Opened, Refused, Reserved, Settled
from fedgen.ledger.store import Ledger, Receipt
from fedgen.ledger.verify import verify


def test_entries_stand_in_the_order_they_were_made(ledger: Ledger) -> None:
    ledger.append(Admitted(study_hash=H, run=R, dataset="claims"))
    receipt = reserve(ledger)
    ledger.settle(receipt, D)
    ledger.append(Refused(study_hash=H, run=R, round=2, attempt=1, code="consent"))
    last = ledger.append(Closed(study_hash=H, run=R, outcome="completed", rounds=1))
    kinds = [recorded.entry.kind for recorded in ledger.entries()]
    assert kinds == ["opened", "admitted", "reserved", "settled", "refused", "closed"]
    assert [recorded.index for recorded in ledger.entries(2)] == [2, 3, 4, 5]
    assert ledger.head == last
    assert receipt.index == 2
    settled = list(ledger.entries())[3].entry
    assert settled == Settled(reservation=2, round=1, attempt=1, digest=D)


def test_entries_with_a_verb_of_their_own_are_not_appended(ledger: Ledger) -> None:
    for entry in (
        Opened(origin="x", public_key=D, durable=True),
        Reserved("claims", H, R, 1, 1, STEP, 1),
        Settled(1, 1, 1, D),
    ):
        with pytest.raises(ValueError, match="its own verb"):
            ledger.append(entry)


def test_a_reservation_is_settled_once(ledger: Ledger) -> None:
    receipt = reserve(ledger)
    ledger.settle(receipt, D)
    with pytest.raises(IntegrityError) as caught:
        ledger.settle(receipt, D)
    assert caught.value.code is Code.REPLAYED
    with pytest.raises(IntegrityError, match="no such reservation") as caught:
        ledger.settle(Receipt(77, bytes(32)), D)
    assert caught.value.code is Code.LEDGER


def test_the_last_round_is_the_latest_reserved_one(ledger: Ledger) -> None:
    assert ledger.last_round(H) == 0
    reserve(ledger, 1)
    reserve(ledger, 5)
    reserve(ledger, 5, 2)
    reserve(ledger, 2, 7, run=R2)
    assert ledger.last_round(H) == 5
    assert ledger.last_round(H, R2) == 2
    assert ledger.last_attempt(H, R) == (5, 2)
    assert ledger.last_attempt(H2) == (0, 0)


@pytest.mark.parametrize("durable", [True, False])
def test_a_ledger_closes_and_opens_where_it_was(place: str, *, durable: bool) -> None:
    with opened(place, durable=durable) as ledger:
        receipt = reserve(ledger, 3)
        promise = ledger.checkpoint()
    for forget in (False, True):
        if forget:
            _tally.kept._by_head.clear()
        with opened(place, durable=durable) as ledger:
            assert ledger.head == receipt
            assert ledger.spent("claims") == ((STEP, 4),)
            assert ledger.last_round(H) == 3
            assert ledger.checkpoint() == promise
    with opened(place, durable=durable) as ledger:
        ledger.settle(receipt, D)
    assert verify(place, KEY.verify_key, checkpoint=promise).ok


def test_a_closed_ledger_answers_nothing(ledger: Ledger) -> None:
    ledger.close()
    ledger.close()
    with pytest.raises(ValueError, match="closed"):
        reserve(ledger)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"origin": "clinic"}, "another origin"),
        ({"signing_key": SigningKey.generate()}, "another key"),
        ({"durable": True}, "'simulated: no fsync', not 'durable'"),
    ],
)
def test_a_ledger_of_somebody_else_is_not_opened(place: str, change: dict[str, Any], words: str) -> None:
    opened(place).close()
    with pytest.raises(IntegrityError, match=words) as caught:
        opened(place, **change)
    assert caught.value.code is Code.LEDGER


def test_a_clock_that_goes_backwards_changes_nothing(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        """A clock an hour later at every other look, and an hour earlier at the next."""

        looks = 0

        @classmethod
        def now(cls, _zone: Any) -> datetime:
            cls.looks += 1
            return datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(hours=(-1) ** cls.looks)

    monkeypatch.setattr(store, "datetime", Clock)
    with opened(place) as ledger:
        for round_ in range(1, 5):
            reserve(ledger, round_)
        assert [recorded.index for recorded in ledger.entries()] == [0, 1, 2, 3, 4]
        assert ledger.last_round(H) == 4
    report = verify(place)
    assert report.ok
    assert len(report.warnings) == 2
    assert all(warning.startswith("clock: entry") for warning in report.warnings)


def test_an_entry_that_was_never_committed_was_never_said(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Torn(SigningKey):
        """A key whose holder dies while it signs."""

        def sign(self, label: str, data: Any) -> bytes:
            if self.dies:  # type: ignore[attr-defined]
                raise KeyboardInterrupt
            return super().sign(label, data)

    key = Torn(KEY._key)
    monkeypatch.setattr(Torn, "dies", False, raising=False)
    with opened(place, signing_key=key) as ledger:
        reserve(ledger, 1)
        monkeypatch.setattr(Torn, "dies", True)
        with pytest.raises(KeyboardInterrupt):
            reserve(ledger, 2)
        monkeypatch.setattr(Torn, "dies", False)
        assert ledger.spent("claims") == ((STEP, 4),)
        assert reserve(ledger, 2).index == 2
    assert verify(place, KEY.verify_key).ok
