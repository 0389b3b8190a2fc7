"""The log of the consent store: what is written once and for all, by whose clock, and how a change is noticed."""

import hashlib
import itertools
import json
import shutil
import stat
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from support.stores import NOON, TRAIN, Clock, Place, consent, right

from fedgen.errors import ConfigError, DataError, IntegrityError
from fedgen.policy.columns import Action, Right
from fedgen.policy.store import ConsentStore, Head, chain
from fedgen.policy.store.events import ACTIONS, RIGHTS, microseconds_of

ROOT = Path(__file__).resolve().parents[3]
NO_REF = {True: "decode(repeat(chr(48), 32), 'hex')", False: "zeroblob(16)"}
US = timedelta(microseconds=1)
RESTRICTIVE_ACTIONS = {"refused", "withdrawn", "invalidated", "expired"}
PERMISSIVE_RIGHTS = {
    "erasure_request_cancelled", "legal_hold_released", "restriction_lifted", "objection_rejected",
    "opt_in_sale_share", "limit_sensitive_lifted",
}  # fmt: skip


def test_what_was_said_comes_back_as_columns(store: ConsentStore) -> None:
    store.record(
        consent(
            "b", explicit=True, given_by="parent", notice_version=3, valid_until=NOON + timedelta(days=1)
        ),
        consent("a", "withdrawn", purpose="*"),
        right("a", "legal_hold", scope="matter-7", given_by="controller"),
        right("b", "erasure_request", exception="17(3)(b)", given_by=None),
    )
    view = store.columns()
    events, rights = view.consent, view.rights
    assert [events.people[i] for i in events.subject] == [b"b", b"a"]
    assert [events.purposes[i] for i in events.purpose] == [TRAIN, "*"]
    assert events.action.tolist() == [Action.GIVEN, Action.WITHDRAWN]
    assert events.explicit.tolist() == [True, False]
    assert events.notice_version.tolist() == [3, -1]
    assert events.valid_until.tolist() == [microseconds_of(NOON + timedelta(days=1), ""), 2**63 - 1]
    assert set(events.recorded.tolist()) == {microseconds_of(NOON, "")}
    assert [rights.people[i] for i in rights.subject] == [b"a", b"b"]
    assert rights.kind.tolist() == [Right.LEGAL_HOLD, Right.ERASURE_REQUEST]
    assert (rights.scopes, rights.scope.tolist()) == (("matter-7",), [0, -1])
    assert (rights.exceptions, rights.exception.tolist()) == (("17(3)(b)",), [-1, 0])
    assert rights.given_by.tolist() == [4, 0]


def test_the_same_event_again_is_nothing_new(store: ConsentStore) -> None:
    event = consent(event_id="e1")
    first = store.record(event)
    again = store.record(event, event)
    assert (first.added, again.added, again.repeated, again.head) == (1, 0, 2, first.head)
    assert len(store.columns().consent) == 1


@pytest.mark.parametrize(
    "other", [{"subject": "p2"}, {"action": "withdrawn"}, {"explicit": True}, {"method": "call"}]
)
def test_another_event_under_an_id_is_refused_and_nothing_is_added(store: ConsentStore, other: dict) -> None:
    store.record(consent(event_id="e1"))
    before = store.head()
    with pytest.raises(DataError, match="the id stands for another event") as caught:
        store.record(consent("new"), consent(**other, event_id="e1"))
    assert caught.value.key == "event_id"
    assert "e1" not in str(caught.value)
    assert store.head() == before
    with pytest.raises(DataError, match="another event"):
        store.record(consent(event_id="twin"), consent(**other, event_id="twin"))


def test_the_store_sets_the_record_time_and_it_never_goes_back(store: ConsentStore, clock: Clock) -> None:
    for step in (0, 1, -7200, 0, -1):
        clock.go(seconds=step)
        store.record(consent(at=NOON - timedelta(days=1)))
    times = store.columns(2**62).consent.recorded
    assert (np.diff(times) > 0).all()
    assert times[0] == microseconds_of(NOON, "")
    assert times[2] == times[1] + 1


def test_a_withdrawal_is_known_at_once_though_the_clock_went_back(store: ConsentStore, clock: Clock) -> None:
    store.record(consent())
    clock.go(minutes=-4)
    store.withdraw("p1", TRAIN)
    view = store.columns()
    assert view.consent.action.tolist() == [Action.GIVEN, Action.WITHDRAWN]
    assert view.known_at == microseconds_of(NOON, "") + 1


