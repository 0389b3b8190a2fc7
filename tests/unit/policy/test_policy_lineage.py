"""Sets of used persons as bitmaps, and the rounds behind a model."""

from __future__ import annotations

import numpy as np
import pytest

from fedgen.policy.lineage import (
    MAX_NUMBER,
    Span,
    Stretch,
    Use,
    first_touch,
    holds,
    may_have_used,
    name_of,
    pack,
    spans,
    stretches,
    unpack,
)

STUDY, RUN, OTHER = "s" * 64, "a" * 64, "b" * 64


def _use(number: int, used: bytes = b"", *, run: str = RUN, upto: int = 100, strangers: bool = False) -> Use:
    return Use(STUDY, run, number, 1, name_of(used), upto, strangers)


def test_the_bytes_of_a_set_are_as_documented() -> None:
    assert pack([0, 1, 8, 15]) == bytes([0b00000011, 0b10000001])
    assert pack([15, 8, 1, 0, 8]) == pack([0, 1, 8, 15])
    assert pack([]) == b""
    assert pack(np.array([7], dtype=np.uint8)) == b"\x80"
    assert unpack(b"\x03\x81").tolist() == [0, 1, 8, 15]


def test_a_million_people_are_125_kb() -> None:
    assert len(pack(np.arange(1_000_000))) == 125_000


@pytest.mark.parametrize("wrong", [-1, MAX_NUMBER + 1])
def test_numbers_out_of_range_are_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match="numbers of persons"):
        pack([3, wrong])


def test_membership_beyond_the_end_is_no() -> None:
    assert holds(b"\x02", 1)
    assert not holds(b"\x02", 0)
    assert not holds(b"\x02", 8)
    assert not holds(b"", 0)
    assert not holds(b"\xff", -1)


def test_a_lost_set_may_hold_anybody() -> None:
    assert may_have_used(_use(1), None, 5)


def test_who_got_a_number_later_was_a_stranger_if_there_were_any() -> None:
    bits = pack([5])
    assert may_have_used(_use(1, bits, upto=5), bits, 5)
    assert not may_have_used(_use(1, bits, upto=5), bits, 6)
    assert may_have_used(_use(1, bits, upto=5, strangers=True), bits, 6)
    assert not may_have_used(
        _use(1, bits, upto=9, strangers=True), bits, 6
    )  # had a number, and is not in the set


def test_spans_run_from_the_first_to_the_last_round_of_each_run() -> None:
    uses = [_use(number, run=run) for run in (OTHER, RUN) for number in (3, 1, 2, 5)]
    found = spans(uses, lambda use: use.round != 1 or use.run == OTHER)
    assert found == (Span(STUDY, RUN, 2, 5), Span(STUDY, OTHER, 1, 5))
    assert spans(uses, lambda _use: False) == ()


def test_the_first_touch_is_looked_for_where_the_model_came_from() -> None:
    lineage = (Stretch(RUN, 1, 5), Stretch(OTHER, 6, 8))
    every = {(RUN, number) for number in range(1, 9)} | {(OTHER, number) for number in range(6, 9)}
    assert first_touch(lineage, {(OTHER, 7)}, every) == 7
    assert first_touch(lineage, {(RUN, 7)}, every) is None  # undone by a rollback
    assert first_touch(lineage, {(RUN, 2), (OTHER, 6)}, every) == 2
    assert first_touch(lineage, set(), every) is None
    assert first_touch((), set(), set()) is None


def test_a_round_that_is_not_on_record_may_have_used_anybody() -> None:
    lineage = (Stretch(RUN, 1, 5),)
    known = {(RUN, number) for number in (1, 2, 3, 5)}
    assert first_touch(lineage, set(), known) == 4
    assert first_touch(lineage, {(RUN, 2)}, known) == 2


def test_stretches_of_a_run_that_was_rolled_back_twice() -> None:
    assert stretches(["a"], [], 4) == (Stretch("a", 1, 4),)
    assert stretches(["a"], [], 0) == ()
    assert stretches(["a", "b"], [5], 8) == (Stretch("a", 1, 5), Stretch("b", 6, 8))
    assert stretches(["a", "b", "c"], [5, 7], 9) == (
        Stretch("a", 1, 5),
        Stretch("b", 6, 7),
        Stretch("c", 8, 9),
    )
    assert stretches(["a", "b", "c"], [5, 3], 4) == (Stretch("a", 1, 3), Stretch("c", 4, 4))
    assert stretches(["a", "b", "c"], [5, 0], 2) == (Stretch("c", 1, 2),)
    with pytest.raises(ValueError, match="between two runs"):
        stretches(["a", "b"], [], 3)
