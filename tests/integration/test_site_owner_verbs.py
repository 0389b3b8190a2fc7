"""``fedgen site`` as an owner calls it: look, say yes or no, take back, stand, relay, leave, wipe; default no."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.federation import Desk, small_study
from support.processes import start
from support.site_homes import ROOT, make_home, short_folder, wait_until

from fedgen.api.serving import approval_book, served_by, serving_alone
from fedgen.messages import Refusal
from fedgen.site import frames

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fedgen.enrolment.site_home import SiteHome

STUDY = small_study()
HASH = STUDY.study_hash


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteHome:
    made = make_home(tmp_path / "home", Desk(STUDY))
    approval_book(made, "site-01").file(HASH, STUDY)
    monkeypatch.setenv("FEDGEN_SITE", str(made.root))
    return made


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Type an answer at the terminal; nothing typed is the end of the file."""

    def answer(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    answer("")
    return answer


def test_a_site_says_where_it_stands(fedgen: Any, home: SiteHome) -> None:
    said = fedgen("site", "status", "--json")
    assert said.code == 0
    assert said.document["waiting"] == [[HASH, "small"]]
    assert said.document["daemon"] == "stopped"
    text = fedgen("site", "status").out
    assert f"waits        {HASH[:8]}  small" in text
    assert f"fedgen site approve {HASH[:8]}" in text
    assert "coordinator.example.org:8443" in text


@pytest.mark.parametrize("typed", ["", "\n", "n\n", "no\n", "maybe\n", "yess\n", " \n"])
def test_the_default_is_no(fedgen: Any, home: SiteHome, types: Any, typed: str) -> None:
    types(typed)
    said = fedgen("site", "approve", HASH[:8])
    assert said.code == 4
    assert "not approved; nothing was changed" in said.out
    assert "Let this study train on your data? [y/N]" in said.err
    assert not list(home.approvals.iterdir())


@pytest.mark.parametrize("typed", ["y\n", "yes\n", "Y\n"])
def test_yes_is_yes(fedgen: Any, home: SiteHome, types: Any, typed: str) -> None:
    types(typed)
    said = fedgen("site", "approve", HASH[:8])
    assert said.code == 0
    assert f"approved {HASH[:8]}" in said.out
    for word in ("purpose", "columns", "this study", "spent so far", "after it", "updates go", "retention"):
        assert word in said.err
    assert fedgen("site", "status", "--json").document["approved"] == [HASH]


def test_scripts_say_yes_and_take_it_back(fedgen: Any, home: SiteHome, types: Any) -> None:
    said = fedgen("site", "approve", HASH[:12], "--yes", "--json")
    assert (said.code, said.document["approved"]) == (0, True)
    again = fedgen("site", "approve", HASH[:8], "--json")
    assert again.code == 3  # it waits no longer
    back = fedgen("site", "revoke", HASH[:8], "--json")
    assert (back.code, back.document["decision"]) == (0, "revoked")
    assert fedgen("site", "status", "--json").document["revoked"] == [HASH]


def test_a_run_s_study_file_can_be_approved_before_it_asks(
    fedgen: Any, home: SiteHome, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.to_yaml(), encoding="utf-8")
    assert fedgen("site", "approve", tmp_path / "study.yaml", "--yes").code == 0
    changed = STUDY.to_yaml().replace("rounds: 3", "rounds: 30")
    (tmp_path / "study.yaml").write_text(changed, encoding="utf-8")
    said = fedgen("site", "approve", tmp_path / "study.yaml", "--yes")
    assert said.code == 3
    assert "was changed" in said.err


def test_a_study_beyond_the_ceilings_is_not_even_asked_about(fedgen: Any, home: SiteHome, types: Any) -> None:
    dear = small_study(privacy={"noise_multiplier": 0.2})
    approval_book(home, "site-01").file(dear.study_hash, dear)
    types("y\n")
    said = fedgen("site", "approve", dear.study_hash[:8])
    assert said.code == 4
    assert "ceiling" in said.err
    assert "[y/N]" not in said.err
    assert not list(home.approvals.iterdir())


def test_leaving_and_wiping_ask_first(fedgen: Any, home: SiteHome, types: Any) -> None:
    fedgen("site", "approve", HASH[:12], "--yes")
    assert fedgen("site", "leave").code == 4
    assert fedgen("site", "wipe").code == 4
    assert home.invitation.exists()
    left = fedgen("site", "leave", "--yes", "--json")
    assert (left.code, left.document["revoked"]) == (0, [HASH])
    with serving_alone(home):
        refused = fedgen("site", "wipe", "--yes")
    assert refused.code == 4
    assert "stop it first" in refused.err
    wiped = fedgen("site", "wipe", "--yes", "--json")
    assert wiped.code == 0
    assert not home.identity_key.exists()
    assert home.ledger_key.exists()
    gone = fedgen("site", "wipe", "--yes", "--ledger-too", "--json")
    assert (gone.code, gone.document["kept"]) == (0, [])
    assert not home.root.exists()


def test_a_folder_for_the_relay_is_written(fedgen: Any, home: SiteHome, tmp_path: Path) -> None:
    said = fedgen("site", "relay", "--export", tmp_path / "relay")
    assert said.code == 0
    assert (tmp_path / "relay" / "relay.json").exists()


def test_a_place_that_is_no_home_is_named(fedgen: Any, tmp_path: Path) -> None:
    for verb in ("serve", "status", "relay", "leave", "wipe"):
        said = fedgen("site", verb, tmp_path / "none")
        assert said.code == 3, verb
        assert "no such folder" in said.err


@pytest.fixture
def short() -> Iterator[Path]:
    with short_folder() as root:
        yield root


@pytest.mark.process
@pytest.mark.slow
def test_served_from_the_command_line_until_it_is_told_to_stop(short: Path) -> None:
    desk = Desk(STUDY)
    home = make_home(short / "h", desk)
    process = start("site", "serve", home.root, "--json")
    try:
        wait_until(lambda: process.poll() is not None or bool(served_by(home)))
        assert process.poll() is None, process.communicate()
        answer = frames.ask(str(home.socket), desk.join(), timeout=30)
        assert isinstance(desk.read(answer, home.identity())[0], Refusal)
        words = [sys.executable, "-m", "fedgen", "site", "status", str(home.root)]
        status = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        assert "running  process" in status.stdout
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 0
    assert f"listening on {home.socket}" in err
    served = {"site": "site-01", "socket": str(home.socket), "answered": 1, "turned_away": {}}
    assert json.loads(out) == served
    for line in err.splitlines():  # the log says codes; the incident file, at the site, says more
        assert "nobody has approved" not in line
