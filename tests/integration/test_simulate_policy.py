"""A simulated study with packs: people withdraw, object, come of age and expire in mid-run, and every round replays."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from support.policy import DOCUMENTS, RECORDS, policy_section, small_pack
from support.studies import write_study

import fedgen
from fedgen.api.checks import check
from fedgen.api.replay import replay
from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code, ConfigError, IntegrityError, Interrupted, QuorumLost, Refused
from fedgen.events import RoundFinished
from fedgen.ledger.entries import Decided
from fedgen.ledger.verify import read, verify
from fedgen.policy.packs import sign_pack
from fedgen.policy.store import ConsentStore
from fedgen.runs.journal import read_rounds

if TYPE_CHECKING:
    from pathlib import Path

CLOCK = {"clock_start": "2026-03-01T00:00:00Z", "clock_step_s": 3600}
HEADER = "subject,purpose,status,recorded_at,expires_at,given_by,notice_version"
ROUNDS = 6


def _at(hour: float) -> str:
    minutes = round(hour * 60)
    return f"2026-03-01T{minutes // 60:02d}:{minutes % 60:02d}:00Z"


def _events(people: int = 120) -> list[str]:
    """Return a log: everybody agreed, and on the day of the run some change their minds."""
    rows = []
    for number in range(people):
        ends = _at(4.5) if number % 8 == 7 else ""
        rows.append(f"p{number:04d},train_generator,granted,2026-01-01T00:00:00Z,{ends},subject,3")
    rows += [f"p{number:04d},train_generator,withdrawn,{_at(1.5)},,," for number in range(0, people, 20)]
    rows += [f"p{number:04d},train_generator,objection,{_at(2.5)},,," for number in range(1, people, 10)]
    # Born on 1 March 2010 in Germany: sixteen on the day of the run, and they agree anew at half past three.
    rows += [
        f"p{number:04d},train_generator,renewed,{_at(3.5)},,subject,3" for number in range(2, people, 30)
    ]
    return rows


def _study(
    folder: Path, *, cohort_floor: int = 5, policy: dict[str, Any] | None = None, **sections: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    key = SigningKey.generate()
    for law in ("gdpr", "ccpa"):
        sign_pack(small_pack(folder, law, cohort_floor=cohort_floor), key)
    (folder / "events.csv").write_text("\n".join([HEADER, *_events()]) + "\n")
    profiles = [
        f"p{number:04d},{'2010-03-01' if number % 30 == 2 else '1980-05-05'},DE,Europe/Berlin"
        for number in range(120)
    ]
    (folder / "subjects.csv").write_text(
        "\n".join(["subject,birth_date,residence,timezone", *profiles]) + "\n"
    )
    section = policy_section(
        packs=["small-gdpr.yaml", "small-ccpa.yaml"],
        pack_keys=[key.public.hex()],
        subjects="subjects.csv",
        documents={**DOCUMENTS, "information_society_service": True, "lia_id": "L-1"},
        sites={"site-03": {"records": {"legal_basis": "legitimate_interest"}}},
        **(policy or {}),
    )
    training = {"rounds": ROUNDS, **sections.pop("training", {})}
    return write_study(folder, policy=section, simulation=CLOCK, training=training, **sections)


def _decided(root: Path, site: str) -> list[Decided]:
    return [it.entry for it in read(root / "sites" / site / "ledger.db") if isinstance(it.entry, Decided)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run."""
    folder = tmp_path_factory.mktemp("policy")
    return fedgen.simulate(_study(folder), out=folder / "run")


def test_each_change_of_mind_takes_effect_in_the_next_round(run: Any) -> None:
    def reasons(number: int, site: str) -> dict[str, int]:
        (entry,) = [it for it in _decided(run.path, site) if it.round == number]
        return {code: rows for code, rows in entry.reasons if code != "ALLOW"}

    consent = [reasons(number, "site-01") for number in range(1, ROUNDS + 1)]
    assert set(consent[0]) == {"CHILD_PARENTAL_CONSENT_REQUIRED"}
    assert set(consent[1]) == {"CHILD_PARENTAL_CONSENT_REQUIRED", "CONSENT_WITHDRAWN"}
    assert consent[2] == consent[1]  # who rests on consent withdraws it; an objection is for the other basis
    assert set(consent[3]) == {"CONSENT_WITHDRAWN"}
    assert set(consent[4]) == {"CONSENT_WITHDRAWN", "CONSENT_EXPIRED"}
    interest = [reasons(number, "site-03") for number in range(1, ROUNDS + 1)]
    assert [set(it) for it in interest[:4]] == [set(), set(), {"OBJECTED"}, {"OBJECTED"}]


def test_the_report_shows_reasons_with_the_law_and_the_packs(run: Any) -> None:
    document = json.loads((run.path / "report.json").read_text())
    assert [it["law"] for it in document["packs"]] == ["ccpa", "gdpr"]
    by_code = {it["code"]: it["citations"] for it in document["reasons"]}
    assert "GDPR Art. 7(3)" in by_code["CONSENT_WITHDRAWN"]
    assert "GDPR Art. 8(1)" in by_code["CHILD_PARENTAL_CONSENT_REQUIRED"]
    page = (run.path / "report.html").read_text()
    for text in ("CONSENT_EXPIRED", "OBJECTED", "GDPR Art. 8(1)", "not legal advice", "fedgen policy replay"):
        assert text in page


