"""Whose the permitted rows are: by identifier, kept for as long as the same rows are permitted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.federation import small_rows, small_study

from fedgen.data.encoded import EncodedTable
from fedgen.data.gate import permit
from fedgen.dpsgd.persons import PersonIndex
from fedgen.errors import Code, Refused
from fedgen.policy.consent import Decision
from fedgen.site.persons import PersonBook

PERSON: dict[str, Any] = {"unit": "person", "rows_per_person": 3}
STUDY = small_study(privacy=PERSON)


def _table(names: list[str]) -> EncodedTable:
    codes = small_rows(len(names)).codes
    return EncodedTable(codes=codes, subjects=np.array(names, dtype="S8"))


def _decision(permitted: list[bool]) -> Decision:
    return Decision(permitted=np.array(permitted), reasons={}, until=None)


def _groups(book: PersonBook, table: EncodedTable, decision: Decision | None = None) -> list[list[int]]:
    persons = book.of(STUDY, permit(table, decision, min_cohort=1))
    assert persons is not None
    index = persons.index
    return sorted(
        sorted(index.order[low:high].tolist())
        for low, high in zip(index.offsets[:-1], index.offsets[1:], strict=True)
    )


def test_rows_of_one_identifier_are_one_persons() -> None:
    assert _groups(PersonBook(), _table(["b", "a", "b", "c", "a"])) == [[0, 2], [1, 4], [3]]


def test_only_permitted_rows_are_in_the_index() -> None:
    table = _table(["b", "a", "b", "c", "a"])
    left = _decision([True, False, True, True, False])
    assert _groups(PersonBook(), table, left) == [[0, 1], [2]], "numbered as the permitted rows are"


def test_the_limit_of_the_study_comes_with_it() -> None:
    persons = PersonBook().of(STUDY, permit(_table(["a", "b"]), None, min_cohort=1))
    assert persons is not None
    assert persons.rows_each == 3


def test_a_study_that_protects_something_else_has_no_index() -> None:
    table = permit(_table(["a", "b"]), None, min_cohort=1)
    for unit in ("record", "site"):
        assert PersonBook().of(small_study(privacy={"unit": unit}), table) is None


def test_rows_that_do_not_say_whose_they_are_are_refused() -> None:
    table = permit(small_rows(5, people=False), None, min_cohort=1)
    with pytest.raises(Refused) as caught:
        PersonBook().of(STUDY, table)
    assert caught.value.code is Code.DATA


def test_the_index_is_made_once_for_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    book, calls = PersonBook(), []
    real = PersonIndex.of
    monkeypatch.setattr(PersonIndex, "of", lambda person: (calls.append(1), real(person))[1])
    table = _table(["b", "a", "b", "c"])
    first = book.of(STUDY, permit(table, None, min_cohort=1))
    again = book.of(STUDY, permit(_table(["b", "a", "b", "c"]), None, min_cohort=1))
    assert first is not None
    assert again is not None
    assert first.index is again.index
    assert len(calls) == 1


@pytest.mark.parametrize(
    "other",
    [
        ["b", "a", "b", "d"],
        ["a", "b", "b", "c"],
        ["b", "a", "b"],
        ["b", "a", "b", "c", "c"],
    ],
)
def test_other_rows_get_another_index(other: list[str]) -> None:
    book = PersonBook()
    _groups(book, _table(["b", "a", "b", "c"]))
    assert _groups(book, _table(other)) == _groups(PersonBook(), _table(other))


def test_a_withdrawal_gets_another_index() -> None:
    book, table = PersonBook(), _table(["b", "a", "b", "c"])
    _groups(book, table, _decision([True] * 4))
    assert _groups(book, table, _decision([False, True, False, True])) == [[0], [1]]


def test_identifiers_of_another_width_are_not_mistaken_for_the_same_bytes() -> None:
    book = PersonBook()
    wide = EncodedTable(codes=small_rows(2).codes, subjects=np.array([b"ab", b"cd"], dtype="S2"))
    narrow = EncodedTable(codes=small_rows(4).codes, subjects=np.array([b"a", b"b", b"c", b"d"], dtype="S1"))
    assert _groups(book, wide) == [[0], [1]]
    assert _groups(book, narrow) == [[0], [1], [2], [3]]
