"""A database that asks for a password; a site and a coordinator whose files do not hold it, and nothing shows it."""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from support.pg_login import PASSWORD, change_password, login_needed

from fedgen.api.site_data import SiteTable
from fedgen.cli.app import command, guarded
from fedgen.coordinator.state.store import StateStore
from fedgen.enrolment.server_home import ServerHome
from fedgen.enrolment.site_home import SiteHome
from fedgen.errors import FedgenError
from fedgen.schema.table import load_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.postgres, pytest.mark.slow]
CEILINGS = ["--epsilon-per-study", "1", "--epsilon-life", "3", "--delta", "1e-6"]
ROWS = "INSERT INTO visits SELECT i, i % 2 = 0 FROM generate_series(1, 1234) AS it(i)"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with login_needed("CREATE TABLE visits (id integer PRIMARY KEY, smoker boolean)", ROWS) as found:
        yield found


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    for name in ("PGPASSFILE", "PGPASSWORD", "FEDGEN_SITE", "FEDGEN_SERVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "schema.yaml").write_text("columns: [{name: smoker, type: boolean}]\n")
    put(tmp_path / "secret", f"{PASSWORD}\n")

    def run(*words: object) -> tuple[int, str, str]:
        given = [*map(str, words)]
        code = guarded(lambda: command().main(given, prog_name="fedgen", standalone_mode=False), given)
        out, err = capsys.readouterr()
        assert PASSWORD not in out + err
        return code, out, err

    return run


def put(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def site_init(call: Any, address: str, *more: object) -> tuple[int, str, str]:
    source = f"{address}&table=visits"
    found: tuple[int, str, str] = call(
        "site",
        "init",
        "a",
        "--name",
        "hospital-a",
        "--source",
        source,
        "--schema",
        "schema.yaml",
        *CEILINGS,
        *more,
    )
    return found


def holds_it(folder: Path) -> list[str]:
    found = [it for it in folder.rglob("*") if it.is_file() and it.name not in {"secret", ".pgpass"}]
    return [str(it) for it in found if PASSWORD.encode() in it.read_bytes()]


@pytest.mark.parametrize("means", ["file", "env", "pgpass"])
def test_a_site_counts_and_reads_rows_that_need_a_password(
    call: Any, address: str, means: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    put(tmp_path / ".pgpass", f"*:*:*:clerk:{escaped}\n" if means == "pgpass" else "")
    how = {
        "file": ["--source-password", "file:secret"],
        "env": ["--source-password", "env:DB_PASSWORD"],
        "pgpass": [],
    }
    code, out, err = site_init(call, address, *how[means], "--json")
    assert code == 0, err
    assert json.loads(out)["to_do"] == []
    home = SiteHome(tmp_path / "a")
    assert home.spec().declared is not None
    assert home.spec().declared.rows == 1200
    assert holds_it(tmp_path) == []
    assert call("site", "status", "a")[0] == 0
    table = SiteTable(
        home.spec().source,
        load_schema(tmp_path / "schema.yaml"),
        base=home.root,
        mark=home.state / "rows",
        changed=lambda: None,
        opens=home.source_address,
    )
    assert len(table()) == 1234
    assert PASSWORD not in repr(home.spec())


def test_a_wrong_or_missing_password_is_one_line_without_it(call: Any, address: str, tmp_path: Path) -> None:
    code, _, err = site_init(call, address)  # the control: the server does ask
    assert (code, err.count("\n")) == (3, 1)
    put(tmp_path / "secret", "Wrong/4711@:%")
    code, _, err = site_init(call, address, "--source-password", "file:secret")
    assert (code, err.count("\n")) == (3, 1)
    assert "Wrong" not in err
    (tmp_path / "secret").chmod(0o644)
    code, _, err = site_init(call, address, "--source-password", "file:secret")
    assert code == 3
    assert "others may read or write the password (mode 0644)" in err
    assert not (tmp_path / "a" / "site.yaml").exists()


def test_a_coordinator_opens_its_state_and_a_changed_password_needs_no_change_here(
    call: Any, address: str, tmp_path: Path
) -> None:
    words = ("server", "init", "office", "--address", "127.0.0.1:8443", "--state", address)
    assert call(*words, "--state-password", "file:secret")[0] == 0
    home = ServerHome(tmp_path / "office")
    with StateStore.open(home.state_url) as store:
        assert store.run("ab" * 32) is None
    assert holds_it(tmp_path) == []
    assert PASSWORD not in repr(home.spec())
    change_password(address, PASSWORD, "another")
    try:
        with pytest.raises(FedgenError) as error:
            StateStore.open(home.state_url)
        said = "".join(traceback.format_exception(error.value))
        assert PASSWORD not in said
        put(tmp_path / "secret", "another")
        StateStore.open(home.state_url).close()
    finally:
        change_password(address, "another", PASSWORD)
