"""Opaque bytes in Flower's records: an exact inverse, and a code for everything that is not ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import given, settings
from hypothesis import strategies as st

import fedgen.flower.records as records_module
from fedgen.errors import Code, IntegrityError
from fedgen.flower.records import STYPE, copy_shell, from_record, to_record


def _code(record: RecordDict) -> Code:
    with pytest.raises(IntegrityError) as error:
        from_record(record)
    return error.value.code


@given(st.binary(max_size=4096))
@settings(max_examples=50, deadline=None)
def test_an_envelope_comes_back_as_it_went_in(envelope: bytes) -> None:
    assert from_record(to_record(envelope)) == envelope


def test_so_it_does_through_flowers_own_wire_format() -> None:
    envelope = bytes(range(256)) * 40
    proto = recorddict_to_proto(to_record(envelope)).SerializeToString()
    from flwr.proto.recorddict_pb2 import RecordDict as Proto

    assert from_record(recorddict_from_proto(Proto.FromString(proto))) == envelope


def _array(data: bytes = b"abc", **changes: Any) -> Array:
    fields = {"dtype": "uint8", "shape": (len(data),), "stype": STYPE, "data": data}
    return Array(**{**fields, **changes})


FOREIGN: dict[str, RecordDict] = {
    "nothing": RecordDict(),
    "an empty array record": RecordDict({"fedgen": ArrayRecord({})}),
    "another name": RecordDict({"other": ArrayRecord({"envelope": _array()})}),
    "another array": RecordDict({"fedgen": ArrayRecord({"weights": _array()})}),
    "two arrays": RecordDict({"fedgen": ArrayRecord({"envelope": _array(), "more": _array()})}),
    "two records": RecordDict(
        {"fedgen": ArrayRecord({"envelope": _array()}), "more": ArrayRecord({"envelope": _array()})}
    ),
    "metrics in its place": RecordDict({"fedgen": MetricRecord({"envelope": 1})}),
    "configuration in its place": RecordDict({"fedgen": ConfigRecord({"envelope": b"abc"})}),
    "a NumPy array": RecordDict({"fedgen": ArrayRecord({"envelope": Array(np.zeros(3, np.uint8))})}),
    "another type": RecordDict({"fedgen": ArrayRecord({"envelope": _array(stype="pickle")})}),
    "a length that is not its own": RecordDict({"fedgen": ArrayRecord({"envelope": _array(shape=(2,))})}),
    "two dimensions": RecordDict({"fedgen": ArrayRecord({"envelope": _array(shape=(1, 3))})}),
    "no dimension": RecordDict({"fedgen": ArrayRecord({"envelope": _array(shape=())})}),
}


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_a_foreign_record_is_malformed(kind: str) -> None:
    assert _code(FOREIGN[kind]) is Code.MALFORMED


def test_an_envelope_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "MOST_BYTES", 10)
    assert from_record(to_record(b"x" * 10)) == b"x" * 10
    assert _code(to_record(b"x" * 11)) is Code.TOO_LARGE


def test_the_limit_lets_the_largest_message_through() -> None:
    from fedgen.crypto.header import MAX_FRAME

    assert MAX_FRAME < records_module.MOST_BYTES < 2 * MAX_FRAME


def test_a_copied_shell_shares_the_bytes_and_nothing_that_can_be_edited() -> None:
    original = to_record(b"envelope")
    original["note"] = ConfigRecord({"a": 1})
    shell = copy_shell(original)
    assert from_record(shell) == b"envelope"
    shell["note"]["a"] = 2
    del shell["fedgen"]
    assert original["note"]["a"] == 1
    assert from_record(original) == b"envelope"
    assert copy_shell(original)["fedgen"]["envelope"].data is original["fedgen"]["envelope"].data
