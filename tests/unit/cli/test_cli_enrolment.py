"""The verbs of enrolment as they are typed: what they print, what they ask, how they end."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from fedgen.cli.app import command, guarded

if TYPE_CHECKING:
    from pathlib import Path

CEILINGS = ["--epsilon-per-study", "1", "--epsilon-life", "3", "--delta", "1e-6"]


class Shell:
    """Types commands into a folder, and answers what is asked."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def __call__(
        self, line: str, *more: str, answer: str | io.StringIO = "", ends: int = 0
    ) -> tuple[str, str]:
        words = [*line.split(), *more]
        self._monkeypatch.setattr("sys.stdin", io.StringIO(answer) if isinstance(answer, str) else answer)
        code = guarded(lambda: command().main(words, prog_name="fedgen", standalone_mode=False), words)
        out, err = self._capsys.readouterr()
        assert code == ends, (out, err)
        return out, err

    def json(self, line: str, *more: str, ends: int = 0) -> Any:
        return json.loads(self(line, *more, "--json", ends=ends)[0])


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    for name in ("FEDGEN_SITE", "FEDGEN_SERVER"):
        monkeypatch.delenv(name, raising=False)
    return Shell(capsys, monkeypatch)


@pytest.fixture
def both(shell: Shell) -> Shell:
    shell("server init office --address 127.0.0.1:8443")
    shell("site init a --name hospital-a --source builtin:randhie --rows 1234", *CEILINGS)
    return shell


def test_from_nothing_to_joined_and_back(both: Shell, tmp_path: Path) -> None:
    site = both.json("keys show a")["fingerprint"]
    office = both.json("keys show office")["fingerprint"]
    out, _ = both("server enroll hospital-a.request.json --home office --fingerprint", site)
    assert office in out
    assert both.json("site join hospital-a.invitation.json --home a --fingerprint", office)[
        "coordinator"
    ] == ("coordinator")
    out, _ = both("server status office")
    assert "hospital-a" in out
    assert "1,200" in out
    both("server revoke hospital-a --home office")
    assert "REVOKED" in both("server status office")[0]


def test_the_default_is_no(both: Shell) -> None:
    for answer in ("", "\n", "n\n", "no\n", "maybe\n", "yess\n"):
        out, err = both("server enroll hospital-a.request.json --home office", answer=answer, ends=4)
        assert out == ""
        assert "because      hospital-a was not enrolled before" in err
        assert "nothing was changed" in err
    assert both.json("server status office")["sites"] == []
    _, err = both("server enroll hospital-a.request.json --home office", answer="YES\n")
    assert both.json("keys show a")["fingerprint"] in err


def test_a_file_exchanged_while_a_person_compares_is_not_taken(both: Shell, tmp_path: Path) -> None:
    """The yes is for the key that was shown, whatever lies there when the file is read again."""
    both("site init x --name hospital-a --source builtin:randhie --rows 9 --out other.json", *CEILINGS)
    path, other = tmp_path / "hospital-a.request.json", (tmp_path / "other.json").read_bytes()

    class Person(io.StringIO):
        def readline(self, *_sizes: object) -> str:  # type: ignore[override]
            path.write_bytes(other)
            return "y\n"

    _, err = both("server enroll hospital-a.request.json --home office", answer=Person(), ends=4)
    assert "fingerprint is another" in err
    assert both.json("server status office")["sites"] == []


def test_joining_asks_too_and_a_wrong_fingerprint_ends_with_refused(both: Shell, tmp_path: Path) -> None:
    both("server enroll hospital-a.request.json --home office --yes")
    both("site join hospital-a.invitation.json --home a", answer="n\n", ends=4)
    wrong = both.json("keys show a")["fingerprint"]
    _, err = both("site join hospital-a.invitation.json --home a --fingerprint", wrong, ends=4)
    assert "fingerprint is another" in err
    assert not (tmp_path / "a" / "invitation.json").exists()
    both("site join hospital-a.invitation.json --home a", answer="y\n")