def test_what_is_recorded_later_never_shows_in_an_older_answer(store: ConsentStore, clock: Clock) -> None:
    store.record(consent())
    known = store.now()
    asked = store.columns(known)
    store.record(consent("p2"))  # at the very same microsecond
    again = store.columns(known)
    assert len(asked.consent) == len(again.consent) == 1
    clock.go(hours=-2)
    store.record(consent("p3", at=NOON - timedelta(days=1)))
    assert len(store.columns(known).consent) == 1
    assert len(store.columns(2**62).consent) == 3
    assert len(store.columns(2**62, upto=asked.head).consent) == 1


def test_the_database_computes_the_acting_time(place: Place, store: ConsentStore) -> None:
    shifts = (-3600, -1e-6, 0, 1e-6, 250)
    for action, shift in itertools.product(ACTIONS, shifts):
        store.record(consent(action=action, at=NOON + timedelta(seconds=shift)))
    for kind, shift in itertools.product(RIGHTS, shifts):
        store.record(right(kind=kind, at=NOON + timedelta(seconds=shift)))
    raw = place.raw()
    rows = raw.execute(
        "SELECT action, effective_at, recorded_at, restrictive, acting_at FROM consent_event"
    ).fetchall()
    rows += raw.execute(
        "SELECT kind, effective_at, recorded_at, restrictive, acting_at FROM rights_event"
    ).fetchall()
    raw.close()
    assert len(rows) == len(shifts) * (len(ACTIONS) + len(RIGHTS))
    for word, effective, recorded, restrictive, acting in rows:
        strict = word in RESTRICTIVE_ACTIONS or (word in RIGHTS and word not in PERMISSIVE_RIGHTS)
        assert restrictive == int(strict)
        assert acting == (min if strict else max)(effective, recorded)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE consent_event SET action = 'given'",
        "UPDATE rights_event SET kind = 'objection_rejected'",
        "UPDATE batch SET recorded_at = 0",
        "DELETE FROM consent_event",
        "DELETE FROM rights_event",
        "DELETE FROM batch",
        "DELETE FROM suppression",
        "DELETE FROM erasure_task",
        "UPDATE erasure_task SET done = 1",
        "UPDATE suppression SET tag = 'x'",
        "UPDATE subject_profile SET birth_date = '1900-01-01'",
        "DELETE FROM policy_pack",
    ],
)
def test_triggers_refuse_to_change_what_was_said(place: Place, store: ConsentStore, statement: str) -> None:
    store.record(consent(action="withdrawn"), right())
    store.put_profiles([("p1", "1990-01-01", "DE", None)])
    store.erase("p9")
    store.put_pack("gdpr", "1", "rules")
    before = store.head()
    raw = place.raw()
    with pytest.raises(Exception, match="append-only"):
        raw.execute(statement)
    raw.close()
    assert store.verify() == before


@pytest.mark.parametrize("table", ["consent_event", "rights_event", "batch", "suppression", "decision_round"])
@pytest.mark.postgres
def test_a_table_cannot_be_emptied_in_postgresql(postgres_url: str, tmp_path: Path, table: str) -> None:
    from support.stores import schema_of

    with schema_of(postgres_url, tmp_path) as place, place.open() as store:
        store.record(consent())
        with place.raw() as raw, pytest.raises(Exception, match="append-only"):
            raw.execute(f"TRUNCATE {table}")


def test_no_event_is_put_before_others(place: Place, store: ConsentStore) -> None:
    store.record(consent(event_id="e1"))
    columns = (
        "seq, event_id, subject_ref, purpose, action, explicit, given_by, source, effective_at, recorded_at"
    )
    raw = place.raw()
    for seq, recorded in ((1, 2**60), (2, 1)):
        ref = f"{NO_REF[place.postgresql]}, 't', 'given', 0, 'subject', 'x', 1, {recorded}"
        values = f"{seq}, 'forged', {ref}"
        with pytest.raises(Exception, match="out-of-order"):
            raw.execute(f"INSERT INTO consent_event ({columns}) VALUES ({values})")  # noqa: S608
    raw.close()


def test_replacing_an_event_in_sqlite_is_refused(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "s.db"), tmp_path / "k")
    with place.open() as store:
        store.record(consent(event_id="e1", action="withdrawn"))
        raw = place.raw()
        columns = "seq, event_id, subject_ref, purpose, action, explicit, given_by, source, effective_at, recorded_at"
        with pytest.raises(Exception, match="out-of-order"):
            raw.execute(
                f"INSERT OR REPLACE INTO consent_event ({columns}) "  # noqa: S608
                f"VALUES (9, 'e1', zeroblob(16), 't', 'given', 0, 's', 'x', 1, {2**60})"
            )
        raw.close()


