import copy
import dataclasses
import pickle
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

import fedgen.data.gate
from fedgen.data.encoded import EncodedTable
from fedgen.data.gate import PermittedTable, permit
from fedgen.data.growing import GrowingArray
from fedgen.errors import Code, Refused
from fedgen.policy.consent import Decision

CODES = np.arange(60, dtype=np.uint8).reshape(20, 3)
SUBJECTS = np.array([b"p%d" % (i // 2) for i in range(20)])


def decision(*permitted: Any, n: Any = 20, reasons: Any = None) -> Any:
    mask = np.zeros(n, dtype=bool)
    mask[list(permitted)] = True
    return Decision(
        mask,
        {"consent-withdrawn": int((~mask).sum())} if reasons is None else reasons,
        datetime(2027, 1, 1, tzinfo=UTC),
    )


def on_disk(codes: Any) -> Any:
    growing = GrowingArray(codes.dtype, codes.shape[1:], spill_bytes=0)
    growing.append(codes)
    return growing.finish()


@pytest.mark.parametrize("codes", [CODES, on_disk(CODES)], ids=["memory", "disk"])
def test_exactly_the_permitted_rows_pass_in_order(codes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedgen.data.gate._CHUNK_ROWS", 2)
    permitted = permit(EncodedTable(codes), decision(1, 5, 6, 19), min_cohort=1)
    assert (permitted.codes == CODES[[1, 5, 6, 19]]).all()
    assert permitted.codes.dtype == np.uint8
    assert len(permitted) == 4


def test_counts_are_those_of_the_decision_and_a_copy() -> None:
    reasons = {"objected": 3, "consent-missing": 15}
    permitted = permit(EncodedTable(CODES), decision(0, 1, reasons=reasons), min_cohort=1)
    assert permitted.excluded == reasons
    permitted.excluded["objected"] = 0
    reasons["objected"] = 0
    assert permitted.excluded["objected"] == 3


@pytest.mark.parametrize("answer", [None, decision(*range(20), reasons={})])
def test_where_all_rows_may_be_used_nothing_is_copied(answer: Any) -> None:
    permitted = permit(EncodedTable(CODES), answer, min_cohort=1)
    assert np.shares_memory(permitted.codes, CODES)
    assert permitted.excluded == {}


@pytest.mark.parametrize("answer", [None, decision(*range(19))])
def test_rows_cannot_be_changed_through_the_gate(answer: Any) -> None:
    permitted = permit(EncodedTable(CODES.copy()), answer, min_cohort=1)
    with pytest.raises(ValueError, match="read-only"):
        permitted.codes[0, 0] = 1


def test_the_table_of_the_site_is_left_as_it_was() -> None:
    codes = CODES.copy()
    permit(EncodedTable(codes), None, min_cohort=1)
    codes[0, 0] = 9
    assert codes[0, 0] == 9


@pytest.mark.parametrize("min_cohort", [0, 5])
def test_nobody_permitted_is_a_refusal_by_consent_before_any_other(min_cohort: Any) -> None:
    with pytest.raises(Refused) as caught:
        permit(EncodedTable(CODES), decision(), min_cohort=min_cohort)
    assert caught.value.code is Code.CONSENT
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("answer", [None, decision(n=0)])
def test_a_table_without_rows_is_too_small_a_cohort(answer: Any) -> None:
    with pytest.raises(Refused) as caught:
        permit(EncodedTable(CODES[:0]), answer, min_cohort=0)
    assert caught.value.code is Code.COHORT_TOO_SMALL


@pytest.mark.parametrize(("min_cohort", "passes"), [(0, True), (4, True), (5, False)])
def test_without_subjects_the_cohort_is_of_rows(min_cohort: Any, passes: Any) -> None:
    table, answer = EncodedTable(CODES), decision(0, 1, 2, 3)
    if passes:
        assert len(permit(table, answer, min_cohort=min_cohort)) == 4
    else:
        with pytest.raises(Refused) as caught:
            permit(table, answer, min_cohort=min_cohort)
        assert caught.value.code is Code.COHORT_TOO_SMALL
        assert "4" not in str(caught.value)


@pytest.mark.parametrize("rows", [(0, 1, 2, 3), (0, 2), tuple(range(4))])
def test_with_subjects_the_cohort_is_of_persons(rows: Any) -> None:
    table = EncodedTable(CODES, SUBJECTS)
    assert permit(table, decision(*rows), min_cohort=2)
    with pytest.raises(Refused):
        permit(table, decision(*rows), min_cohort=3)


@pytest.mark.parametrize("least", range(1, 12))
def test_counting_persons_stops_early_but_never_wrongly(least: Any) -> None:
    subjects = np.array([b"a"] * 10 + [b"p%d" % i for i in range(10)])
    table = EncodedTable(CODES, subjects)
    there = 11
    for answer in (None, decision(*range(20), reasons={})):
        assert permit(table, answer, min_cohort=least) if least <= there else True
    with pytest.raises(Refused):
        permit(table, None, min_cohort=there + 1)


def test_a_decision_of_other_rows_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="not of the rows"):
        permit(EncodedTable(CODES), decision(0, n=19), min_cohort=1)
    with pytest.raises(ValueError, match="min_cohort"):
        permit(EncodedTable(CODES), None, min_cohort=-1)


@pytest.mark.parametrize("options", [{}, {"token": object()}, {"token": None}])
def test_nobody_else_can_make_a_permitted_table(options: Any) -> None:
    with pytest.raises(TypeError, match="permit only"):
        PermittedTable(CODES, {}, **options)


def test_a_permitted_table_cannot_be_copied_derived_or_sent() -> None:
    permitted = permit(EncodedTable(CODES), None, min_cohort=1)
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="stays in the process"):
            way(permitted)
    with pytest.raises(TypeError, match="permit only"):
        type("Loose", (PermittedTable,), {})
    with pytest.raises(TypeError):
        dataclasses.replace(permitted, excluded={})
    with pytest.raises(AttributeError):
        permitted.codes = CODES


def test_the_gate_is_the_only_place_that_knows_the_token() -> None:
    assert fedgen.data.gate._TOKEN not in vars(PermittedTable).values()
    assert not hasattr(permit(EncodedTable(CODES), None, min_cohort=1), "__dict__")
