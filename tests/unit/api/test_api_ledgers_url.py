"""Ledgers on a server: verified, read, audited and copied by their URL, which is never shown with its password."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import typer
from support import postgres
from support.open_ledgers import KEY, D, opened, reserve
from typer.main import get_command

from fedgen.api.ledgers import audit_budget, export_ledger, ledgers_in, show_ledger, verify_ledger
from fedgen.cli.app import guarded
from fedgen.cli.ledger import register_audit, register_ledger
from fedgen.errors import ConfigError, UsageError
from fedgen.ledger.address import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.postgres


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    """The URL of a ledger with two rounds."""
    url = postgres.with_ledger(postgres_url)
    with opened(url) as ledger:
        ledger.settle(reserve(ledger, 1), D)
        reserve(ledger, 2)
    yield url
    postgres.drop(url)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    app = typer.Typer(rich_markup_mode=None)
    register_ledger(app)
    register_audit(app)

    def run(*words: object) -> tuple[int, str, str]:
        arguments = [str(word) for word in words]
        code = guarded(lambda: get_command(app).main(args=arguments, standalone_mode=False), arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_ledger_on_a_server_is_verified_shown_and_audited(url: str, tmp_path: Path) -> None:
    (checked,) = verify_ledger(url, KEY.verify_key)
    name = Server.parse(url).ledger
    assert (checked.name, checked.ok, checked.checkpoint, checked.report.entries) == (name, True, None, 4)
    assert [line.entry for line in show_ledger(url)] == ["opened", "reserved", "settled", "reserved"]
    local = tmp_path / "copy.db"
    assert export_ledger(url, local) == 4
    there, here = audit_budget(url).figures, audit_budget(local).figures
    assert [(it.dataset, it.pld, it.rdp) for it in there] == [(it.dataset, it.pld, it.rdp) for it in here]
    assert there


def test_without_a_name_every_ledger_of_the_database_is_meant(
    url: str, postgres_url: str, tmp_path: Path
) -> None:
    other = postgres.with_ledger(postgres_url)
    opened(other, origin="clinic").close()
    try:
        names = {Server.parse(it).ledger for it in (url, other)}
        assert names <= set(ledgers_in(postgres_url))
        origins = {it.report.origin for it in verify_ledger(postgres_url) if it.name in names}
        assert origins == {"hospital", "clinic"}
        with pytest.raises(UsageError, match="one ledger goes into one file"):
            export_ledger(postgres_url, tmp_path / "copy.db")
    finally:
        postgres.drop(other)


def test_a_ledger_that_is_not_there_is_named(postgres_url: str) -> None:
    with pytest.raises(ConfigError, match="no ledger here"):
        verify_ledger(postgres.with_ledger(postgres_url, "nothing"))


def test_the_verbs_take_a_url_and_never_show_its_password(call: Any, url: str, tmp_path: Path) -> None:
    secret = url.replace("tester@", "tester:hunter2@")
    shown = str(Server.parse(url))
    code, out, err = call("ledger", "verify", secret, "--json")
    assert (code, json.loads(out)["ledgers"][0]["path"]) == (0, shown)
    code, out, more = call("ledger", "export", secret, "--out", tmp_path / "copy.db")
    assert (code, out.strip()) == (0, f"{tmp_path / 'copy.db'}: 4 entries")
    assert call("ledger", "verify", tmp_path / "copy.db")[0] == 0
    code, table, last = call("audit", "budget", secret)
    assert code == 0
    (tmp_path / "other").write_text("ab" * 32)
    code, wrong, say = call("ledger", "verify", secret, "--key", tmp_path / "other")
    assert (code, f"fedgen: {shown}: " in say) == (6, True)
    assert "hunter2" not in out + err + more + table + last + wrong + say


def test_a_server_that_does_not_answer_is_a_configuration_error(call: Any) -> None:
    for words in (("ledger", "verify"), ("ledger", "show"), ("audit", "budget")):
        code, out, err = call(*words, "postgresql://ann:hunter2@127.0.0.1:1/claims?ledger=x")
        assert (code, out) == (3, "")
        assert "postgresql://127.0.0.1:1/claims?ledger=x: the ledger's server does not answer" in err
        assert "hunter2" not in err
