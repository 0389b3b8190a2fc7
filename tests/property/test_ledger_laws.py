import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code, IntegrityError
from fedgen.ledger import _tally
from fedgen.ledger.entries import (
    Admitted,
    Closed,
    Entry,
    Opened,
    Refused,
    Reserved,
    Settled,
    from_body,
    to_body,
)
from fedgen.ledger.store import Ledger
from fedgen.ledger.verify import verify
from fedgen.privacy.events import Composed, Gaussian, Laplace, PoissonGaussian

KEY = SigningKey.generate()
D = "c" * 64
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
TEXT = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=20)
ONE, MANY = st.integers(1, 2**53), st.integers(0, 2**53)
SCALE = st.floats(0.01, 1e6)
SIMPLE = st.one_of(
    st.builds(PoissonGaussian, st.floats(0.0, 1.0, exclude_min=True), SCALE),
    st.builds(Gaussian, SCALE),
    st.builds(Laplace, SCALE),
)
EVENT = SIMPLE | st.lists(st.tuples(SIMPLE, ONE), min_size=1, max_size=3).map(lambda it: Composed(tuple(it)))
ENTRY = st.one_of(
    st.builds(Opened, origin=TEXT, public_key=HEX, durable=st.booleans()),
    st.builds(Admitted, HEX, HEX, TEXT),
    st.builds(Refused, HEX, HEX, MANY, MANY, st.sampled_from([code.value for code in Code])),
    st.builds(Reserved, TEXT, HEX, HEX, ONE, ONE, EVENT, ONE),
    st.builds(Settled, ONE, ONE, ONE, HEX),
    st.builds(Closed, HEX, HEX, st.sampled_from(["completed", "budget", "quorum", "interrupted"]), MANY),
)
TIME = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda it: it.replace(tzinfo=UTC))  # noqa: DTZ001 -- hypothesis wants naive ends


@given(ENTRY, TIME, st.integers(-840, 840))
def test_an_entry_survives_its_bytes(entry: Entry, time: datetime, minutes: int) -> None:
    body = to_body(entry, time)
    assert from_body(body) == (entry, time)
    assert to_body(entry, time.astimezone(timezone(timedelta(minutes=minutes)))) == body


@given(st.binary(max_size=300))
def test_reading_an_entry_never_crashes(body: bytes) -> None:
    with pytest.raises(IntegrityError):
        from_body(body)


@given(ENTRY, TIME, st.data())
def test_a_changed_byte_is_refused_or_means_something_else(entry: Entry, time: datetime, data: Any) -> None:
    body = to_body(entry, time)
    place = data.draw(st.integers(0, len(body) - 1))
    changed = body[:place] + bytes([body[place] ^ data.draw(st.integers(1, 255))]) + body[place + 1 :]
    try:
        other = from_body(changed)
    except IntegrityError:
        return
    assert other != (entry, time)
    assert to_body(*other) == changed


STUDIES, RUNS, SETS = ["1" * 64, "2" * 64], ["3" * 64, "4" * 64], ["claims", "images"]
EVENTS = [PoissonGaussian(0.05, 1.25), Gaussian(8.0)]
ACT = st.tuples(
    st.sampled_from(["reserve", "reserve", "settle", "reopen", "forget", "other"]),
    st.sampled_from(SETS),
    st.sampled_from(STUDIES),
    st.sampled_from(RUNS),
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from(EVENTS),
    st.integers(1, 5),
)


@settings(max_examples=20, deadline=None)
@given(acts=st.lists(ACT, max_size=25))
def test_totals_are_the_sum_of_what_was_reserved_whatever_happens_between(acts: list[Any]) -> None:
    with TemporaryDirectory() as folder:
        play(acts, Path(folder) / "ledger.db")


def play(acts: list[Any], path: Path) -> None:
    """Act on two open ledgers of one file and hold their totals against a plain sum."""

    def opened() -> Ledger:
        return Ledger.open(path, origin="hospital", signing_key=KEY, durable=False)

    ledger, other = opened(), opened()
    receipts: list[Any] = []
    seen: set[Any] = set()
    totals: dict[Any, int] = {}
    for act, dataset, study, run, round_, attempt, event, count in acts:
        if act in {"reserve", "other"}:
            use = ledger if act == "reserve" else other
            charge = (dataset, study, run, round_, attempt, event, count)
            if (study, run, round_, attempt) in seen:
                with pytest.raises(IntegrityError) as caught:
                    use.reserve(*charge, check=lambda _: None)
                assert caught.value.code is Code.REPLAYED
                continue
            receipts.append(use.reserve(*charge, check=lambda _: None))
            seen.add((study, run, round_, attempt))
            totals[dataset, study, event] = totals.get((dataset, study, event), 0) + count
        elif act == "settle" and receipts:
            ledger.settle(receipts.pop(), D)
        else:
            ledger.close()
            if act == "forget":
                _tally.kept._by_head.clear()
            ledger = opened()
    for dataset in SETS:
        for study in STUDIES:
            mine = {event: n for (where, who, event), n in totals.items() if (where, who) == (dataset, study)}
            assert dict(ledger.spent(dataset, study)) == mine
            assert dict(other.spent(dataset, study)) == mine
        assert sum(n for _, n in ledger.spent(dataset)) == sum(
            n for (where, _, _), n in totals.items() if where == dataset
        )
    report = verify(path, KEY.verify_key, checkpoint=other.checkpoint())
    assert report.problems == ()
    assert report.unsettled == len(receipts)
    ledger.close()
    other.close()


@lru_cache(maxsize=1)
def honest() -> bytes:
    """The file of a small honest ledger."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        with Ledger.open(path, origin="hospital", signing_key=KEY, durable=False) as ledger:
            for round_ in range(1, 8):
                receipt = ledger.reserve("claims", D, D, round_, 1, EVENTS[0], 4, check=lambda _: None)
                ledger.settle(receipt, D)
        return path.read_bytes()


def content(path: Path) -> Any:
    """Everything the rows of a file say to somebody who only reads, or None if they cannot be read."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as raw:
            rows = raw.execute("SELECT idx, prev, body, hash, signature FROM entries ORDER BY idx").fetchall()
            return rows, raw.execute("SELECT note, size, head FROM meta").fetchall()
    except (sqlite3.Error, UnicodeDecodeError):
        return None


def reported_or_unchanged(file: bytes) -> bool:
    """Whether a check reports what was done to an honest file, if its rows say anything else now."""
    with TemporaryDirectory() as folder:
        good, bad = Path(folder) / "good.db", Path(folder) / "bad.db"
        good.write_bytes(honest())
        bad.write_bytes(file)
        return not verify(bad, KEY.verify_key).ok or content(bad) == content(good)


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_in_the_file_is_reported_or_changes_nothing(place: float, bit: int) -> None:
    spot = int(place * len(honest()))
    flipped = bytes([honest()[spot] ^ (1 << bit)])
    assert reported_or_unchanged(honest()[:spot] + flipped + honest()[spot + 1 :])


@settings(max_examples=60, deadline=None)
@given(size=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_reported_or_loses_nothing(size: float) -> None:
    assert reported_or_unchanged(honest()[: int(size * len(honest()))])


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), junk=st.binary(min_size=1, max_size=64))
def test_junk_anywhere_in_the_file_is_reported_or_changes_nothing(place: float, junk: bytes) -> None:
    spot = int(place * len(honest()))
    assert reported_or_unchanged(honest()[:spot] + junk + honest()[spot + len(junk) :])
