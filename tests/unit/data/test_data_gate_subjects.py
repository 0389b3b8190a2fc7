"""Whose the permitted rows are passes the gate with them, and nobody else's."""

from __future__ import annotations

import numpy as np
import pytest

from fedgen.data.encoded import EncodedTable
from fedgen.data.gate import permit
from fedgen.policy.consent import Decision

CODES = np.arange(12, dtype=np.uint8).reshape(6, 2)
NAMES = np.array(["b", "a", "b", "c", "a", "d"], dtype="S4")


def _decision(permitted: list[bool]) -> Decision:
    return Decision(permitted=np.array(permitted), reasons={}, until=None)


def test_permitted_rows_keep_their_subjects_in_order() -> None:
    table = EncodedTable(codes=CODES, subjects=NAMES)
    passed = permit(table, _decision([True, False, True, False, True, False]), min_cohort=1)
    assert passed.subjects is not None
    assert passed.subjects.tolist() == [b"b", b"b", b"a"]
    assert len(passed.subjects) == len(passed)


def test_without_a_need_for_consent_every_subject_passes() -> None:
    passed = permit(EncodedTable(codes=CODES, subjects=NAMES), None, min_cohort=1)
    assert passed.subjects is not None
    assert passed.subjects.tolist() == NAMES.tolist()


def test_a_table_that_does_not_say_whose_its_rows_are_says_so() -> None:
    assert permit(EncodedTable(codes=CODES), None, min_cohort=1).subjects is None


@pytest.mark.parametrize("decision", [None, _decision([True] * 6), _decision([True] + [False] * 5)])
def test_subjects_cannot_be_changed_through_the_gate(decision: Decision | None) -> None:
    names = NAMES.copy()
    passed = permit(EncodedTable(codes=CODES, subjects=names), decision, min_cohort=1)
    assert passed.subjects is not None
    with pytest.raises(ValueError, match="read-only"):
        passed.subjects[0] = b"z"
    with pytest.raises(AttributeError):
        passed.subjects = names  # type: ignore[misc]
    names[0] = b"ok"  # the site's own array is left writable