def test_what_left_the_sites_are_buckets_only(run: Any) -> None:
    for line in read_rounds(run.folder.metrics):
        for counts in line.excluded.values():
            assert set(counts.values()) <= {"<10", "10-99"}


def test_every_round_replays(run: Any) -> None:
    found = replay(run.path)
    assert len(found) == 3 * ROUNDS
    assert all(it.same for it in found)
    assert [it.round for it in replay(run.path, 2, site="site-02")] == [2]
    assert len({it.recorded for it in found}) >= ROUNDS  # masks do change, so that equality says something


def test_ledgers_with_evidence_verify_and_the_stores_have_each_round(run: Any) -> None:
    for site in ("site-01", "site-02", "site-03"):
        home = run.path / "sites" / site
        assert verify(home / "ledger.db").ok
        with ConsentStore.open(home / "consent.db") as store:
            store.verify()
            rows = store.rounds(_decided(run.path, site)[0].run)
        assert [row["round"] for row in rows] == list(range(1, ROUNDS + 1))
        assert all(row["update_sha256"] for row in rows)
        assert (home / "consent.db.d" / "used" / f"rounds-{site}.jsonl").is_file()


def test_each_site_has_its_own_people_only(run: Any) -> None:
    seen: list[set[str]] = []
    for site in ("site-01", "site-02", "site-03"):
        with sqlite3.connect(run.path / "sites" / site / "consent.db") as raw:
            seen.append({row[0] for row in raw.execute("SELECT subject_id FROM subject_salt")})
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]


def test_a_store_that_was_changed_behind_its_back_does_not_replay(tmp_path: Path) -> None:
    run = fedgen.simulate(_study(tmp_path, training={"rounds": 2}), out=tmp_path / "run")
    path = run.path / "sites" / "site-01" / "consent.db"
    with sqlite3.connect(path) as raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("UPDATE consent_event SET notice_version = 1")
    found = {it.site: it for it in replay(run.path, 2)}
    assert found["site-01"].why == "other rows come out"
    assert found["site-02"].same
    with sqlite3.connect(path) as raw:
        raw.execute("DELETE FROM batch")
    (other,) = replay(run.path, 2, site="site-01")
    assert other.why == "the consent store does not go on from where it stood"


def test_a_run_that_was_stopped_goes_on_and_replays(tmp_path: Path) -> None:
    study = _study(tmp_path)

    def stop(event: object) -> None:
        if isinstance(event, RoundFinished) and event.round == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        fedgen.simulate(study, out=tmp_path / "run", listener=stop)
    run = fedgen.simulate(study, out=tmp_path / "run", resume=True)
    assert run.record.rounds_done == ROUNDS
    found = replay(run.path)
    assert all(it.same for it in found)
    assert {it.round for it in found} == set(range(1, ROUNDS + 1))


def test_a_missing_document_is_refused_with_what_to_file_before_a_folder_is_made(tmp_path: Path) -> None:
    documents = {name: value for name, value in DOCUMENTS.items() if name != "dpia"}
    section = policy_section(documents=documents)
    study = write_study(tmp_path, policy=section, simulation=CLOCK)
    (tmp_path / "events.csv").write_text(HEADER + "\n")
    with pytest.raises(Refused, match="DPIA_MISSING") as refused:
        fedgen.simulate(study, out=tmp_path / "run")
    assert refused.value.code is Code.STUDY_REFUSED
    assert "file the impact assessment" in refused.value.what
    assert not (tmp_path / "run").exists()
    with pytest.raises(Refused, match="DPIA_MISSING"):
        check(study)


def test_shipped_packs_ask_for_a_hundred_people(tmp_path: Path) -> None:
    with pytest.raises(QuorumLost, match="too few"):
        fedgen.simulate(_study(tmp_path, cohort_floor=100), out=tmp_path / "run")


def test_an_unsigned_pack_decides_that_nobody_is_used(tmp_path: Path) -> None:
    study = _study(tmp_path)
    for path in tmp_path.glob("*.sig"):
        path.unlink()
    with pytest.raises(Refused, match="PACK_SIGNATURE_INVALID"):
        fedgen.simulate(study, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"packs": ["gdrp"]}, None),
        ({"packs": ["gdpr", "gdpr"]}, None),
        ({"records": None}, "policy.records"),
        ({"consent": "none.csv"}, None),
        ({"pins": {"gdpr": "0" * 64}}, "policy.pins"),
        ({"regime": "opt-out"}, "policy.regime"),
        ({"confirm": False}, "policy.confirm"),
        ({"sites": {"site-09": {}}}, "policy.sites.site-09"),
        ({"records": {**RECORDS, "legal_basis": "none"}}, "policy.records.legal_basis"),
        ({"records": {**RECORDS, "collected_at": "2025-10-01T00:00:00"}}, "policy.records.collected_at"),
        ({"packs": None}, "policy.records"),
    ],
)
def test_each_slip_is_one_line(tmp_path: Path, change: dict[str, Any], key: str | None) -> None:
    section = {name: value for name, value in {**policy_section(), **change}.items() if value is not None}
    study = write_study(tmp_path, policy=section, simulation=CLOCK)
    (tmp_path / "events.csv").write_text(HEADER + "\n")
    with pytest.raises(ConfigError) as refused:
        fedgen.simulate(study, out=tmp_path / "run")
    assert refused.value.key == key
    assert "\n" not in str(refused.value)
    assert not isinstance(refused.value, IntegrityError)
