"""Making homes, counting what is declared, and where the documents go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from support.enrolling import NOW, TERMS, make_server, make_site
from support.studies import SCHEMA, people, write_rows

from fedgen.api import enrolment, site_setup
from fedgen.api.enrolment import (
    Believed,
    Terms,
    server_enroll,
    server_init,
    server_invite,
    server_revoke,
    server_status,
    site_init,
    site_join,
)
from fedgen.api.keys import home_at, keys_new, keys_rotate, keys_show
from fedgen.api.site_setup import absolute, counted
from fedgen.enrolment import site_side
from fedgen.enrolment.server_home import ServerHome
from fedgen.enrolment.site_home import SiteHome
from fedgen.errors import ConfigError, DataError, Refused, UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.csv", [*people(120), people(1)[0]])
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(SCHEMA))
    return tmp_path


ROWS = Terms(
    source="rows.csv", schema=Path("schema.yaml"), epsilon_per_study=1.0, epsilon_life=3.0, delta=1e-6
)


def test_a_site_is_made_from_its_table(here: Path) -> None:
    made = site_init(here / "a", "hospital-a", ROWS)
    assert made.fresh
    assert made.to_do == ()
    spec = SiteHome(here / "a").spec()
    assert spec.source == str(here / "rows.csv")
    assert spec.schema_file == str(here / "schema.yaml")
    assert spec.declared is not None
    assert (spec.declared.rows, spec.declared.persons) == (120, 120)
    assert spec.ceilings.delta == 1e-6
    request = json.loads((here / "hospital-a.request.json").read_text())["body"]
    assert (request["rows"], request["persons"], request["number"]) == (120, 120, 1)
    assert made.request.path == Path("hospital-a.request.json")


def test_only_figures_of_two_digits_leave_the_site(here: Path) -> None:
    write_rows(here / "rows.csv", people(1234))
    site_init(here / "a", "hospital-a", ROWS)
    sent = (here / "hospital-a.request.json").read_text()
    assert "1234" not in sent
    assert '"rows": 1200' in sent
    assert '"persons": 1200' in sent
    assert "rows.csv" not in sent


def test_without_a_subject_nobody_is_counted(here: Path) -> None:
    assert counted(str(here / "rows.csv"), None) == (121, None)
    assert counted(str(here / "rows.csv"), here / "schema.yaml") == (121, 120)
    rows, persons = counted("builtin:randhie", None)
    assert rows > (persons or 0) > 1000


def test_counting_in_parts_counts_nobody_twice(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_setup, "_MERGE", 7)
    write_rows(here / "rows.csv", people(50) * 3)
    assert counted(str(here / "rows.csv"), here / "schema.yaml") == (150, 50)


def test_what_is_not_said_waits_to_be_filled_in(here: Path) -> None:
    made = site_init(here / "a", "hospital-a", Terms(rows=500))
    assert set(made.to_do) == {
        "source", "schema", "ceilings.epsilon_per_study", "ceilings.epsilon_life", "ceilings.delta",
    }  # fmt: skip
    with pytest.raises(ConfigError):
        SiteHome(here / "a").spec()
    with pytest.raises(UsageError, match="--rows"):
        site_init(here / "b", "hospital-b", Terms())
    assert not (here / "b" / "site.yaml").exists()


def test_once_more_changes_nothing_and_hands_the_request_out_again(here: Path) -> None:
    site_init(here / "a", "hospital-a", ROWS)
    before = {path: path.read_bytes() for path in (here / "a").rglob("*") if path.is_file()}
    (here / "hospital-a.request.json").unlink()
    again = site_init(here / "a", "hospital-a", Terms())
    assert not again.fresh
    assert {path: path.read_bytes() for path in (here / "a").rglob("*") if path.is_file()} == before
    assert (here / "hospital-a.request.json").read_bytes() == (here / "a" / "request.json").read_bytes()


def test_a_size_changed_in_the_file_makes_another_request(here: Path) -> None:
    site_init(here / "a", "hospital-a", ROWS)
    config = here / "a" / "site.yaml"
    config.write_text(config.read_text().replace("rows: 120", "rows: 4567"))
    site_init(here / "a", "hospital-a", Terms())
    body = json.loads((here / "hospital-a.request.json").read_text())["body"]
    assert (body["rows"], body["number"]) == (4600, 2)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("writes", range(1, 9))
def test_an_init_killed_after_any_write_is_finished(
    writes: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every private file goes through one rename; the process is killed right after the n-th of them."""
    real, done = Path.replace, []

    def killed(self: Path, target: Path) -> Path:
        moved = real(self, target)
        done.append(target)
        if len(done) == writes:
            raise Killed
        return moved

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        try:
            site_init(here / "a", "hospital-a", TERMS)
            assert writes > 6  # then nothing was left to be killed
        except Killed:
            assert len(done) == writes
    kept = {path: path.read_bytes() for path in (here / "a" / "keys").iterdir() if path.suffix == ".key"}
    made = site_init(here / "a", "hospital-a", TERMS)
    assert all(path.read_bytes() == data for path, data in kept.items())
    home = SiteHome(here / "a")
    request = site_side.needed_request(home)
    assert (request.number, request.identity) == (1, home.identity().public.hex())
    assert home.spec().name == "hospital-a"
    assert made.request.path.exists()
    assert not [it for it in (here / "a").rglob("*") if ".writing" in it.name]


