import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from fedgen.errors import Code, IntegrityError
from fedgen.ledger.entries import (
    MAX_BODY,
    Admitted,
    Closed,
    Entry,
    Opened,
    Refused,
    Reserved,
    Settled,
    entry_digest,
    entry_hash,
    from_body,
    to_body,
)
from fedgen.messages import canonical
from fedgen.privacy.events import PoissonGaussian

H, R, D = "a" * 64, "b" * 64, "c" * 64
NOW = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
ENTRIES: list[Entry] = [
    Opened(origin="hospital-é", public_key=D, durable=True),
    Admitted(study_hash=H, run=R, dataset="claims"),
    Refused(study_hash=H, run=R, round=0, attempt=0, code="budget"),
    Reserved("claims", H, R, 3, 1, PoissonGaussian(0.05, 1.25), 4),
    Reserved("claims", H, R, 3, 1, PoissonGaussian(0.05, 1.25), 4, "person"),
    Reserved("claims", H, R, 3, 1, PoissonGaussian(0.05, 1.25), 4, "site"),
    Settled(reservation=2, round=3, attempt=1, digest=D),
    Closed(study_hash=H, run=R, outcome="completed", rounds=9),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.kind)
def test_an_entry_survives_its_bytes(entry: Entry) -> None:
    body = to_body(entry, NOW)
    assert from_body(body) == (entry, NOW)
    assert to_body(*from_body(body)) == body


def test_a_charge_per_record_has_the_bytes_it_had_before_there_was_a_choice() -> None:
    plain = json.loads(to_body(ENTRIES[3], NOW))
    assert set(plain) == {
        "attempt", "count", "dataset", "entry", "event", "round", "run", "study_hash", "time",
    }  # fmt: skip
    read = from_body(canonical(plain))[0]
    assert isinstance(read, Reserved)
    assert read.unit == "record"
    person = to_body(ENTRIES[4], NOW)
    assert json.loads(person) == {**plain, "unit": "person"}


@pytest.mark.parametrize("unit", ["record", "household", "", None, 1, [], "PERSON"])
def test_a_unit_that_is_none_or_said_without_need_is_refused(unit: Any) -> None:
    values = json.loads(to_body(ENTRIES[3], NOW))
    with pytest.raises(IntegrityError) as caught:
        from_body(canonical({**values, "unit": unit}))
    assert caught.value.code is Code.LEDGER


def test_time_is_kept_in_utc_to_the_microsecond() -> None:
    local = NOW.astimezone(timezone(timedelta(hours=-7, minutes=30)))
    assert to_body(ENTRIES[0], local) == to_body(ENTRIES[0], NOW)
    assert b'"time":"2026-01-31T12:00:00.250000Z"' in to_body(ENTRIES[0], NOW)
    assert b'"time":"2026-01-31T12:00:00.000000Z"' in to_body(ENTRIES[0], NOW.replace(microsecond=0))


def test_the_digest_covers_what_it_follows_its_index_and_every_byte() -> None:
    body = to_body(ENTRIES[3], NOW)
    base = entry_digest(bytes(32), 3, body)
    assert len(base) == 32
    assert base != entry_digest(b"\1" + bytes(31), 3, body)
    assert base != entry_digest(bytes(32), 4, body)
    assert all(
        base != entry_digest(bytes(32), 3, body[:i] + bytes([byte ^ 1]) + body[i + 1 :])
        for i, byte in enumerate(body)
    )


def test_the_hash_covers_the_signature_too() -> None:
    assert len(entry_hash(bytes(32), bytes(64))) == 32
    assert entry_hash(bytes(32), bytes(64)) != entry_hash(bytes(32), bytes(63) + b"\1")
    assert entry_hash(bytes(32), bytes(64)) != entry_hash(bytes(31) + b"\1", bytes(64))


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (Opened, {"origin": ""}),
        (Opened, {"origin": "x" * 257}),
        (Opened, {"origin": "two\nlines"}),
        (Opened, {"public_key": "AB" * 32}),
        (Opened, {"durable": 1}),
        (Opened, {"format": 0}),
        (Admitted, {"study_hash": "a" * 63}),
        (Admitted, {"run": ""}),
        (Admitted, {"dataset": 7}),
        (Refused, {"round": -1}),
        (Refused, {"code": "because"}),
        (Reserved, {"round": 0}),
        (Reserved, {"attempt": 0}),
        (Reserved, {"attempt": True}),
        (Reserved, {"count": 0}),
        (Reserved, {"count": 2**53 + 1}),
        (Settled, {"reservation": 0}),
        (Settled, {"digest": "c" * 65}),
        (Closed, {"outcome": "fine"}),
        (Closed, {"rounds": 1.5}),
    ],
)
def test_an_entry_with_a_field_out_of_range_cannot_be_made(make: Any, fields: dict[str, Any]) -> None:
    good = next(entry for entry in ENTRIES if isinstance(entry, make))
    values = {name: getattr(good, name) for name in make.__slots__}
    with pytest.raises(ValueError, match=r"must be|Code"):
        make(**{**values, **fields})


def body_with(**changed: Any) -> bytes:
    values = json.loads(to_body(ENTRIES[3], NOW))
    values.update(changed)
    return canonical({name: value for name, value in values.items() if value is not None})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b'{"entry":"reserved"}',
        body_with(entry="resurrected"),
        body_with(entry=["reserved"]),
        body_with(more=1),
        body_with(count=None),
        body_with(time="yesterday"),
        body_with(time="2026-01-31T12:00:00Z"),
        body_with(time="2026-01-31T13:00:00.250000+01:00"),
        body_with(time=7),
        body_with(event={"kind": "gaussian"}),
        body_with(event=None),
        body_with(event={"kind": "gaussian", "sigma": 2}),  # an integer where the canonical form has 2.0
        to_body(ENTRIES[3], NOW) + b" ",
        json.dumps(json.loads(to_body(ENTRIES[3], NOW))).encode(),
        to_body(ENTRIES[0], NOW).replace("é".encode(), b"\\u00e9"),
        b"[" * 100_000,
        b'"' + b"x" * MAX_BODY + b'"',
    ],
)
def test_only_the_canonical_bytes_of_an_entry_are_read(body: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        from_body(body)
    assert caught.value.code is Code.LEDGER