def test_a_change_behind_the_triggers_breaks_the_chain(place: Place, store: ConsentStore) -> None:
    store.record(consent(), consent("p2", "withdrawn"), right())
    store.withdraw("p1", TRAIN)
    assert store.verify().size == 2
    raw = place.raw()
    if place.postgresql:
        raw.execute("ALTER TABLE consent_event DISABLE TRIGGER ALL")
    else:
        raw.execute("DROP TRIGGER consent_event_never_changes")
    raw.execute("UPDATE consent_event SET purpose = 'other' WHERE seq = 2")
    raw.close()
    with pytest.raises(IntegrityError, match="batch 1 does not fit"):
        store.verify()


def test_an_old_copy_is_noticed(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "s.db"), tmp_path / "k")
    with place.open() as store:
        store.record(consent())
    shutil.copy(place.address, tmp_path / "old.db")
    with place.open() as store:
        store.withdraw("p1", TRAIN)
        store.synced("desk")
        seen = store.head()
        assert store.trouble(seen=seen) is None
    shutil.copy(tmp_path / "old.db", place.address)
    with place.open() as store:
        assert not store.extends(seen)
        assert store.trouble(seen=seen) == "STORE_ROLLBACK"
        store.record(consent("p7"))  # as long as before, and another history
        assert store.head().size == seen.size
        assert store.trouble(seen=seen) == "STORE_ROLLBACK"
        assert store.extends(Head(0, bytes(32), 0, 0, 0))


def test_an_open_store_notices_that_it_was_rolled_back(store: ConsentStore) -> None:
    store.record(consent())
    store.columns()
    head = store._cache.head
    assert head is not None
    store._cache.head = head._replace(size=head.size + 1)
    with pytest.raises(IntegrityError, match="STORE_ROLLBACK"):
        store.columns()


def test_a_store_grows_stale_and_distrusts_its_clock(store: ConsentStore, clock: Clock) -> None:
    assert store.trouble() == "CONSENT_STORE_STALE"
    store.synced("desk")
    assert store.last_sync() == NOON
    clock.go(minutes=15)
    assert store.trouble() is None
    clock.at += US
    assert store.trouble() == "CONSENT_STORE_STALE"
    assert store.trouble(stale_after=timedelta(hours=1)) is None
    clock.go(minutes=-20, microseconds=-1)
    assert store.trouble() is None
    clock.at -= US
    assert store.trouble() == "CLOCK_UNTRUSTED"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"at": datetime(2026, 5, 4)}, "effective_at"),  # noqa: DTZ001 -- the point
        ({"at": NOON + timedelta(minutes=5) + US}, "effective_at"),
        ({"action": "granted"}, "action"),
        ({"given_by": "cousin"}, "given_by"),
        ({"subject": ""}, "subject_id"),
        ({"subject": " p1"}, "subject_id"),
        ({"purpose": "*"}, "purpose"),
        ({"purpose": "x" * 300}, "purpose"),
        ({"evidence_sha256": "AA"}, "evidence_sha256"),
        ({"notice_version": -1}, "notice_version"),
        ({"event_id": "a\0b"}, "event_id"),
    ],
)
def test_a_faulty_event_is_refused_by_field(store: ConsentStore, change: dict, key: str) -> None:
    with pytest.raises(DataError) as caught:
        store.record(consent("good"), consent(**change))
    assert caught.value.key == key
    assert store.head().size == 0


def test_five_minutes_ahead_is_accepted(store: ConsentStore) -> None:
    assert store.record(consent(at=NOON + timedelta(minutes=5))).added == 1


def test_files_belong_to_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with ConsentStore.open(path) as store:
        store.record(consent())
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others may read the store"):
        ConsentStore.open(path)
    path.chmod(0o600)
    key = tmp_path / "s.db.key"
    key.chmod(0o604)
    with pytest.raises(ConfigError, match="others may read the store's key"):
        ConsentStore.open(path)
    key.unlink()
    with pytest.raises(ConfigError, match="key file is missing"):
        ConsentStore.open(path)
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    with pytest.raises(IntegrityError, match="another store's"):
        ConsentStore.open(path)