@pytest.mark.parametrize("writes", range(1, 10))
def test_a_server_init_killed_after_any_write_is_finished(
    writes: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = Path.replace, []

    def killed(self: Path, target: Path) -> Path:
        moved = real(self, target)
        done.append(target)
        if len(done) == writes:
            raise Killed
        return moved

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        try:
            server_init(here / "s", "a.example:1")
            assert writes > 8
        except Killed:
            assert len(done) == writes
    server_init(here / "s", "a.example:1")
    found = server_status(here / "s")
    assert [it["certificate"] for it in found["certificates"]] == ["ca", "tls"]
    assert found["warnings"] == []


def test_another_name_or_address_for_a_home_is_refused(here: Path) -> None:
    site_init(here / "a", "hospital-a", ROWS)
    with pytest.raises(ConfigError, match="another name") as error:
        site_init(here / "a", "hospital-b", ROWS)
    assert error.value.line is not None
    server_init(here / "s", "a.example:1")
    with pytest.raises(ConfigError, match="another address"):
        server_init(here / "s", "b.example:1")


def test_a_folder_with_other_things_in_it_is_left_alone(here: Path) -> None:
    (here / "a").mkdir(mode=0o700)
    (here / "a" / "thesis.txt").write_text("x")
    for call in (
        lambda: site_init(here / "a", "hospital-a", ROWS),
        lambda: server_init(here / "a", "a.example:1"),
    ):
        with pytest.raises(ConfigError, match=r"thesis\.txt"):
            call()
    assert [it.name for it in (here / "a").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["", "Hospital", "a b", "../x", "-a", "a" * 64, "a\n"])
def test_a_name_that_no_roster_takes_is_refused_before_anything_is_made(name: str, here: Path) -> None:
    with pytest.raises(UsageError, match="name"):
        site_init(here / "a", name, ROWS)
    with pytest.raises(UsageError, match="name"):
        server_init(here / "a", "a.example:1", name=name)
    with pytest.raises(UsageError, match="taken"):
        site_init(here / "a", "coordinator", ROWS)
    assert not (here / "a").exists()


def test_bad_terms_leave_no_file_behind(here: Path) -> None:
    for terms, words in (
        (Terms(source="none.csv", delta=1e-6), "none.csv"),
        (Terms(rows=5, epsilon_per_study=9.0, epsilon_life=3.0, delta=1e-6), "one study may not spend"),
        (Terms(rows=5, persons=9), "more persons than rows"),
        (Terms(rows=5, delta=2.0), "less than 1"),
    ):
        with pytest.raises((ConfigError, DataError), match=words):
            site_init(here / "a", "hospital-a", terms)
        assert not (here / "a" / "site.yaml").exists()
    site_init(here / "a", "hospital-a", ROWS)
    with pytest.raises(UsageError, match="--address"):
        server_init(here / "s", "https://a.example")


def test_a_key_lost_after_enrolment_is_not_made_in_silence(here: Path) -> None:
    site_init(here / "a", "hospital-a", ROWS)
    (here / "a" / "keys" / "ledger.key").unlink()
    with pytest.raises(ConfigError, match="is gone") as error:
        site_init(here / "a", "hospital-a", ROWS)
    assert "fedgen keys new ledger" in str(error.value.hint)
    assert not (here / "a" / "keys" / "ledger.key").exists()
    handed = keys_new(here / "a", "ledger")
    assert handed is not None
    site_init(here / "a", "hospital-a", ROWS)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("rows.csv", "{}/rows.csv"),
        ("csv://rows.csv?delimiter=;", "csv://{}/rows.csv?delimiter=;"),
        ("parquet://folder", "parquet://{}/folder"),
        ("sqlite:///clinic.db?table=visits", "sqlite:///{}/clinic.db?table=visits"),
        ("csv:///srv/rows.csv", "csv:///srv/rows.csv"),
        ("postgresql://u:p@h/d?table=t", "postgresql://u:p@h/d?table=t"),
        ("s3://bucket/rows", "s3://bucket/rows"),
        ("builtin:randhie", "builtin:randhie"),
    ],
)
def test_paths_are_made_absolute(written: str, read: str, here: Path) -> None:
    assert absolute(written) == read.format(here)


