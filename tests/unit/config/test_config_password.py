"""A password lies apart from its address: what names it, what is refused, and that no byte of it is ever said."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from fedgen.config.password import (
    address_of,
    check_closed,
    check_takes_password,
    has_password,
    password_at,
    variable_of,
    with_password,
)
from fedgen.config.server import parse_server
from fedgen.errors import ConfigError

CANARY = "Canary-4711/@:%"
WHERE = Path("server.yaml")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{CANARY}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ann:hunter2@db/claims?table=t",
        "postgresql://ann:@db/claims",
        "postgresql+psycopg://:hunter2@db/claims",
        "postgresql://ann:hun/ter2@db/claims",
        "postgresql://ann:hun?ter2@db/claims",
        "postgresql:///claims?host=/run/pg&user=ann&password=hunter2",
        "postgresql://db/claims?sslpassword=hunter2",
        "mysql://ann:hunter2@db/claims?table=t",
        "mysql://db/claims?passwd=hunter2",
        "MongoDB://ann:hunter2@db,db2/claims?collection=t",
        "mongodb://db/c?collection=t&authMechanismProperties=AWS_SESSION_TOKEN:hunter2",
        "s3://AKIA:hunter2@bucket/claims",
        "s3://bucket/claims?aws_secret_access_key=hunter2",
        "abfs://c@a.dfs.core.windows.net/claims?sig=hunter2",
        "abfs://c@a.dfs.core.windows.net/claims?account_key=hunter2",
        "--state=postgresql://ann:hunter2@db/claims",
        "data.source=postgresql://ann:hunter2@db/claims",
        "  postgresql://ann:hunter2@db/claims",
        "Got unexpected extra argument (postgresql://ann:hunter2@db/claims)",
    ],
)
def test_what_holds_a_password(address: str) -> None:
    assert has_password(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "state.db",
        "sqlite:///srv/a:b@c.db",
        "csv://visits:2@x.csv",
        "parquet:///srv/a:b@c",
        "builtin:randhie",
        "s3://bucket/claims?anonymous=yes",
        "postgresql://ann@db:5432/claims?table=passwords&sslmode=verify-full",
        "postgresql://ann@[::1]:5432/claims",
        "postgresql://db/claims?passfile=/srv/pgpass&sslkey=/srv/key&sslcert=/srv/crt",
        "mysql://ann@db/claims?ssl_ca=/etc/ca.pem&ssl_key=/etc/key.pem",
        "mongodb+srv://ann@db/claims?collection=t&tls=true",
    ],
)
def test_what_holds_none(address: str) -> None:
    assert not has_password(address)


_PASSWORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60)


@given(_PASSWORDS)
def test_the_driver_reads_what_lay_in_the_file(password: str) -> None:
    for address in (
        "postgresql://ann@db:5432/claims?x=1",
        "mysql://ann@[::1]/claims",
        "postgresql://ann@/c?host=/run",
    ):
        url = sa.make_url(with_password(address, password))
        plain = sa.make_url(address)
        assert url.password == password
        assert url._replace(password=None) == plain
    spoken = urlsplit(with_password("mongodb://ann@a,b/c", password))
    assert unquote(spoken.password or "") == password
    assert has_password(with_password("mongodb://ann@a,b/c", password))


@pytest.mark.parametrize(
    "address",
    ["state.db", "csv:///srv/a.csv", "postgresql://db/claims", "s3://ann@bucket/x", "postgresql:///c"],
)
def test_an_address_without_a_user_takes_none(address: str) -> None:
    with pytest.raises(ConfigError, match="has no place for a password") as error:
        check_takes_password(address, "env:X", where=WHERE, key="state_password")
    assert (error.value.key, error.value.where) == ("state_password", "server.yaml")
    with pytest.raises(ValueError, match="no place"):
        with_password(address, "x")


def test_there_are_not_two_of_them(secret: Path) -> None:
    with pytest.raises(ConfigError, match="holds a password already") as error:
        address_of(
            f"postgresql://ann:{CANARY}@db/c",
            f"file:{secret}",
            base=secret.parent,
            where=WHERE,
            key="state_password",
        )
    assert "Canary" not in "".join(traceback.format_exception(error.value))


def test_where_none_is_named_the_address_is_as_it_was(tmp_path: Path) -> None:
    for address in ("state.db", "postgresql://ann:p@db/c", "builtin:randhie"):
        assert address_of(address, None, base=tmp_path, where=WHERE, key="k") == address


def test_from_a_file_or_the_environment(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", CANARY)
    for reference in (f"file:{secret}", "file:secret", "env:DB_PASSWORD"):
        assert password_at(reference, base=secret.parent) == CANARY
    whole = address_of("postgresql://a@h/d", "file:secret", base=secret.parent, where=WHERE, key="k")
    assert sa.make_url(whole).password == CANARY
    assert variable_of("env:DB_PASSWORD") == "DB_PASSWORD"
    assert variable_of("file:env:x") is variable_of(None) is None


def test_it_is_read_anew_each_time_and_through_kubernetes_links(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        (folder / "password").write_text(f"{CANARY}{number}\r\n")
        (folder / "password").chmod(0o400)
    (tmp_path / "password").symlink_to("..data/password")
    for number in (1, 2):
        (tmp_path / "..new").symlink_to(f"..{number}")
        (tmp_path / "..new").replace(tmp_path / "..data")
        assert password_at("file:password", base=tmp_path) == f"{CANARY}{number}"


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o660, 0o644, 0o666])
def test_others_may_not_read_or_write_it_whosever_it_is(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    with pytest.raises(ConfigError, match=f"others may read or write the password .mode {mode:04o}."):
        password_at(f"file:{secret}", base=secret.parent)


def _told(path: Path, owner: int, me: int, mode: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Read the file as if it belonged to ``owner`` and this process ran as ``me``: both need root otherwise."""
    path.chmod(mode)
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        values = list(real(descriptor))
        values[4] = owner
        return os.stat_result(values)

    with monkeypatch.context() as patched:
        patched.setattr("fedgen.config.password.os.fstat", fstat)
        patched.setattr("fedgen.config.password.os.geteuid", lambda: me)
        return password_at(f"file:{path}", base=path.parent)


