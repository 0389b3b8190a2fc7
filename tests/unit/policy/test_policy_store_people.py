"""People in the consent store: pseudonyms, profiles, aliases, and what an erasure leaves behind."""

import sqlite3
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from support.stores import NOON, TRAIN, Clock, Place, consent, right

from fedgen.errors import DataError
from fedgen.policy.columns import NO_DAY, Right
from fedgen.policy.store import ConsentStore, import_file
from fedgen.policy.store.secret import Secret, subject_ref

NAME = "patient-4711-of-the-north-wing"


def everything(place: Place) -> str:
    """Return every value of every table, as text."""
    raw = place.raw()
    if place.postgresql:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    else:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    tables = [row[0] for row in raw.execute(query).fetchall()]
    text = repr([raw.execute(f"SELECT * FROM {table}").fetchall() for table in tables])  # noqa: S608
    raw.close()
    return text


def test_events_know_people_by_a_pseudonym_of_their_own(place: Place, store: ConsentStore) -> None:
    store.record(consent(NAME), consent("other"), right(NAME))
    raw = place.raw()
    refs = [
        bytes(row[0]) for row in raw.execute("SELECT subject_ref FROM consent_event ORDER BY seq").fetchall()
    ]
    salts = [
        bytes(row[0]) for row in raw.execute("SELECT salt FROM subject_salt ORDER BY subject_id").fetchall()
    ]
    right_ref = bytes(raw.execute("SELECT subject_ref FROM rights_event").fetchone()[0])
    events = repr(raw.execute("SELECT * FROM consent_event").fetchall())
    raw.close()
    assert refs[0] == right_ref == subject_ref(salts[1], NAME)
    assert refs[0] != refs[1] != subject_ref(salts[1], "other")
    assert len(set(salts)) == 2
    assert NAME not in events


def test_an_erasure_leaves_neither_salt_nor_profile(place: Place, store: ConsentStore) -> None:
    store.record(consent(NAME), consent("other"), right(NAME))
    store.put_profiles([(NAME, "1990-02-28", "DE", "Europe/Berlin"), ("other", None, "FR", None)])
    store.put_alias("old-number-of-4711", NAME)
    store.put_records([{"record_id": "r1", "subject_id": NAME}, {"record_id": "r2", "subject_id": "other"}])
    raw = place.raw()
    salt = bytes(raw.execute(f"SELECT salt FROM subject_salt WHERE subject_id = '{NAME}'").fetchone()[0])  # noqa: S608
    raw.close()
    before = store.head()
    done = store.erase(NAME)
    assert done.rows == {"subject_salt": 1, "subject_profile": 1, "subject_alias": 1, "record_meta": 1}
    left = everything(place)
    for trace in (NAME, "old-number-of-4711", "1990-02-28", repr(salt)[2:-1]):
        assert trace not in left
    assert store.head() == before == store.verify()  # the log still fits
    view = store.columns()
    assert view.subjects.people.tolist() == [b"other"]
    assert [view.consent.people[i] for i in view.consent.subject] == [b"other"]
    assert len(view.rights) == 0
    assert store.records()[0] == ("r2",)
    assert [(t["target"], t["method"]) for t in store.tasks()] == [("consent-store", "deleted")]


def test_the_bytes_of_a_salt_are_gone_from_a_sqlite_file(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "s.db"), tmp_path / "k")
    with place.open() as store:
        store.record(*(consent(f"{NAME}-{i}") for i in range(300)))
        raw = sqlite3.connect(place.address)
        salt = raw.execute(f"SELECT salt FROM subject_salt WHERE subject_id = '{NAME}-7'").fetchone()[0]  # noqa: S608
        raw.close()

        def found() -> bool:
            return any(salt in file.read_bytes() for file in tmp_path.glob("s.db*"))

        assert found()
        store.erase(f"{NAME}-7")
        assert not found()
        assert not any(f"{NAME}-7\0".encode() in file.read_bytes() for file in tmp_path.glob("s.db*"))


def test_the_pseudonym_cannot_be_computed_again(place: Place, store: ConsentStore) -> None:
    store.record(consent(NAME))
    raw = place.raw()
    ref = bytes(raw.execute("SELECT subject_ref FROM consent_event").fetchone()[0])
    store.erase(NAME)
    assert store.readmit(NAME)
    store.record(consent(NAME))
    refs = [
        bytes(row[0]) for row in raw.execute("SELECT subject_ref FROM consent_event ORDER BY seq").fetchall()
    ]
    salt = bytes(raw.execute("SELECT salt FROM subject_salt").fetchone()[0])
    raw.close()
    assert refs[0] == ref != refs[1] == subject_ref(salt, NAME)
    assert len(store.columns().consent) == 1  # who came back begins anew
    key = Secret.load(place.key, create=False)
    assert key.tag(NAME)[:32] not in {ref.hex(), refs[1].hex()}  # a tombstone does not lead to the events


