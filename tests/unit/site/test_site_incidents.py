"""The incident log: everything stays at the site, and nothing that befalls it stops a refusal."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from support import canaries
from support.federation import Desk, make_site, small_study

from fedgen.errors import Code, ConfigError
from fedgen.messages import Joined, Refusal
from fedgen.site.incidents import IncidentLog

if TYPE_CHECKING:
    from pathlib import Path


def _raised(error: BaseException) -> BaseException:
    patient = "patient 4711"
    try:
        raise error  # noqa: TRY301 - it is the frame that is wanted
    except BaseException as caught:  # noqa: BLE001 - any error, with the frame it was raised in
        assert patient
        return caught


def test_an_incident_is_one_line_with_the_number_that_left(tmp_path: Path) -> None:
    log = IncidentLog(tmp_path / "deep" / "incidents.jsonl")
    error = _raised(ConfigError("wrong", where="a.yaml", line=3, hint="mend it"))
    number = log.record(Code.DATA, error, round_number=7)
    (line,) = (tmp_path / "deep" / "incidents.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert re.fullmatch("[0-9a-f]{16}", number)
    assert entry["incident"] == number
    assert (entry["code"], entry["round"], entry["error"]) == ("data", 7, "ConfigError")
    assert entry["text"] == "a.yaml:3: wrong (mend it)"
    assert entry["frames"][-1].endswith("_raised")


def test_variables_of_the_frames_are_not_written_down(tmp_path: Path) -> None:
    log = IncidentLog(tmp_path / "log")
    log.record(Code.FAULT, _raised(ValueError("short")), round_number=1)
    assert "4711" not in (tmp_path / "log").read_text()


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    log = IncidentLog(tmp_path / "log")
    log.record(Code.FAULT, ValueError(), round_number=0)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_numbers_repeat_for_nobody(tmp_path: Path) -> None:
    log = IncidentLog(None)
    same = ValueError("same")
    assert len({log.record(Code.FAULT, same, round_number=1) for _ in range(100)}) == 100


@pytest.mark.parametrize("text", ["\udcff", "two\nlines", "\0", "x" * 10**6, "“Ü”"])
def test_any_text_makes_one_bounded_line(tmp_path: Path, text: str) -> None:
    log = IncidentLog(tmp_path / "log")
    log.record(Code.FAULT, ValueError(text), round_number=1)
    (line,) = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert len(line) < 5000


def test_an_error_that_cannot_be_put_in_words_is_still_an_incident(tmp_path: Path) -> None:
    log = IncidentLog(tmp_path / "log")
    number = log.record(Code.FAULT, canaries.Mute("x"), round_number=1)
    entry = json.loads((tmp_path / "log").read_text())
    assert (entry["incident"], entry["error"]) == (number, "Mute")


def test_every_error_there_is_can_be_recorded(tmp_path: Path) -> None:
    log = IncidentLog(tmp_path / "log")
    numbers = [log.record(Code.FAULT, error, round_number=1) for _name, error in canaries.named()]
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["incident"] for line in lines] == numbers


def _unwritable(folder: Path, kind: str) -> Path:
    if kind == "a folder in its place":
        (folder / "log").mkdir()
        return folder / "log"
    if kind == "a file as its folder":
        (folder / "file").write_text("x")
        return folder / "file" / "log"
    return folder / "NUL\0NUL"


@pytest.mark.parametrize("kind", ["a folder in its place", "a file as its folder", "an impossible name"])
def test_a_log_that_cannot_be_written_does_not_stop_the_site(tmp_path: Path, kind: str) -> None:
    desk = Desk(small_study())
    holder = make_site(tmp_path / "site", desk, incidents=IncidentLog(_unwritable(tmp_path, kind)))
    message, _ = holder.ask(desk.train(1))
    assert isinstance(message, Refusal)
    assert message.code is Code.NOT_ADMITTED
    assert isinstance(holder.ask(desk.join())[0], Joined)


def test_a_full_disk_does_not_stop_the_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedgen.site.incidents._append", full)
    desk = Desk(small_study())
    message, _ = make_site(tmp_path, desk).ask(desk.train(1))
    assert isinstance(message, Refusal)
    assert message.code is Code.NOT_ADMITTED


def test_the_words_stay_at_the_site(tmp_path: Path) -> None:
    def broken() -> Any:
        raise ValueError("row 12: patient 4711 has 99 visits")

    desk = Desk(small_study())
    holder = make_site(tmp_path, desk, table=broken)
    holder.ask(desk.join())
    reply = holder.site.handle(desk.train(1))
    message, _ = holder.desk.read(reply, holder.identity)
    assert isinstance(message, Refusal)
    assert b"4711" not in reply.replace(message.incident.encode(), b"")[:-64]
    entry = json.loads(holder.incidents.read_text())
    assert "patient 4711" in entry["text"]
    assert entry["incident"] == message.incident