def test_the_home_may_be_the_working_folder_or_named_by_the_environment(
    both: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDGEN_SERVER", str(tmp_path / "office"))
    monkeypatch.setenv("FEDGEN_SITE", str(tmp_path / "a"))
    both("server enroll hospital-a.request.json --yes")
    both("site join hospital-a.invitation.json --yes")
    monkeypatch.chdir(tmp_path / "office")
    assert both.json("server status")["sites"][0]["site"] == "hospital-a"
    assert both.json("keys show")["role"] == "coordinator"


def test_peers_and_rotation(both: Shell) -> None:
    both("site init b --name hospital-b --source builtin:randhie --rows 900", *CEILINGS)
    fingerprint = both.json("keys show b")["fingerprint"]
    both("site peer hospital-b.request.json --home a --fingerprint", fingerprint)
    assert both.json("keys show a")["peers"] == [{"site": "hospital-b", "fingerprint": fingerprint}]
    sent = both.json("keys rotate identity --home b")
    assert sent["send"] == ["hospital-b.request.json"]
    assert sent["fingerprint"] != fingerprint
    both("site peer hospital-b.request.json --home a")  # its old key vouches: nothing is asked
    both("site peer hospital-b.request.json hospital-b.request.json --home a --fingerprint", "0" * 32, ends=2)
    assert "trusts" in both("keys show a")[0]


def test_errors_end_with_their_codes_and_one_line(both: Shell, tmp_path: Path) -> None:
    for line, code in (
        ("site join none.json --home a", 3),
        ("site join hospital-a.request.json --home a", 3),
        ("server enroll hospital-a.request.json --home a --yes", 3),
        ("server revoke nobody --home office", 3),
        ("keys show none", 3),
        ("keys rotate ledger --home a", 2),
        ("keys rotate nothing --home a", 2),
        ("keys new identity --home a", 3),
        ("site init c --name Bad", 2),
        ("server init c --address nowhere", 2),
    ):
        out, err = both(line, ends=code)
        assert out == ""
        assert err.startswith("fedgen: ")
        assert err.count("\n") == 1
    damaged = (tmp_path / "hospital-a.request.json").read_text().replace("1200", "1300")
    (tmp_path / "hospital-a.request.json").write_text(damaged)
    both("server enroll hospital-a.request.json --home office --yes", ends=6)


def test_no_private_byte_is_printed(both: Shell, tmp_path: Path) -> None:
    printed = "".join(
        "".join(both(line))
        for line in (
            "keys show a",
            "keys show office",
            "server status office",
            "keys rotate tls --home office",
        )
    )
    for path in [*(tmp_path / "a" / "keys").iterdir(), *(tmp_path / "office" / "keys").iterdir()]:
        if path.suffix in {".key", ".secret"}:
            secret = path.read_text().split()[1 if path.read_text().startswith("FEDGEN") else 0]
            assert secret not in printed


@pytest.mark.parametrize("home", [".", "none", "a"])
def test_nobody_is_asked_for_a_home_that_is_none(both: Shell, home: str) -> None:
    out, err = both("server enroll hospital-a.request.json --home", home, ends=3)
    assert out == ""
    assert err.count("\n") == 1
    assert "is no home of a coordinator" in err or "there is no such folder" in err


def test_a_folder_that_is_no_home_is_called_so_whatever_its_mode(shell: Shell, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    _, err = shell("site status", ends=3)
    assert "is no home of a site (name its folder, or set $FEDGEN_SITE" in err


def test_a_state_that_no_store_understands_is_refused_before_anything_is_made(
    shell: Shell, tmp_path: Path
) -> None:
    _, err = shell("server init office --address 127.0.0.1:8443 --state mongodb://hush@h/d", ends=3)
    assert "state: must be a path, sqlite:///path or postgresql://user@host/database" in err
    assert "hush" not in err
    assert not (tmp_path / "office").exists()


def test_the_relay_says_what_it_runs_in_one_document(both: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    both("server enroll hospital-a.request.json --home office --yes")
    both("site join hospital-a.invitation.json --home a --yes")
    became: list[bool] = []
    monkeypatch.setattr("fedgen.api.relaying.run", lambda _, stdout_is_taken: became.append(stdout_is_taken))
    said = both.json("site relay a --port 9095")
    assert (said["site"], said["own_user"], became) == ("hospital-a", True, [True])
    assert said["runs"][0] == "flower-supernode"
    assert "9095" in said["runs"]


def test_training_names_the_missing_home_before_any_site(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("study: x\n")
    _, err = shell("train study.yaml", ends=3)
    assert "is no home of a coordinator (name its folder, or set $FEDGEN_SERVER" in err
