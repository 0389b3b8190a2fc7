"""A password on a command line: refused by what would keep it, warned of elsewhere, quoted nowhere."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from fedgen.cli.app import command, guarded

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary4711"
CEILINGS = ["--epsilon-per-study", "1", "--epsilon-life", "3", "--delta", "1e-6"]
SERVER = ["server", "init", "office", "--address", "127.0.0.1:8443"]
SITE = ["site", "init", "a", "--name", "hospital-a", "--rows", "1000", *CEILINGS]


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = guarded(lambda: command().main([*words], prog_name="fedgen", standalone_mode=False), [*words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize(
    "address",
    [f"postgresql://ann:{CANARY}@db/d", f"postgresql://db/d?password={CANARY}", f"mongodb://u:{CANARY}@h/d"],
)
@pytest.mark.parametrize(("words", "option"), [(SERVER, "--state"), (SITE, "--source")])
@pytest.mark.parametrize("form", ["apart", "joined", "json"])
def test_what_would_keep_it_refuses_it_before_anything_is_made(
    call: Any, tmp_path: Path, words: list[str], option: str, address: str, form: str
) -> None:
    given = [f"{option}={address}"] if form == "joined" else [option, address]
    code, out, err = call(*words, *given, *(["--json"] if form == "json" else []))
    assert code == 2
    assert CANARY not in out + err
    assert err.count("\n") == 1
    assert f"{option} holds a password" in err
    assert f"{option}-password file:PATH or env:NAME" in err
    assert (json.loads(out)["error"] == "UsageError") if form == "json" else out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "option", "key", "home"),
    [
        (SERVER, "--state", "state", "office/server.yaml"),
        (SITE, "--source", "source", "a/site.yaml"),
    ],
)
def test_its_place_is_kept_and_it_is_not(
    call: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    option: str,
    key: str,
    home: str,
) -> None:
    import yaml

    monkeypatch.setenv("DB_PASSWORD", CANARY)
    (tmp_path / "secret").write_text(CANARY)
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "schema.yaml").write_text("columns: [{name: a, type: boolean}]\n")
    address = ["postgresql://ann@db/d?table=t", f"{option}-password", "file:secret"]
    more = ["--schema", "schema.yaml"] if option == "--source" else []
    code, out, err = call(*words, option, *address, *more, "--json")
    assert code == 0, err
    data = yaml.safe_load((tmp_path / home).read_text())
    assert data[key] == "postgresql://ann@db/d?table=t"
    assert data[f"{key}_password"] == f"file:{tmp_path}/secret"
    assert stat.S_IMODE((tmp_path / home).stat().st_mode) == 0o600
    kept = [it.read_bytes() for it in tmp_path.rglob("*") if it.is_file() and it.name != "secret"]
    assert not any(CANARY.encode() in it for it in kept)
    assert CANARY not in out + err


@pytest.mark.parametrize(("words", "option"), [(SERVER, "--state"), (SITE, "--source")])
def test_the_password_itself_is_no_place(call: Any, tmp_path: Path, words: list[str], option: str) -> None:
    address = "postgresql://ann@db/d?table=t"
    code, out, err = call(*words, option, address, f"{option}-password", CANARY)
    assert (code, out) == (2, "")
    assert "a password is named by where it lies" in err
    assert CANARY not in err
    assert not (tmp_path / "office" / "server.yaml").exists()
    assert not (tmp_path / "a" / "site.yaml").exists()


@pytest.mark.parametrize(("words", "option"), [(SERVER, "--state"), (SITE, "--source")])
def test_a_place_without_an_address_that_needs_it_is_refused(
    call: Any, words: list[str], option: str
) -> None:
    for address in ([], [option, "rows.db"], [option, "postgresql://db/d"]):
        code, _, err = call(*words, *address, f"{option}-password", "env:X")
        assert code == 3
        assert "the address has no place for a password" in err


def test_other_verbs_work_and_warn(call: Any) -> None:
    url = f"postgresql://ann:{CANARY}@127.0.0.1:1/claims?ledger=x"
    for words in (["ledger", "verify", url], ["ledger", "verify", f"--{url}"]):
        _, out, err = call(*words)
        assert err.startswith("fedgen: warning: there is a password on this command line")
        assert CANARY not in out + err
    _, _, err = call("ledger", "verify", "postgresql://ann@127.0.0.1:1/claims?ledger=x")
    assert "warning" not in err


def test_the_parser_does_not_quote_it(call: Any) -> None:
    code, out, err = call(*SERVER, f"postgresql://ann:{CANARY}@db/d")
    assert code == 2
    assert CANARY not in out + err
    assert "postgresql://ann:***@db/d" in err
    # What holds none is quoted, as ever.
    _, _, err = call(*SERVER, "postgresql://ann@db/d")
    assert "postgresql://ann@db/d" in err


def test_what_was_asked_for_does_not_show_it() -> None:
    from fedgen.api.enrolment import Terms

    assert CANARY not in repr(Terms(source=f"postgresql://ann:{CANARY}@db/d"))


@pytest.mark.parametrize("how", ["plain", "json", "debug"])
@pytest.mark.parametrize(
    "address", [f"postgresql://ann:{CANARY}@db/d", f"postgresql://db/d?ssl=1&password={CANARY}&x=2"]
)
def test_an_error_that_quotes_what_it_was_given_quotes_no_password(
    call: Any, monkeypatch: pytest.MonkeyPatch, address: str, how: str
) -> None:
    """A verb that takes a path, and is given an address: the path stands in the error."""
    if how == "debug":
        monkeypatch.setenv("FEDGEN_DEBUG", "1")
    code, out, err = call("init", "here", "--from", address, *(["--json"] if how == "json" else []))
    assert code == (1 if how == "debug" else 3)
    assert "***" in err
    assert ("Traceback" in err) is (how == "debug")
    assert ("***" in json.loads(out)["where"]) if how == "json" else out == ""
    assert CANARY not in out + err
    assert "there is a password on this command line" in err


def test_no_traceback_holds_it(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import traceback

    monkeypatch.setenv("FEDGEN_DEBUG", "1")
    with pytest.raises(Exception, match="holds a password") as error:
        call(*SERVER, "--state", f"postgresql://ann:{CANARY}@db/d")
    assert CANARY not in "".join(traceback.format_exception(error.value))
