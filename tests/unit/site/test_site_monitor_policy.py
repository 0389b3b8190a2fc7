"""Packs at the site: three checks in a round, the run gate at the door, and evidence that names nobody."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.federation import Desk, make_site, small_rows, small_study
from support.policy import NOW, Guarded

from fedgen.errors import Code
from fedgen.messages import Confirmed, Joined, Refusal, Trained
from fedgen.policy.packs import PINNED
from fedgen.site.memory import Memory
from fedgen.site.monitor import Site

if TYPE_CHECKING:
    from pathlib import Path

    from support.federation import Holder

PINS = {"gdpr": PINNED["gdpr"], "ccpa": PINNED["ccpa"]}
POLICY: dict[str, Any] = {"packs": ["gdpr", "ccpa"], "pins": PINS, "min_cohort": 5}


def _holder(folder: Path, held: Guarded, *, policy: dict[str, Any] | None = None, **parts: Any) -> Holder:
    desk = Desk(small_study(policy=POLICY if policy is None else policy))
    return make_site(folder, desk, policy=held.desk(), clock=lambda _round: held.clock.at, **parts)


def _joined(folder: Path, held: Guarded, **parts: Any) -> Holder:
    holder = _holder(folder, held, **parts)
    assert isinstance(holder.ask(holder.desk.join())[0], Joined)
    return holder


def _code(holder: Holder, request: bytes) -> Code:
    message, _ = holder.ask(request)
    assert isinstance(message, Refusal), message
    return message.code


def test_a_round_is_decided_written_down_and_vouched_for(tmp_path: Path) -> None:
    held = Guarded(tmp_path / "store", people=36)
    holder = _joined(tmp_path, held)
    trained, _ = holder.ask(holder.desk.train(1))
    assert isinstance(trained, Trained)
    assert trained.excluded == {"consent-missing": "<10"}
    confirmed, _ = holder.ask(holder.desk.confirm(1))
    assert isinstance(confirmed, Confirmed)
    kinds = [entry.kind for entry in holder.entries()]
    assert kinds == ["opened", "admitted", "decided", "reserved", "settled"]
    (decided,) = holder.entries("decided")
    assert (decided.check, decided.considered, decided.allowed, decided.revoked) == ("load", 40, 36, 0)
    assert dict(decided.reasons) == {"ALLOW": 36, "CONSENT_MISSING": 4}
    assert {law: sha for law, _, _, sha in decided.packs} == PINS
    (row,) = held.store.rounds(holder.desk.run)
    assert (row["mask"], row["commit_check"]) == (decided.mask, {"discarded": False})
    assert "p00" not in json.dumps(row)


def test_a_withdrawal_before_the_round_leaves_the_row_out(tmp_path: Path) -> None:
    held = Guarded(tmp_path / "store")
    holder = _joined(tmp_path, held)
    held.withdraw(0, 1, 2)
    trained, _ = holder.ask(holder.desk.train(1))
    assert isinstance(trained, Trained)
    assert trained.excluded == {"consent-withdrawn": "<10"}


def test_a_withdrawal_while_the_update_is_computed_discards_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Guarded(tmp_path / "store")
    compute = Site._compute

    def meanwhile(self: Site, *arguments: Any) -> Any:
        update = compute(self, *arguments)
        held.clock.go(seconds=1)
        held.withdraw(4)
        return update

    monkeypatch.setattr(Site, "_compute", meanwhile)
    holder = _joined(tmp_path, held)
    assert _code(holder, holder.desk.train(1)) is Code.CONSENT
    load, commit = holder.entries("decided")
    assert (load.check, commit.check, commit.revoked) == ("load", "commit", 1)
    assert holder.entries("settled") == []
    assert [entry.code for entry in holder.entries("refused")] == ["consent"]
    (row,) = held.store.rounds(holder.desk.run)
    assert (row["commit_check"], row["update_sha256"]) == ({"discarded": True}, None)
    assert _code(holder, holder.desk.confirm(1)) is Code.STALE_ROUND


def test_a_withdrawal_after_the_update_left_is_a_no_before_the_sum(tmp_path: Path) -> None:
    held = Guarded(tmp_path / "store")
    holder = _joined(tmp_path, held)
    assert isinstance(holder.ask(holder.desk.train(1))[0], Trained)
    held.clock.go(seconds=1)
    held.withdraw(4, 9)
    assert _code(holder, holder.desk.confirm(1)) is Code.CONSENT
    assert _code(holder, holder.desk.confirm(1)) is Code.CONSENT  # asked again, nothing is written twice
    load, summed = holder.entries("decided")
    assert (load.check, summed.check, summed.revoked) == ("load", "sum", 2)
    assert [entry.code for entry in holder.entries("refused")] == ["consent"]
    assert isinstance(holder.ask(holder.desk.train(2))[0], Trained)


def test_somebody_who_joins_in_is_no_reason_to_discard(tmp_path: Path) -> None:
    held = Guarded(tmp_path / "store", people=30)
    holder = _joined(tmp_path, held)
    assert isinstance(holder.ask(holder.desk.train(1))[0], Trained)
    held.clock.go(seconds=1)
    held.store.record(held.grant(35))
    assert isinstance(holder.ask(holder.desk.confirm(1))[0], Confirmed)


@pytest.mark.parametrize("asked", [(2, 1), (1, 2)])
def test_only_the_attempt_that_left_is_vouched_for(tmp_path: Path, asked: tuple[int, int]) -> None:
    holder = _joined(tmp_path, Guarded(tmp_path / "store"))
    assert _code(holder, holder.desk.confirm(1)) is Code.STALE_ROUND
    assert isinstance(holder.ask(holder.desk.train(1))[0], Trained)
    assert _code(holder, holder.desk.confirm(*asked)) is Code.STALE_ROUND


def test_a_coordinator_that_does_not_ask_gets_later_rounds_and_an_old_word_gets_it_nothing(
    tmp_path: Path,
) -> None:
    holder = _joined(tmp_path, Guarded(tmp_path / "store"))
    assert isinstance(holder.ask(holder.desk.train(1))[0], Trained)
    assert isinstance(holder.ask(holder.desk.train(2))[0], Trained)
    assert _code(holder, holder.desk.confirm(1)) is Code.STALE_ROUND
    assert isinstance(holder.ask(holder.desk.confirm(2))[0], Confirmed)


def test_another_process_of_the_site_vouches_by_what_was_kept(tmp_path: Path) -> None:
    held = Guarded(tmp_path / "store")
    places = {
        "invitation": tmp_path / "invitation",
        "answer": tmp_path / "answer",
        "released": tmp_path / "released",
    }
    first = _joined(tmp_path, held, memory=Memory(**places))
    assert isinstance(first.ask(first.desk.train(1))[0], Trained)
    second = make_site(
        tmp_path,
        first.desk,
        identity=first.identity,
        policy=held.desk(),
        clock=lambda _round: held.clock.at,
        memory=Memory(**places),
    )
    assert isinstance(second.ask(first.desk.confirm(1))[0], Confirmed)
    held.clock.go(seconds=1)
    held.withdraw(1)
    assert _code(second, first.desk.confirm(1)) is Code.CONSENT
    (tmp_path / "released").write_bytes(b"torn")
    assert _code(second, first.desk.confirm(1)) is Code.STALE_ROUND
    assert oct((tmp_path / "answer").stat().st_mode)[-3:] == "600"


def test_the_floor_of_a_pack_is_a_floor_of_the_site(tmp_path: Path) -> None:
    held = Guarded(tmp_path / "store")
    loaded = held.packs["gdpr"]
    object.__setattr__(loaded, "pack", loaded.pack.model_copy(update={"cohort_floor": 41}))
    holder = _joined(tmp_path, held)
    assert _code(holder, holder.desk.train(1)) is Code.COHORT_TOO_SMALL


def test_noise_and_rate_do_not_depend_on_who_is_permitted(tmp_path: Path) -> None:
    few, many = Guarded(tmp_path / "few", people=10), Guarded(tmp_path / "many", people=40)
    charged = []
    for name, held in (("a", few), ("b", many)):
        holder = _joined(tmp_path / name, held)
        assert isinstance(holder.ask(holder.desk.train(1))[0], Trained)
        (reserved,) = holder.entries("reserved")
        charged.append((reserved.event, reserved.count))
    assert charged[0] == charged[1]


def test_a_stale_store_sits_the_round_out_and_says_only_a_family(tmp_path: Path) -> None:
    held = Guarded(tmp_path / "store")
    holder = _joined(tmp_path, held)
    held.clock.go(minutes=20)
    assert _code(holder, holder.desk.train(1)) is Code.CONSENT
    (decided,) = holder.entries("decided")
    assert dict(decided.reasons) == {"CONSENT_STORE_STALE": 40}
    assert holder.entries("reserved") == []


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ("dpia", "DPIA_MISSING"),
        ("arrangement_id", "CONTROLLER_ARRANGEMENT_MISSING"),
        ("recipients", "PROCESSOR_AGREEMENT_MISSING"),
        ("notice_version", "NOTICE_NOT_SERVED"),
        ("destination", "TRANSFER_NO_SAFEGUARD"),
        ("tls", "SECURITY_MEASURE_MISSING"),
        ("loosened", "DEFAULT_LOOSENED"),
    ],
)
def test_a_missing_document_is_refused_and_the_site_alone_reads_what_to_file(
    tmp_path: Path, missing: str, code: str
) -> None:
    held = Guarded(tmp_path / "store", **{missing: None})
    holder = _holder(tmp_path, held)
    reply = holder.site.handle(holder.desk.join())
    assert code.encode() not in reply
    message, _ = holder.desk.read(reply, holder.identity)
    assert isinstance(message, Refusal)
    assert message.code is Code.STUDY_REFUSED
    assert code in holder.incidents.read_text()


@pytest.mark.parametrize(
    "policy",
    [
        {**POLICY, "pins": {**PINS, "gdpr": "0" * 64}},
        {**POLICY, "pins": None},
        {"packs": ["gdpr"], "pins": PINS, "min_cohort": 5},
        {"min_cohort": 5},
    ],
    ids=["other digest", "no digest", "too many", "does not ask before it sums"],
)
def test_a_study_that_means_other_packs_is_refused(tmp_path: Path, policy: dict[str, Any]) -> None:
    policy = {name: value for name, value in policy.items() if value is not None}
    holder = _holder(tmp_path, Guarded(tmp_path / "store"), policy=policy)
    assert _code(holder, holder.desk.join()) is Code.STUDY_REFUSED


def test_a_study_without_packs_cannot_take_the_sites_away(tmp_path: Path) -> None:
    held = Guarded(tmp_path / "store")
    held.withdraw(0)
    holder = _joined(tmp_path, held, policy={"confirm": True, "min_cohort": 5})
    trained, _ = holder.ask(holder.desk.train(1))
    assert isinstance(trained, Trained)
    assert trained.excluded == {"consent-withdrawn": "<10"}


def test_packs_are_refused_where_there_is_no_store(tmp_path: Path) -> None:
    holder = make_site(tmp_path, Desk(small_study(policy=POLICY)))
    assert _code(holder, holder.desk.join()) is Code.STUDY_REFUSED


def test_rows_that_do_not_say_whose_they_are_are_not_used(tmp_path: Path) -> None:
    held = Guarded(tmp_path / "store")
    table = small_rows(people=False)
    holder = _joined(tmp_path, held, table=lambda: table)
    assert _code(holder, holder.desk.train(1)) is Code.CONSENT


def test_a_consent_log_without_packs_is_vouched_for_too(tmp_path: Path) -> None:
    from support.federation import consent_log

    logs = [consent_log(tmp_path / "a.csv", granted=40)]
    desk = Desk(small_study(policy={"consent": "consent.csv"}))
    holder = make_site(tmp_path, desk, consent=lambda: logs[-1], clock=lambda _round: NOW)
    assert isinstance(holder.ask(desk.join())[0], Joined)
    assert isinstance(holder.ask(desk.train(1))[0], Trained)
    assert isinstance(holder.ask(desk.confirm(1))[0], Confirmed)
    logs.append(consent_log(tmp_path / "b.csv", granted=40, withdrawn=1))
    assert _code(holder, desk.confirm(1)) is Code.CONSENT