def test_addresses_that_are_none_are_refused(tmp_path: Path) -> None:
    for address in ("mysql://x/y", "sqlite://", "post gres://"):
        with pytest.raises(ConfigError):
            ConsentStore.open(address)
    with pytest.raises(ConfigError, match="no folder"):
        ConsentStore.open(tmp_path / "none" / "s.db")
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"no database at all, but long enough to look like one" * 100)
    junk.chmod(0o600)
    with pytest.raises(IntegrityError, match="damaged"):
        ConsentStore.open(junk)


def test_a_store_of_a_later_version_is_refused(place: Place) -> None:
    place.open().close()
    raw = place.raw()
    raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(ConfigError, match="later version"):
        place.open()


def test_an_open_store_does_not_load_the_migrations(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "s.db"), tmp_path / "k")
    place.open().close()
    program = (
        "import sys; from fedgen.policy.store import ConsentStore\n"
        "ConsentStore.open(sys.argv[1], key=sys.argv[2]).close()\n"
        "print(sorted({'alembic', 'mako', 'torch', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, place.address, str(place.key)],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


APPENDER = """
import sys
from datetime import UTC, datetime
from fedgen.policy.store import ConsentSaid, ConsentStore
with ConsentStore.open(sys.argv[1], key=sys.argv[2]) as store:
    for i in range(40):
        store.record(ConsentSaid(subject_id=f"p{i % 7}", purpose="t", action="given", effective_at=datetime.now(UTC),
                                 event_id=f"{sys.argv[3]}-{i}"))
"""


@pytest.mark.process
def test_processes_take_turns(place: Place) -> None:
    place.open().close()
    workers = [
        subprocess.Popen([sys.executable, "-c", APPENDER, place.address, str(place.key), name], cwd=ROOT)
        for name in ("x", "y")
    ]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    with place.open() as store:
        head = store.verify()
        assert (head.size, head.consent) == (80, 80)
        view = store.columns()
        assert (np.diff(view.consent.recorded) > 0).all()
        assert len(view.subjects) == 7  # the two did not make two people of one


def test_a_reader_sees_what_another_process_added(place: Place) -> None:
    with place.open() as reader, place.open() as writer:
        writer.record(consent())
        assert len(reader.columns().consent) == 1
        writer.record(consent("p2"), right("p3"))
        view = reader.columns()
        assert view.consent.people[view.consent.subject].tolist() == [b"p1", b"p2"]
        assert view.rights.people[view.rights.subject].tolist() == [b"p3"]


def test_events_are_named_by_their_places(store: ConsentStore) -> None:
    store.record(*(consent(f"p{i}", event_id=f"c{i}") for i in range(1200)), right(event_id="r"))
    events = store.columns().consent
    assert len(events.event_id) == 0
    named = store.event_ids("consent", events.seq)
    assert [named[seq] for seq in events.seq.tolist()] == [f"c{i}" for i in range(1200)]
    assert store.event_ids("rights", [1, 99, 1]) == {1: "r"}
    assert store.event_ids("rights", []) == {}
    with pytest.raises(ValueError, match="consent or rights"):
        store.event_ids("batch", [1])  # type: ignore[arg-type]


def test_purposes_that_look_like_places_or_sql_are_only_words(place: Place, store: ConsentStore) -> None:
    words = ["1", "0", "a' THEN 0 --", "?", *(f"w{i}" for i in range(30)), "0", "*", "1"]
    for word in words:  # each in a read of its own: the known words go back to the database as numbers
        store.record(consent(purpose=word, action="withdrawn"))
        events = store.columns().consent
    assert [events.purposes[i] for i in events.purpose] == words
    with place.open() as anew:
        events = anew.columns().consent
        assert [events.purposes[i] for i in events.purpose] == words


def test_the_digest_of_a_batch_is_that_of_its_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is hashed in parts; whoever checks the chain with another program hashes it whole."""
    consents = [(n, 5, "s", f"é{n}", bytes([n]) * 16, "t", None) for n in range(7)]
    others = [(1, 5, "s", 'quo"te', b"", "gpc", None)]
    for left, right_ in ((consents, others), ([], others), (consents, []), ([], [])):
        body = json.dumps(
            [3, 5, 'so"urce', left, right_], default=bytes.hex, ensure_ascii=False, separators=(",", ":")
        )
        whole = hashlib.sha256(b"p" * 32 + body.encode()).digest()
        for size in (1, 3, 7, 100):
            monkeypatch.setattr(chain, "_AT_ONCE", size)
            assert chain.digest_of(b"p" * 32, 3, 5, 'so"urce', left, right_) == whole