def test_a_file_of_roots_may_be_for_the_services_group(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd shows its access list as a group that reads; Kubernetes gives a group (fsGroup) the file of root."""
    assert _told(secret, 0, 1234, 0o440, monkeypatch) == CANARY
    assert _told(secret, 1234, 1234, 0o600, monkeypatch) == CANARY
    with pytest.raises(ConfigError, match="others may read"):
        _told(secret, 1234, 1234, 0o640, monkeypatch)
    with pytest.raises(ConfigError, match=r"belongs to another user \(uid 4321\)"):
        _told(secret, 4321, 1234, 0o600, monkeypatch)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"Canary\nCanary\n", b"Canary\0", b"Canary\xff", b"Canary" * 200, b"Canary\ttab"],
)
def test_what_is_no_password_is_refused_and_not_quoted(secret: Path, content: bytes) -> None:
    secret.write_bytes(content)
    with pytest.raises(ConfigError, match="is no password") as error:
        password_at(f"file:{secret}", base=secret.parent)
    assert "Canary" not in "".join(traceback.format_exception(error.value))


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DB_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="the environment has no DB_PASSWORD") as error:
        password_at("env:DB_PASSWORD", base=tmp_path, where=WHERE, key="state_password")
    assert error.value.key == "state_password"
    with pytest.raises(ConfigError, match="cannot be read: no such file"):
        password_at("file:none", base=tmp_path)
    with pytest.raises(ConfigError, match="plain file"):
        password_at("file:.", base=tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="plain file"):  # and it does not wait for somebody to write
        password_at("file:pipe", base=tmp_path)


@pytest.mark.parametrize("written", [CANARY, "env:", "env:A B", "env:1A", "file:", "vault:x", "pass:Canary"])
def test_the_password_itself_is_refused_in_its_place_and_not_quoted(written: str) -> None:
    with pytest.raises(ConfigError, match="must say where the password lies, not what it is") as error:
        parse_server({"address": "a:1", "state": "postgresql://a@h/d", "state_password": written})
    assert error.value.key == "state_password"
    assert "Canary" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    ("address", "mode", "fine"),
    [
        ("postgresql://a:p@h/d", 0o600, True),
        ("postgresql://a:p@h/d", 0o640, False),
        ("postgresql://a:p@h/d", 0o604, False),
        ("postgresql://a@h/d", 0o644, True),
    ],
)
def test_a_file_with_a_password_in_it_is_for_its_owner(
    address: str, mode: int, fine: object, tmp_path: Path
) -> None:
    path = tmp_path / "site.yaml"
    path.touch()
    path.chmod(mode)
    if fine:
        check_closed(path, None, "ledger.db", address)
    else:
        with pytest.raises(ConfigError, match="holds a password and is open to others"):
            check_closed(path, None, "ledger.db", address)
