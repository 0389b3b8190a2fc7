"""Processes that are started get what they need of the environment, by name, and nothing that others left in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fedgen.api.enrolment import server_init
from fedgen.flower.control import HOME_VARIABLE, environment
from fedgen.flower.passed import passed, passed_for_state
from fedgen.flower.up import ServerUp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECRETS = (
    "AWS_SECRET_ACCESS_KEY", "FEDGEN_CONSENT_STORE_KEY", "GITHUB_TOKEN", "PGPASSWORD", "MYSQL_PWD", "DB_PASSWORD",
    "PGCANARY", "XPATH", "PATHX", "SSH_AUTH_SOCK", "CREDENTIALS_DIRECTORY", "LD_PRELOAD", "PYTHONSTARTUP",
)  # fmt: skip
NEEDED = ("HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS")
POSTGRES = "postgresql://ann@db/state"


@pytest.fixture
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "canary")
    for name in NEEDED:
        monkeypatch.setenv(name, "needed")
    monkeypatch.setenv("HTTPS_PROXY", "http://u:canary@proxy:3128")
    monkeypatch.setenv("PGPASSFILE", "/srv/pgpass")


def leaks(environ: Mapping[str, str]) -> set[str]:
    return {name for name, value in environ.items() if "canary" in value}


@pytest.mark.usefixtures("_planted")
def test_only_what_is_needed_goes_on() -> None:
    assert leaks(passed()) == set()
    assert {name: passed()[name] for name in NEEDED} == dict.fromkeys(NEEDED, "needed")
    assert leaks(passed(outward=True)) == {"HTTPS_PROXY"}  # for who calls out, and for nobody else


@pytest.mark.usefixtures("_planted")
def test_what_opens_the_state_goes_on_where_the_state_is_on_a_server() -> None:
    assert passed_for_state("state.db", None) == {}
    assert passed_for_state("sqlite:////srv/state.db", "env:DB_PASSWORD") == {}
    assert passed_for_state(POSTGRES, None) == {"PGPASSFILE": "/srv/pgpass", "PGPASSWORD": "canary"}
    assert leaks(passed_for_state(POSTGRES, "env:DB_PASSWORD")) == {"PGPASSWORD", "DB_PASSWORD"}
    assert leaks(passed_for_state(POSTGRES, "file:x")) == {"PGPASSWORD"}


@pytest.mark.usefixtures("_planted")
def test_flowers_commands_get_no_more(tmp_path: Path) -> None:
    found = environment(tmp_path)
    assert leaks(found) == set()
    assert (found["FLWR_HOME"], found["FLWR_TELEMETRY_ENABLED"]) == (str(tmp_path), "0")
    assert HOME_VARIABLE not in found


@pytest.mark.usefixtures("_planted")
@pytest.mark.parametrize(("state", "allowed"), [(None, set()), (POSTGRES, {"PGPASSWORD", "DB_PASSWORD"})])
def test_of_a_coordinators_children_one_alone_opens_the_state(
    state: str | None, allowed: set[str], tmp_path: Path
) -> None:
    where = None if state is None else "env:DB_PASSWORD"
    home = server_init(tmp_path / "server", "localhost:8443", state=state, state_password=where)
    superlink, superexec = (kept.child for kept in ServerUp(home, lambda *_: None, proxy=False)._kept)
    assert leaks(superlink.env) == set()
    assert leaks(superexec.env) == allowed
    assert HOME_VARIABLE not in superlink.env
    assert superexec.env[HOME_VARIABLE] == str(home.root)
