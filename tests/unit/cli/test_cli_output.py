"""What a person sees while a run goes on, and what a script reads."""

from __future__ import annotations

import json
import sys

import pytest

from fedgen.cli.output import Progress, duration, emit, spent, table
from fedgen.errors import Code
from fedgen.events import RoundFinished, SiteRefused, StudyFinished, StudyStarted

STARTED = StudyStarted(study="s", study_hash="ab" * 32, sites=3, first_round=1, rounds=4)


def _round(number: int, *, epsilon: float | None = 1.234, allowed: float | None = 3.0) -> RoundFinished:
    return RoundFinished(
        round=number, attempt=1, sites=3, roster=3, epsilon=epsilon, allowed=allowed, seconds=0.1
    )


def test_a_table_is_left_aligned_without_trailing_spaces() -> None:
    assert table([("a", "bb"), ("ccc", "d"), ("e",)]) == "  a    bb\n  ccc  d\n  e"
    assert table([]) == ""
    assert table([("a", "b")], indent="") == "a  b"


def test_json_is_one_document_and_text_is_one_text(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"ε": 1}, as_json=True, text="never shown")
    assert json.loads(capsys.readouterr().out) == {"ε": 1}
    emit({"ε": 1}, as_json=False, text="shown\n\n")
    assert capsys.readouterr().out == "shown\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (89, "89 s"), (90, "2 min"), (600, "10 min")]
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_was_spent_is_never_understated_and_never_invented() -> None:
    assert spent(_round(1, epsilon=1.2341)) == "ε at most 1.24 of 3"
    assert spent(_round(1, epsilon=None)) == "not private"


def test_progress_in_a_pipe_shows_the_four_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    show = Progress(every=0.0)
    show(STARTED)
    for number in (1, 2, 3, 4):
        show(_round(number))
    show(StudyFinished(outcome="completed", rounds=4))
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0] == "study  s  abababab   3 sites"
    assert lines[1].startswith("round  1/4   sites 3/3   ε at most 1.24 of 3   about ")
    assert lines[1].endswith(" left")
    assert lines[4] == "round  4/4   sites 3/3   ε at most 1.24 of 3"
    assert lines[5] == "completed  after 4 rounds"
    assert "\x1b" not in said.err


def test_progress_in_a_pipe_is_quiet_between_two_lines_but_shows_the_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show = Progress(every=3600.0)
    show(STARTED)
    show._last = float("inf")
    for number in (1, 2, 3, 4):
        show(_round(number))
    assert [line[:10] for line in capsys.readouterr().err.splitlines()] == ["study  s  ", "round  4/4"]


def test_progress_on_a_terminal_rewrites_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    show = Progress()
    show(STARTED)
    show(_round(1))
    show(_round(2))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.count("\r\x1b[2Kround") == 2


def test_a_resumed_run_says_where_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    show = Progress()
    show(StudyStarted(study="s", study_hash="ab" * 32, sites=3, first_round=17, rounds=40))
    assert "resumed at round 17" in capsys.readouterr().err


def test_refusals_are_counted_by_code_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    show = Progress()
    for site in ("a", "b"):
        show(SiteRefused(round=1, site=site, code=Code.CONSENT))
    show(SiteRefused(round=2, site="a", code=Code.BUDGET))
    show(StudyFinished(outcome="budget", rounds=1))
    assert "budget  after 1 rounds   refusals: budget x1, consent x2" in capsys.readouterr().err


def test_who_does_not_take_part_is_named_before_the_first_round(capsys: pytest.CaptureFixture[str]) -> None:
    show = Progress()
    show(STARTED)
    for site, code in (("a", Code.NOT_APPROVED), ("b", Code.NOT_ADMITTED), ("c", Code.BUDGET)):
        show(SiteRefused(round=0, site=site, code=code))
    show(SiteRefused(round=1, site="d", code=Code.LATE))
    said = capsys.readouterr().err.splitlines()[1:]
    assert said[0] == "without  a: not-approved (its owner decides there: fedgen site approve abababab)"
    assert said[1].startswith("without  b: not-admitted (it has to join with the newest invitation")
    assert said[2:] == ["without  c: budget"]
