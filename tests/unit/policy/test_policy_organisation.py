"""Facts to keep: every organisational row has a kind, a fact lacking a field is refused, the export lists all."""

from __future__ import annotations

import pytest

from fedgen.errors import DataError
from fedgen.policy.organisation import KINDS, check_fact, export, missing

ORGANISATIONAL = [
    "G-5.2",
    "G-7.3d",
    "G-11",
    "G-12",
    "G-15",
    "G-19",
    "G-20",
    "G-30",
    "G-33",
    "G-34",
    "C-110",
    "C-125",
    "C-130",
    "C-135w",
    "C-7101",
    "C-7102",
    "C-CYB",
    "C-AB566",
]


def test_every_organisational_row_has_its_kind():
    assert set(KINDS) == set(ORGANISATIONAL)
    assert all(kind.fields and kind.citation and kind.what for kind in KINDS.values())


def test_a_fact_is_whole_or_refused():
    check_fact("G-33", {"detected_at": "2026-01-01T00:00:00Z", "range": "1-9", "authority_told_at": None})
    with pytest.raises(DataError, match="field is missing") as caught:
        check_fact("G-33", {"detected_at": "x", "range": "1-9"})
    assert caught.value.key == "G-33.authority_told_at"
    with pytest.raises(DataError, match="no such kind"):
        check_fact("G-99", {})


def test_what_a_run_must_have_on_file():
    assert [kind.id for kind in missing([], ["gdpr"])] == ["G-5.2", "G-7.3d", "G-30"]
    assert [kind.id for kind in missing(["G-30"], ["gdpr", "ccpa"])] == ["G-5.2", "G-7.3d", "C-125"]


def test_the_export_lists_what_is_there_and_what_is_not():
    fact = {"statement": "we hold no names", "recorded_at": "2026-01-01T00:00:00Z"}
    listed = {entry["id"]: entry for entry in export({"G-11": [fact]}, ["gdpr"])}
    assert listed["G-11"]["facts"] == [fact]
    assert listed["G-12"]["facts"] == []
    assert not any(name.startswith("C-") for name in listed)
    with pytest.raises(DataError):
        export({"G-11": [{}]}, ["gdpr"])
