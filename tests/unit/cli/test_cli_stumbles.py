"""What a new user mistypes while deploying, and what is said then: what, where, how to mend."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING, Any

import click
import pytest

from fedgen.cli.app import command, guarded

if TYPE_CHECKING:
    from pathlib import Path

CEILINGS = "--epsilon-per-study 2 --epsilon-life 3 --delta 1e-6"
SITE = f"site init a --name hospital-a --source builtin:randhie --rows 1234 {CEILINGS}"


class Typist:
    """Types commands into a folder."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def __call__(self, line: str, *more: str, ends: int = 0) -> tuple[str, str]:
        words = [*line.split(), *more]
        self._monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
        code = guarded(lambda: command().main(words, prog_name="fedgen", standalone_mode=False), words)
        out, err = self._capsys.readouterr()
        assert code == ends, (out, err)
        return out, err


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typist:
    monkeypatch.chdir(tmp_path)
    for name in ("FEDGEN_SITE", "FEDGEN_SERVER", "FEDGEN_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return Typist(capsys, monkeypatch)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, click.exceptions.Abort])
def test_ctrl_c_is_one_line_wherever_it_comes(
    raised: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    """Newer versions of typer turn it into a number without a word."""

    @click.command()
    def verb() -> None:
        raise raised

    assert guarded(lambda: verb.main([], standalone_mode=False), []) == 130
    assert capsys.readouterr().err.strip() == "fedgen: interrupted (a run goes on with --resume)"
    assert guarded(lambda: 130, ["--json"]) == 130
    said = capsys.readouterr()
    assert "interrupted" in said.err
    assert json.loads(said.out)["exit_code"] == 130
    assert guarded(lambda: 3, []) == 3
    assert capsys.readouterr().err == ""


def test_ctrl_c_in_a_verb_of_ours_is_one_line(typed: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedgen.api.enrolment.server_init", interrupted)
    _, err = typed("server init office --address 127.0.0.1:8443", ends=130)
    assert err.count("fedgen: interrupted") == 1


def test_a_fingerprint_without_quotes_is_said_to_need_them(typed: Typist) -> None:
    typed("server init office --address 127.0.0.1:8443")
    typed(SITE)
    torn = "0123 4567 89ab cdef 0123 4567 89ab cdef"
    _, err = typed(f"server enroll hospital-a.request.json --home office --fingerprint {torn}", ends=2)
    assert "put a fingerprint in quotes" in err
    _, err = typed("server status office elsewhere", ends=2)
    assert "see --help" in err


@pytest.mark.parametrize(
    "written", ["", "abcd", "the one on the paper", "0123 4567 89ab cdef 0123 4567 89ab cde", "0" * 65]
)
def test_what_is_no_fingerprint_is_not_called_another_one(typed: Typist, written: str) -> None:
    typed("server init office --address 127.0.0.1:8443")
    typed(SITE)
    _, err = typed("server enroll hospital-a.request.json --home office --fingerprint", written, ends=4)
    assert "not a whole fingerprint (8 groups of 4 digits" in err
    _, err = typed("server enroll hospital-a.request.json --home office --fingerprint", "0" * 32, ends=4)
    assert "the fingerprint is another" in err


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ("--epsilon-per-study 1", "ceilings.epsilon_per_study"),
        ("--epsilon-life 2.5", "ceilings.epsilon_life"),
        ("--epsilon-per-year 2.5", "ceilings.epsilon_per_year"),
        ("--delta 1e-7", "ceilings.delta"),
        ("--rows 99", "declared.rows"),
        ("--persons 7", "declared.persons"),
        ("--source builtin:digits", "source"),
        ("--schema other.yaml", "schema"),
    ],
)
def test_an_owner_never_takes_a_figure_to_be_in_force_that_is_not(
    typed: Typist, tmp_path: Path, changed: str, key: str
) -> None:
    typed(SITE)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert "was there already" in typed(SITE)[0]
    _, err = typed(f"{SITE} {changed}", ends=3)
    assert f"{key}: this home's file says something else, and it is not overwritten" in err
    assert "site.yaml:" in err
    assert "change it there" in err
    typed(f"site init a --name hospital-a {changed}", ends=3)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    typed("site init a --name hospital-a")


def test_a_home_that_cannot_have_a_file_is_not_begun(typed: Typist, tmp_path: Path) -> None:
    typed(f"site init b --name hospital-b --source nowhere.csv {CEILINGS}", ends=3)
    typed(f"site init b --name hospital-b --rows 9 {CEILINGS} --epsilon-life 1", ends=3)
    assert list(tmp_path.iterdir()) == []


def test_each_step_says_the_next_one(typed: Typist) -> None:
    assert "fedgen server enroll" in typed("server init office --address 127.0.0.1:8443")[0]
    assert "then         fedgen site join hospital-a.invitation.json --home a" in typed(SITE)[0]
    assert "then         fedgen site join INVITATION --home " in typed("site status a")[0]
    typed("server enroll hospital-a.request.json --home office --yes")
    out, err = typed("site join hospital-a.invitation.json --home a --yes")
    assert out.startswith("joined coordinator at 127.0.0.1:8443")
    assert "fedgen site relay a --export DIR" in err
    assert "then         fedgen site serve " in typed("site status a")[0]


def test_an_address_that_changed_says_what_to_do(typed: Typist) -> None:
    typed("server init office --address 127.0.0.1:8443")
    _, err = typed("server init office --address 127.0.0.1:8444", ends=3)
    assert "fedgen server invite, and the sites join again" in err


def test_a_wiped_home_says_how_it_is_begun_again(typed: Typist) -> None:
    typed(SITE)
    typed("site wipe a --yes")
    _, err = typed("site status a", ends=3)
    assert "fedgen site init " in err
    assert "made" in typed(SITE)[0]
    assert "stopped" in typed("site status a")[0]
    typed("site wipe a --ledger-too --yes")
    out, err = typed("site wipe a --yes", ends=3)
    assert out == ""
    assert "there is no such folder (check the path" in err
    assert "removes" not in err


def test_a_home_that_is_checked_ends_as_its_worst_check(typed: Typist) -> None:
    typed("server init office --address 127.0.0.1:8443")
    typed(SITE)
    out, _ = typed("doctor --home a", ends=3)
    assert "MEND  invitation" in out
    assert "ok    keys" in out
    document = json.loads(typed("doctor --home a --json", ends=3)[0])
    assert (document["role"], document["well"]) == ("site", False)
    _, err = typed("doctor --home .", ends=3)
    assert "open to others" in err or "is no home" in err


def test_a_home_of_another_user_is_said_to_be_one(typed: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that an argument is wrong: nothing about the command has to be changed, but who gives it."""
    typed(SITE)
    typed("server init office --address 127.0.0.1:8443")
    mine = os.geteuid()
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    for line in (
        "site status a",
        "site revoke abcd --home a",
        "server status office",
        "server invite --home office",
    ):
        _, err = typed(line, ends=3)
        assert f"belongs to another user (uid {mine}) (give the command as that user" in err, line


def test_a_process_that_ends_says_where_to_look(typed: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short:
        def __init__(self, _home: object, said: Any, *, proxy: bool) -> None:
            assert proxy
            self.said = said

        def run(self) -> None:
            self.said("ended", "nginx")

    typed("server init office --address 127.0.0.1:8443")
    monkeypatch.setattr("fedgen.flower.up.ServerUp", Short)
    _, err = typed("server up office")
    assert "nginx  ended; it is started again (`fedgen doctor --home HOME` may say why)" in err
