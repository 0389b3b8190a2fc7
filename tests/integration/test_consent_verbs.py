"""``fedgen consent`` as a site calls it: what is taken in, what is kept out, and that no name is printed unasked."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import stat

import pytest
from support.processes import ROOT

from fedgen.policy.store import files

HEADER = "event_id,subject_id,purpose,action,explicit,notice_version,effective_at\n"
NAME = "zoe-zimmermann"  # looked for wherever something is printed


def row(event="e1", who=NAME, purpose="train_generator", action="given", at="2026-01-10T09:00:00+01:00"):
    return f"{event},{who},{purpose},{action},true,3,{at}\n"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDGEN_CONSENT_STORE", str(tmp_path / "consent.db"))
    return tmp_path / "consent.db"


@pytest.fixture
def file(tmp_path):
    def write(*rows, name="events.csv", header=HEADER):
        path = tmp_path / name
        path.write_text(header + "".join(rows), encoding="utf-8")
        return path

    return write


# -- import ------------------------------------------------------------------------------------------------------------


def test_an_import_begins_a_private_store_and_repeats_nothing(fedgen, store, file):
    path = file(row(), row("e2", "p2"))
    said = fedgen("consent", "import", path, "--json")
    assert said.code == 0
    assert (said.document["added"], said.document["clean"]) == (2, True)
    for made in (store, store.with_name("consent.db.key")):
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert (
        fedgen("consent", "import", path, "--json").document == said.document
    )  # a job that is done stays done
    longer = file(row(), row("e2", "p2"), row("e3", "p3"), row("e3", "p3"), name="longer.csv")
    again = fedgen("consent", "import", longer, "--json").document
    assert (again["added"], again["repeated"], again["quarantined"]) == (1, 3, 0)


@pytest.mark.parametrize(
    ("bad", "column", "reason"),
    [
        (row(at="2026-01-10T09:00:00"), "effective_at", "naive-time"),
        (row(at="2126-01-10T09:00:00Z"), "effective_at", "in-the-future"),
        (row(at="soon"), "effective_at", "not-a-time"),
        (row(action="maybe"), "action", "unknown-word"),
        (row(purpose="*"), "purpose", "grants-every-purpose"),
        (row("e0", at="2026-02-10T09:00:00Z"), "event_id", "event-id-conflict"),
        ("a,b\n", "", "broken-row"),
    ],
)
def test_a_row_that_is_no_event_is_told_by_place_and_never_by_value(fedgen, store, file, bad, column, reason):
    path = file(row("e0", "p0"), bad)
    said = fedgen("consent", "import", path, "--json")
    assert said.code == 3
    assert said.document["quarantine"] == [{"row": 2, "column": column, "reason": reason}]
    assert (said.document["added"], said.document["clean"]) == (1, False)
    assert len(said.err.splitlines()) == 1
    text = fedgen("consent", "import", path)
    assert f"row 2: {column}: {reason}" in text.out
    for printed in (said.out, said.err, text.out, text.err):
        assert NAME not in printed
        assert "2126" not in printed


def test_strict_refuses_the_whole_file(fedgen, store, file):
    said = fedgen("consent", "import", file(row("e0", "p0"), row(action="maybe")), "--strict")
    assert (said.code, said.out, len(said.err.splitlines())) == (3, "", 1)
    assert fedgen("consent", "status", "--json").document["head"]["consent"] == 0


def test_settling_makes_a_file_count_and_the_quarantine_can_be_written_down(fedgen, store, file, tmp_path):
    path, listed = file(row("e0", "p0"), row(action="maybe")), tmp_path / "kept-out.csv"
    assert fedgen("consent", "import", path, "--quarantine", listed).code == 3
    assert list(csv.reader(listed.read_text().splitlines())) == [
        ["row", "column", "reason"],
        ["2", "action", "unknown-word"],
    ]
    assert fedgen("consent", "import", path, "--quarantine", listed).code == 3  # never written over
    assert fedgen("consent", "status").code == 4
    assert fedgen("consent", "import", path, "--settle").code == 0
    assert fedgen("consent", "import", path).code == 0
    assert fedgen("consent", "status").code == 0


def test_columns_of_other_names_are_mapped_and_a_misspelt_one_is_refused(fedgen, store, file):
    path = file(row(), header=HEADER.replace("subject_id", "patient").replace("explicit", "ward"))
    assert fedgen("consent", "import", path).code == 3
    said = fedgen("consent", "import", path, "--map", "subject_id=patient", "--json")
    assert (said.code, said.document["added"]) == (0, 1)
    near = file(
        row(),
        name="near.csv",
        header=HEADER.replace("subject_id", "patient").replace("explicit", "explicitt"),
    )
    said = fedgen("consent", "import", near, "--map", "subject_id=patient")
    assert (said.code, "did you mean explicit" in said.err) == (3, True)
    for wrong in ("subject_id", "=patient", "subject_id="):
        assert fedgen("consent", "import", path, "--map", wrong).code == 2


def test_columns_of_json_lines_are_mapped_too(fedgen, store, tmp_path):
    path = tmp_path / "events.jsonl"
    said = {
        "event_id": "e1",
        "patient": NAME,
        "purpose": "p",
        "action": "given",
        "effective_at": "2026-01-10T09:00:00Z",
    }
    path.write_text(json.dumps(said) + "\n")
    done = fedgen("consent", "import", path, "--map", "subject_id=patient", "--json")
    assert (done.code, done.document["added"]) == (0, 1)


def test_a_missing_or_foreign_file_begins_no_store(fedgen, store, file, tmp_path):
    assert fedgen("consent", "import", tmp_path / "none.csv").code == 3
    assert fedgen("consent", "import", file(name="events.txt")).code == 3
    assert not store.exists()


def test_an_empty_table_is_a_look_at_the_source(fedgen, store, file):
    said = fedgen("consent", "import", file(), "--json")
    assert (said.code, said.document["rows"], said.document["clean"]) == (0, 0, True)
    assert fedgen("consent", "status").code == 0


def test_an_interrupted_import_says_130_and_goes_on_where_it_stopped(fedgen, store, file, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 10)
    path = file(*(row(f"e{n}", f"p{n}") for n in range(35)))

    def stop(_self, rows):
        if rows == 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fedgen.cli.consent.Rows.__call__", stop)
        said = fedgen("consent", "import", path)
    assert (said.code, len(said.err.splitlines())) == (130, 1)
    assert "goes on from there" in said.err
    assert fedgen("consent", "status", "--json").document["head"]["consent"] == 20
    done = fedgen("consent", "import", path, "--json").document
    assert (done["rows"], done["added"], done["repeated"]) == (35, 35, 0)
    assert fedgen("consent", "status", "--json").document["head"]["consent"] == 35


def test_two_people_under_one_id_are_told_and_not_by_name(fedgen, store, file):
    header = "subject_id,birth_date,residence,timezone\n"
    first = file(f"{NAME},1984-03-09,DE,Europe/Berlin\n", header=header, name="first.csv")
    second = file(f"{NAME},1990-01-01,DE,Europe/Berlin\n", header=header, name="second.csv")
    assert fedgen("consent", "import", first, "--kind", "profiles", "--json").document["ambiguous"] == 0
    said = fedgen("consent", "import", second, "--kind", "profiles", "--json")
    assert (said.code, said.document["ambiguous"]) == (0, 1)
    assert "1 identifier stands for two people" in said.err
    assert NAME not in said.out + said.err
    assert "ambiguous" in fedgen("consent", "status", NAME).out
    third = file(f"{NAME},1984-03-09,DE,Europe/Berlin\n", header=header, name="third.csv")
    mended = fedgen("consent", "import", third, "--kind", "profiles", "--corrects", "--json")
    assert mended.document["ambiguous"] == 0
    assert fedgen("consent", "import", third, "--corrects").code == 2


# -- single events -----------------------------------------------------------------------------------------------------


def test_record_withdraw_and_status_print_no_name_but_that_of_the_question(fedgen, store):
    given = ("--action", "given", "--purpose", "train_generator", "--explicit", "--notice", "privacy@3")
    said = fedgen("consent", "record", NAME, *given, "--event-id", "e1", "--json")
    assert (said.code, said.document["added"], said.document["stranger"]) == (0, True, True)
    assert "had not heard of this person" in said.err
    assert fedgen("consent", "status", NAME, "--json").document["purposes"] == {
        "train_generator": "consented"
    }
    gone = fedgen("consent", "withdraw", NAME, "--purpose", "train_generator", "--event-id", "w1")
    again = fedgen("consent", "withdraw", NAME, "--purpose", "train_generator", "--event-id", "w2", "--json")
    assert (gone.code, gone.err, again.document["stranger"]) == (0, "", False)
    assert fedgen("consent", "status", NAME, "--json").document["purposes"] == {
        "train_generator": "withdrawn"
    }
    for it in (said, gone, again):
        assert NAME not in it.out + it.err


def test_every_purpose_can_be_withdrawn_at_once(fedgen, store):
    for purpose in ("a", "b"):
        assert fedgen("consent", "record", NAME, "--action", "given", "--purpose", purpose).code == 0
    assert fedgen("consent", "withdraw", NAME, "--purpose", "*").code == 0
    stands = fedgen("consent", "status", NAME, "--json").document["purposes"]
    assert (stands["a"], stands["b"]) == ("withdrawn", "withdrawn")


def test_a_consent_behind_a_late_withdrawal_is_to_be_confirmed_again(fedgen, store, file):
    gone, back = (
        row("e1", action="withdrawn", at="2026-01-10T09:00:00Z"),
        row("e2", at="2026-02-10T09:00:00Z"),
    )
    assert fedgen("consent", "import", file(gone, back)).code == 0  # both are learned at once
    stands = fedgen("consent", "status", NAME, "--json").document
    assert stands["purposes"] == {"train_generator": "withdrawn"}
    assert stands["needs_reconfirmation"] == ["train_generator"]
    assert "confirm again  train_generator" in fedgen("consent", "status", NAME).out
    assert fedgen("consent", "record", NAME, "--action", "renewed", "--purpose", "train_generator").code == 0
    stands = fedgen("consent", "status", NAME, "--json").document
    assert (stands["purposes"], stands["needs_reconfirmation"]) == ({"train_generator": "consented"}, [])


def test_rights_are_recorded_with_their_matter(fedgen, store):
    assert fedgen("consent", "record", NAME, "--right", "legal_hold", "--matter", "m-1").code == 0
    assert fedgen("consent", "record", NAME, "--right", "objection", "--purpose", "train_generator").code == 0
    assert fedgen("consent", "record", NAME, "--right", "gpc").code == 0
    said = fedgen("consent", "status", NAME, "--json").document
    assert {"hold", "opted_out"} <= set(said["rights"])
    assert said["opt_out_signal_honoured"] is True
    assert fedgen("consent", "record", NAME, "--right", "legal_hold_released", "--matter", "m-1").code == 0
    assert "hold" not in fedgen("consent", "status", NAME, "--json").document["rights"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 2),
        (("--action", "given"), 2),
        (("--action", "given", "--right", "gpc", "--purpose", "p"), 2),
        (("--action", "maybe", "--purpose", "p"), 3),
        (("--right", "to-silence"), 3),
        (("--action", "given", "--purpose", "*"), 3),
        (("--action", "given", "--purpose", "p", "--at", "2026-01-01T00:00:00"), 2),
        (("--action", "given", "--purpose", "p", "--at", "2126-01-01T00:00:00Z"), 3),
        (("--action", "given", "--purpose", "p", "--notice", "privacy"), 2),
        (("--action", "given", "--purpose", "p", "--given-by", "nobody"), 2),
    ],
)
def test_record_refuses_what_is_no_event_in_one_line(fedgen, store, words, code):
    said = fedgen("consent", "record", NAME, *words, "--json")
    assert said.code == code
    assert said.document["exit_code"] == code
    assert len(said.err.splitlines()) == 1
    assert NAME not in said.out + said.err


def test_one_id_for_two_events_is_refused(fedgen, store):
    first = ("--action", "given", "--purpose", "p", "--at", "2026-01-01T00:00:00Z", "--event-id", "e1")
    assert fedgen("consent", "record", NAME, *first).code == 0
    assert fedgen("consent", "record", NAME, *first, "--json").document["added"] is False
    assert fedgen("consent", "withdraw", NAME, "--purpose", "p", "--event-id", "e1").code == 3


def test_a_name_can_come_from_stdin(fedgen, store, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(NAME + "\n"))
    assert fedgen("consent", "withdraw", "-", "--purpose", "p").code == 0
    assert fedgen("consent", "status", NAME).code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert fedgen("consent", "status", "-").code == 2


def test_nothing_is_kept_of_somebody_who_was_erased(fedgen, store):
    assert fedgen("consent", "record", NAME, "--action", "given", "--purpose", "p").code == 0
    assert fedgen("erase", NAME, "--store", store).code == 0
    said = fedgen("consent", "record", NAME, "--action", "given", "--purpose", "p", "--json")
    assert (said.document["added"], said.document["erased"]) == (False, True)
    for words in (("status", NAME), ("export", NAME, "--out", store.with_name("x.json"))):
        said = fedgen("consent", *words)
        assert (said.code, "erased" in said.err) == (3, True)


# -- the store itself --------------------------------------------------------------------------------------------------


def test_a_store_that_was_put_back_is_found_out_by_its_head(fedgen, store, file, tmp_path):
    assert fedgen("consent", "import", file(row())).code == 0
    shutil.copy(store, tmp_path / "old.db")
    assert fedgen("consent", "withdraw", NAME, "--purpose", "train_generator").code == 0
    kept = tmp_path / "head.json"
    kept.write_text(fedgen("consent", "status", "--json").out)
    assert fedgen("consent", "status", "--head", kept, "--verify").code == 0
    for beside in tmp_path.glob("consent.db-*"):
        beside.unlink()
    shutil.copy(tmp_path / "old.db", store)
    said = fedgen("consent", "status", "--head", kept)
    assert (said.code, "STORE_ROLLBACK" in said.err) == (6, True)
    kept.write_text('{"head": {"size": "many"}}')
    assert fedgen("consent", "status", "--head", kept).code == 3


def test_an_event_that_was_changed_behind_the_stores_back_is_found_out(fedgen, store, file):
    assert fedgen("consent", "import", file(row())).code == 0
    with sqlite3.connect(store) as raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("UPDATE consent_event SET purpose = 'another'")
    raw.close()
    said = fedgen("consent", "status", "--verify")
    assert said.code == 6
    assert len(said.err.splitlines()) == 1


def test_a_store_that_is_not_there_open_to_others_or_unnamed_is_one_line(fedgen, store, file, monkeypatch):
    for words in (("status",), ("status", NAME), ("export", NAME, "--out", "x.json")):
        assert fedgen("consent", *words).code == 3
    assert not store.exists()
    assert fedgen("consent", "import", file(row())).code == 0
    store.with_name("consent.db.key").chmod(0o644)
    assert fedgen("consent", "status").code == 3
    store.with_name("consent.db.key").unlink()
    assert fedgen("consent", "status").code == 3
    monkeypatch.delenv("FEDGEN_CONSENT_STORE")
    assert fedgen("consent", "status").code == 2


def test_a_stale_store_ends_with_4(fedgen, store, file):
    assert fedgen("consent", "record", NAME, "--action", "given", "--purpose", "p").code == 0
    said = fedgen("consent", "status", "--json")
    assert (said.code, said.document["trouble"]) == (4, "CONSENT_STORE_STALE")
    assert fedgen("consent", "import", file()).code == 0
    assert fedgen("consent", "status").code == 0


# -- answers -----------------------------------------------------------------------------------------------------------


def test_answers_are_private_files_that_overwrite_nothing(fedgen, store, tmp_path):
    issuer = ROOT / "examples" / "guard" / "issuer.yaml"
    given = ("--action", "given", "--purpose", "train_generator", "--notice", "privacy@3")
    assert fedgen("consent", "record", NAME, *given).code == 0
    for form, more in (
        ("access", ()), ("portability", ()), ("receipt", ("--purpose", "train_generator", "--issuer", issuer)),
    ):  # fmt: skip
        out = tmp_path / f"{form}.json"
        said = fedgen("consent", "export", NAME, "--format", form, "--out", out, *more)
        assert said.code == 0, said.err
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        assert NAME not in said.out + said.err
        assert fedgen("consent", "export", NAME, "--format", form, "--out", out, *more).code == 3
    assert json.loads((tmp_path / "access.json").read_text())["subject_id"] == NAME
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert receipt["@type"] == "dpv:ConsentReceipt"
    assert receipt["dpv:hasRecordOfActivity"]["dpv:hasDataController"] == "https://clinic.example"


def test_a_receipt_needs_a_purpose_and_an_issuer_that_says_everything(fedgen, store, tmp_path):
    assert fedgen("consent", "record", NAME, "--action", "given", "--purpose", "p").code == 0
    out, issuer = tmp_path / "r.json", tmp_path / "issuer.yaml"
    ask = ("consent", "export", NAME, "--format", "receipt", "--out", out)
    assert fedgen(*ask).code == 2
    for content, key in (("controller: a\n", "jurisdiction"), ("controler: a\n", "controler")):
        issuer.write_text(content)
        said = fedgen(*ask, "--purpose", "p", "--issuer", issuer)
        assert (said.code, key in said.err) == (3, True)
    assert not out.exists()
