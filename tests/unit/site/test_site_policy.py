"""A site's desk: packs decide from the store, nothing is folded twice, and what cannot be trusted denies every row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.federation import small_rows
from support.policy import NOW, Guarded, small_pack

import fedgen.site.policy as module
from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code, IntegrityError, Refused
from fedgen.policy.packs import load_packs, sign_pack
from fedgen.policy.store import ConsentStore
from fedgen.policy.store.rehearsal import bring, read_script

if TYPE_CHECKING:
    from pathlib import Path

PURPOSE = "train_generator"


def _decide(desk: Any, at: Any = NOW, table: Any = None, number: int = 1) -> Any:
    return desk.decide(small_rows() if table is None else table, PURPOSE, at, number)


def test_packs_decide_per_record_and_the_counts_sum(tmp_path: Path) -> None:
    held = Guarded(tmp_path, people=30)
    held.withdraw(0, 1)
    found = _decide(held.desk())
    assert np.flatnonzero(found.permitted).tolist() == list(range(2, 30))
    assert found.reasons == {"consent-withdrawn": 2, "consent-missing": 10}
    assert dict(found.ruling.counts) == {"ALLOW": 28, "CONSENT_WITHDRAWN": 2, "CONSENT_MISSING": 10}
    assert [law for law, *_ in found.ruling.packs] == ["ccpa", "gdpr"]


def test_the_same_question_is_answered_from_memory_and_a_new_event_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, folds = Guarded(tmp_path), []
    real = module.stand
    monkeypatch.setattr(module, "stand", lambda *a: folds.append(1) or real(*a))
    desk, table = held.desk(), small_rows()
    first = _decide(desk, table=table)
    for second in range(1, 60):
        held.clock.go(seconds=1)
        again = _decide(desk, held.clock.at, table, second)
    assert (len(folds), again.ruling.mask) == (1, first.ruling.mask)
    assert again.ruling.time > first.ruling.time
    held.withdraw(3)
    assert not _decide(desk, held.clock.at, table).permitted[3]
    held.store.put_profiles([("p0004", "1990-01-01", "DE", "Europe/Berlin")])
    _decide(desk, held.clock.at, table)
    assert len(folds) == 3


def test_a_consent_that_ends_between_two_rounds_ends_without_an_event(tmp_path: Path) -> None:
    held = Guarded(tmp_path, people=0)
    until = NOW.replace(hour=13)
    held.store.record(*(held.grant(n, valid_until=until if n == 5 else None) for n in range(20)))
    desk, table = held.desk(), small_rows(20)
    assert _decide(desk, table=table).permitted.all()
    held.clock.at = until
    held.store.synced("test")
    later = _decide(desk, until, table)
    assert np.flatnonzero(~later.permitted).tolist() == [5]
    assert later.reasons == {"consent-expired": 1}


@pytest.mark.parametrize(("minutes", "denied"), [(14, False), (16, True)])
def test_a_stale_store_denies_every_row(tmp_path: Path, minutes: int, *, denied: bool) -> None:
    held = Guarded(tmp_path)
    held.clock.go(minutes=minutes)
    found = _decide(held.desk(), held.clock.at)
    assert found.reasons == ({"consent-store-stale": 40} if denied else {})
    assert found.permitted.any() is np.bool_(not denied)


def test_a_store_that_was_put_back_denies_every_row_also_after_a_restart(tmp_path: Path) -> None:
    held = Guarded(tmp_path)
    old = tmp_path / "old.db"
    held.store.close()
    old.write_bytes(held.path.read_bytes())
    held.store = ConsentStore.open(held.path, clock=held.clock)
    held.withdraw(0)
    assert not _decide(held.desk()).permitted[0]
    held.store.close()
    for name in ("consent.db-wal", "consent.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    held.path.write_bytes(old.read_bytes())
    held.store = ConsentStore.open(held.path, clock=held.clock)
    found = _decide(held.desk())  # another desk, as after a restart: the head is remembered in its file
    assert found.reasons == {"store-rollback": 40}
    assert not found.permitted.any()


def test_a_memory_of_the_head_that_cannot_be_read_is_no_fresh_start(tmp_path: Path) -> None:
    held = Guarded(tmp_path)
    held.head.write_text("[1]")
    with pytest.raises(IntegrityError, match="cannot be read"):
        _decide(held.desk())


def test_a_clock_behind_the_store_denies_every_row(tmp_path: Path) -> None:
    held = Guarded(tmp_path)
    held.clock.go(minutes=-10)
    assert _decide(held.desk(), held.clock.at).reasons == {"clock-untrusted": 40}


def test_a_rehearsal_decides_nothing_at_a_real_site(tmp_path: Path) -> None:
    held = Guarded(tmp_path / "a")
    script = tmp_path / "events.csv"
    script.write_text(f"subject,purpose,status,recorded_at\np0001,{PURPOSE},granted,2026-01-01T00:00:00Z\n")
    held.store = ConsentStore.open(tmp_path / "rehearsed.db", clock=held.clock)
    bring(held.store, read_script(script).lines)
    with pytest.raises(Refused, match="rehearsal") as refused:
        _decide(held.desk(head=None))
    assert refused.value.code is Code.CONSENT


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("signed", None),
        ("unsigned", "pack-signature-invalid"),
        ("edited", "pack-signature-invalid"),
        ("foreign", "pack-signature-invalid"),
        ("expired", "pack-expired"),
        ("early", "no-applicable-pack"),
    ],
)
def test_a_pack_that_nobody_answers_for_denies_every_row(
    tmp_path: Path, how: str, reason: str | None
) -> None:
    held, key = Guarded(tmp_path), SigningKey.generate()
    dates = {"expired": {"in_force_to": "2026-06-01"}, "early": {"in_force_from": "2026-07-01"}}
    path = small_pack(tmp_path, **dates.get(how, {}))
    if how != "unsigned":
        sign_pack(path, SigningKey.generate() if how == "foreign" else key)
    if how == "edited":
        path.write_text(path.read_text().replace('"age": 16', '"age": 13'))
    found = _decide(held.desk(packs=load_packs([path], [key.verify_key])))
    assert found.reasons == ({} if reason is None else {reason: 40})
    assert bool(found.permitted.any()) is (reason is None)


def test_the_strictest_law_decides(tmp_path: Path) -> None:
    held = Guarded(tmp_path)
    alone = _decide(held.desk(packs={"gdpr": held.packs["gdpr"]}))
    both = held.stated.model_copy(
        update={
            "records": held.stated.records.model_copy(
                update={"collected_for": ("billing",), "legal_basis": "contract"}
            )
        }
    )
    assert alone.permitted.all()
    found = _decide(held.desk(stated=both))
    assert not found.permitted.any()


def test_what_nobody_stated_of_the_rows_denies_them(tmp_path: Path) -> None:
    held = Guarded(tmp_path)
    silent = held.stated.model_copy(update={"records": None})
    assert _decide(held.desk(stated=silent)).reasons == {"malformed-record": 40}
    nowhere = held.stated.model_copy(
        update={"documents": held.stated.documents.model_copy(update={"destination": None})}
    )
    assert _decide(held.desk(stated=nowhere)).reasons == {"transfer-no-safeguard": 40}


def test_an_erased_person_who_is_in_the_table_again_is_denied(tmp_path: Path) -> None:
    held = Guarded(tmp_path)
    desk, table = held.desk(), small_rows()
    assert _decide(desk, table=table).permitted.all()
    held.store.erase("p0007")
    held.clock.go(seconds=1)
    found = _decide(desk, held.clock.at, table)
    assert np.flatnonzero(~found.permitted).tolist() == [7]
    assert found.reasons == {"erasure-requested": 1}