# -- both sides --------------------------------------------------------------------------------------


def test_a_study_office_and_two_hospitals(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "now", lambda: NOW)
    server = make_server(here / "s").root
    for name in ("hospital-a", "hospital-b"):
        home = make_site(here / name, name)
        server_enroll(server, home.request, Believed(keys_show(home.root)["fingerprint"]))
        site_join(home.root, Path(f"{name}.invitation.json"), Believed(keys_show(server)["fingerprint"]))
    found = server_status(server)
    assert [it["site"] for it in found["sites"]] == ["hospital-a", "hospital-b"]
    assert found["sites"][0]["fingerprint"] == keys_show(here / "hospital-a")["fingerprint"]
    assert {it["days"] for it in found["sites"]} == {365}
    assert [it.path.name for it in keys_rotate(server, "sealing")] == [
        "hospital-a.invitation.json", "hospital-b.invitation.json",
    ]  # fmt: skip
    assert keys_rotate(server, "superexec") == []
    server_revoke(server, "hospital-b")
    assert [it.path.name for it in server_invite(server, [])] == ["hospital-a.invitation.json"]
    assert server_status(server)["sites"][1]["revoked"] == "2026-11-21T12:00:00Z"


def test_what_ends_soon_is_warned_of(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "now", lambda: NOW)
    server = make_server(here / "s").root
    server_enroll(server, make_site(here / "a").request, Believed(anyway=True), days=10)
    assert server_status(server)["warnings"] == ["the invitation of hospital-a ends in 10 days"]
    server_revoke(server, "hospital-a")
    assert server_status(server)["warnings"] == []


def test_a_wrong_fingerprint_is_refused_even_where_none_is_needed(here: Path) -> None:
    server = make_server(here / "s").root
    request = make_site(here / "a").request
    server_enroll(server, request, Believed(anyway=True))
    with pytest.raises(Refused, match="fingerprint is another"):
        server_enroll(server, request, Believed("0000 " * 8))


def test_a_home_is_known_by_its_file(here: Path) -> None:
    assert isinstance(home_at(make_site(here / "a").root), SiteHome)
    assert isinstance(home_at(make_server(here / "s").root), ServerHome)
    with pytest.raises(ConfigError, match="no home"):
        home_at(here)
    assert keys_show(here / "a")["role"] == "site"
    assert keys_show(here / "s")["role"] == "coordinator"


@pytest.mark.parametrize("kind", ["sealing", "tls", "", "IDENTITY", "../identity"])
def test_a_key_that_a_site_has_not_is_a_slip(kind: str, here: Path) -> None:
    root = make_site(here / "a").root
    for call in (keys_rotate, keys_new):
        with pytest.raises(UsageError, match="identity, ledger, node") as error:
            call(root, kind)
        assert error.value.exit_code == 2


def test_a_key_that_a_coordinator_has_not_is_a_slip(here: Path) -> None:
    root = make_server(here / "s").root
    for call in (keys_rotate, keys_new):
        with pytest.raises(UsageError):
            call(root, "ledger")


def test_no_key_changes_where_the_request_could_not_be_written(here: Path) -> None:
    home = make_site(here / "a")
    before = {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}
    (here / "hospital-a.request.json").write_text("precious")
    with pytest.raises(ConfigError, match="not overwritten"):
        keys_rotate(home.root, "identity")
    assert {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()} == before
    assert (here / "hospital-a.request.json").read_text() == "precious"
    keys_rotate(home.root, "identity", out=here / "other.json")
    assert (here / "other.json").read_bytes() == home.request.read_bytes()
