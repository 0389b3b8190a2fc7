"""Plain words for every code, and numbers that never understate."""

from __future__ import annotations

import pytest

from fedgen.errors import Code
from fedgen.report import words


def test_every_code_outcome_unit_and_trust_has_words() -> None:
    assert set(words.REFUSALS) == set(Code)
    assert all(text.endswith(".") for text in words.REFUSALS.values())
    assert set(words.OUTCOMES) == {"completed", "budget", "quorum", "interrupted"}
    from fedgen.privacy.units import Trust, Unit

    assert set(words.UNITS) == {unit.value for unit in Unit}
    assert set(words.TRUST) == {trust.value for trust in Trust}


def test_unknown_codes_are_shown_as_words() -> None:
    assert words.refusal("late") == words.REFUSALS[Code.LATE]
    assert words.refusal("never-heard-of") == "never-heard-of"
    assert words.exclusion("objected") == "Objection on record"
    assert words.exclusion("new-reason") == "New reason"


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.9991, "3.000"), (2.0, "2.000"), (0.1234, "0.124"), (0.1 + 0.2, "0.300"), (0.0, "0.000")],
)
def test_bounds_are_rounded_up(value: float, text: str) -> None:
    assert words.rounded_up(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (141, "2 min 21 s"), (7300, "2 h 1 min"), (-1, "0 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_some_names() -> None:
    assert words.some(["a", "b"]) == "a, b"
    assert words.some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


@pytest.mark.parametrize(
    ("rounds", "text"), [([3], "3"), ([1, 2, 3], "1 to 3"), ([9, 1, 2, 2, 7], "1 to 2, 7, 9")]
)
def test_ranges(rounds: list[int], text: str) -> None:
    assert words.ranges(rounds) == text


def test_percent() -> None:
    assert words.percent(None) == words.NOTHING
    assert words.percent(0.12345) == "12.3\u00a0%"


def test_glossary_is_in_order_and_complete_sentences() -> None:
    assert len({term for term, _ in words.GLOSSARY}) == len(words.GLOSSARY) >= 12
    assert all(meaning.endswith(".") for _, meaning in words.GLOSSARY)