def test_a_tombstone_keeps_a_person_out(place: Place, store: ConsentStore, tmp_path: Path) -> None:
    store.record(consent(NAME, event_id="e1"), consent("other"))
    store.put_alias("alias-1", NAME)
    store.erase("alias-1")  # any of a person's names will do
    for name in (NAME, "alias-1"):
        taken = store.record(consent(name, event_id="e1"), right(name))
        assert (taken.added, taken.suppressed) == (0, 2)
    assert store.put_profiles([(NAME, "1990-01-01", None, None)]) == 1
    assert store.put_records([{"record_id": "r1", "subject_id": NAME}]) == 1
    file = tmp_path / "again.csv"
    file.write_text(
        "event_id,subject_id,purpose,action,effective_at\n"
        f"i1,{NAME},t,given,2026-01-01T00:00:00Z\ni2,other,t,given,2026-01-01T00:00:00Z\n"
    )
    done = import_file(store, file)
    assert (done.added, done.suppressed) == (1, 1)
    assert NAME not in everything(place)
    assert store.readmit(NAME)
    assert not store.readmit(NAME)
    assert store.record(consent(NAME)).added == 1
    store.erase(NAME)
    assert store.record(consent(NAME)).suppressed == 1


def test_erasing_twice_or_a_stranger_changes_nothing_more(place: Place, store: ConsentStore) -> None:
    store.erase("stranger")
    store.erase("stranger")
    assert store.record(consent("stranger")).suppressed == 1
    raw = place.raw()
    assert raw.execute("SELECT count(*) FROM suppression").fetchone()[0] == 1
    raw.close()


def test_a_person_in_a_restored_table_has_an_erasure_request(store: ConsentStore, clock: Clock) -> None:
    store.record(consent(NAME), consent("other"))
    before = store.now()
    clock.go(hours=1)
    store.erase(NAME)
    table = np.array([b"other", NAME.encode(), b"somebody"])
    rights = store.columns(subjects=table).rights
    assert [rights.people[i] for i in rights.subject] == [NAME.encode()]
    assert rights.kind.tolist() == [Right.ERASURE_REQUEST]
    assert len(store.columns(before, subjects=table).rights) == 0
    store.readmit(NAME)
    store.record(consent(NAME, at=NOON))
    assert len(store.columns(subjects=table).rights) == 0


def test_only_the_people_of_a_table_are_given(store: ConsentStore) -> None:
    store.record(consent("a"), consent("b"), right("c"), right("a"))
    view = store.columns(subjects=np.array([b"a", b"zz"]))
    assert view.consent.people[view.consent.subject].tolist() == [b"a"]
    assert view.rights.people[view.rights.subject].tolist() == [b"a"]


def test_numbers_of_people_are_never_given_twice(place: Place, store: ConsentStore) -> None:
    store.record(consent("a"), consent("b"))
    store.erase("b")
    store.record(consent("c"))
    raw = place.raw()
    assert raw.execute("SELECT seq FROM subject_salt ORDER BY seq").fetchall() == [(1,), (3,)]
    raw.close()


def test_profiles_have_versions_and_two_birth_dates_are_two_people(store: ConsentStore, clock: Clock) -> None:
    store.put_profiles(
        [("a", "1990-01-01", "DE", None), ("b", "2001-12-31", None, "Europe/Paris"), ("c", None, None, None)]
    )
    first = store.now()
    clock.go(hours=1)
    store.put_profiles([("a", "1990-01-02", "FR", None), ("b", "2001-12-31", "ES", None)])
    clock.go(hours=1)
    store.put_profiles([("b", "2002-12-31", None, None)], corrects=True)
    now, then = store.columns().subjects, store.columns(first).subjects
    assert now.people.tolist() == [b"a", b"b", b"c"]
    assert now.ambiguous.tolist() == [True, False, False]
    assert then.ambiguous.tolist() == [False, False, False]
    days = (np.array(["1990-01-01", "2001-12-31", "2002-12-31"], "datetime64[D]").astype(int)).tolist()
    assert then.birth_day.tolist() == [days[0], days[1], NO_DAY]
    assert now.birth_day.tolist()[1:] == [days[2], NO_DAY]
    assert [now.countries[i] if i >= 0 else None for i in now.residence] == ["FR", "ES", None]
    assert [then.countries[i] if i >= 0 else None for i in then.residence] == ["DE", None, None]
    assert now.zones == ("Europe/Paris",)


def test_an_alias_stands_for_one_person(store: ConsentStore) -> None:
    store.put_alias("x", "a")
    store.put_alias("x", "a")
    store.record(consent("x"), consent("b"))
    view = store.columns()
    assert view.consent.people[view.consent.subject].tolist() == [b"a", b"b"]
    assert (view.subjects.alias.tolist(), view.subjects.alias_of.tolist()) == ([b"x"], [0])
    for alias, person in (("x", "b"), ("b", "a")):
        with pytest.raises(DataError, match="stands for another person"):
            store.put_alias(alias, person)


def test_records_have_versions_too(store: ConsentStore, clock: Clock) -> None:
    facts = {
        "record_id": "r1",
        "subject_id": "a",
        "legal_basis": "consent",
        "collected_for": ["t"],
        "collected_at": 7,
    }
    store.put_records([facts, {"record_id": "r0", "subject_id": "b", "special_categories": ["health"]}])
    first = store.now()
    clock.go(hours=1)
    deidentified = {"reasonable_measures": True, "public_commitment": True, "contractual_no_reid": True}
    store.put_records(
        [facts | {"deidentified": deidentified, "inaccurate": True, "legal_basis": "no such basis"}]
    )
    ids, now = store.records()
    _, then = store.records(first)
    assert ids == ("r0", "r1")
    assert now.people[now.subject].tolist() == [b"b", b"a"]
    assert (then.deidentified.tolist(), now.deidentified.tolist()) == ([False, False], [False, True])
    assert now.inaccurate.tolist() == [False, True]
    assert (then.basis.tolist(), now.basis.tolist()) == ([0, 1], [0, 255])
    assert [now.purpose_sets[i] for i in now.collected_for] == [frozenset(), frozenset({"t"})]
    assert [now.category_sets[i][1] for i in now.categories] == [frozenset({"health"}), frozenset()]
    assert now.collected_at.tolist() == [2**63 - 1, 7]


def test_an_empty_store_answers(store: ConsentStore) -> None:
    view = store.columns(subjects=np.array([b"a"]))
    assert (len(view.consent), len(view.rights), len(view.subjects), view.head.size) == (0, 0, 0, 0)
    assert len(store.records()[1]) == 0


def test_evidence_is_kept_once(store: ConsentStore) -> None:
    assert store.put_pack("gdpr", "1", "rules") == store.put_pack("gdpr", "1", "rules")
    assert store.pack("gdpr", "1") == "rules"
    with pytest.raises(DataError, match="another content"):
        store.put_pack("gdpr", "1", "other rules")
    said = {
        "run_uid": "r", "round_number": 3, "attempt": 1, "client_ref": "c", "known_at": 5, "store_head_seq": 0,
        "mask_sha256": "ab",
    }  # fmt: skip
    store.put_round(**said, summary={"n": 1})
    store.put_round(**said, summary={"n": 1})
    assert store.rounds("r") == [{"n": 1}]
    with pytest.raises(DataError, match="decided otherwise"):
        store.put_round(**said, summary={"n": 2})
    store.put_artefact("c1", "checkpoint", created_at=1, retain_until=9, rounds=("r/1",))
    store.put_artefact("c2", "checkpoint", created_at=2, retain_until=9, parents=("c1",), rounds=("r/2",))
    store.put_artefact("s1", "synthetic_release", created_at=3, retain_until=None, parents=("c2",))
    assert store.lineage("s1") == {"r/1", "r/2"}
    store.set_artefact("s1", state="withdrawn", anonymity_ref="a-1")
    assert [(a["sha256"], a["state"]) for a in store.artefacts()] == [
        ("c1", "live"), ("c2", "live"), ("s1", "withdrawn"),
    ]  # fmt: skip
    task = store.open_task("s1", "ARTEFACT_LINEAGE_REVOKED", due=4)
    assert [t["seq"] for t in store.tasks(open_only=True)] == [task]
    store.close_task(task, method="recalled", evidence="mail-7")
    assert store.tasks(open_only=True) == []
    with pytest.raises(DataError):
        store.close_task(task, method="again", evidence="")


def test_a_withdrawal_names_its_hour(store: ConsentStore) -> None:
    store.withdraw("a", TRAIN, at=NOON - timedelta(days=2), event_id="w1", method="phone")
    assert (
        store.withdraw("a", TRAIN, at=NOON - timedelta(days=2), event_id="w1", method="phone").repeated == 1
    )
    assert store.columns().consent.effective.tolist() == [store.now() - 2 * 86_400_000_000]


@pytest.mark.parametrize("birth", ["", "1990-02-30", "19900101", "yesterday"])
def test_a_birth_date_that_is_none_is_refused_on_the_way_in(store: ConsentStore, birth: str) -> None:
    with pytest.raises(DataError, match="not a date") as caught:
        store.put_profiles([("a", "1990-01-01", None, None), ("b", birth, None, None)])
    assert caught.value.key == "birth_date"
    assert len(store.columns().subjects) == 0
