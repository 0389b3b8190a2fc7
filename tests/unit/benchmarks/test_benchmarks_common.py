"""A benchmark's document has the promised form, and a missed target says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROWS = [{"what": "a", "seconds": 1.23456, "sites": 10}, {"what": "longer", "seconds": None, "sites": 1000}]


@pytest.mark.parametrize(
    ("target", "got", "at_most", "met"),
    [
        (6, 6, False, True),
        (6, 5.9, False, False),
        (600, 600, True, True),
        (600, 601, True, False),
        (6, None, False, False),
    ],
)
def test_a_target_is_met_on_its_own_side(
    common: ModuleType, target: float, got: float | None, *, at_most: bool, met: bool
) -> None:
    assert common.Target("x", target, got, at_most=at_most).met is met


def test_the_document_has_the_promised_keys(common: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    targets = [
        common.Target("cpu_ratio, at least", 6, 7.5),
        common.Target("memory MB, at most", 600, 700, at_most=True),
    ]
    assert common.publish("simulation", ROWS, targets, as_json=True, cpu_ratio=7.5) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["name", "versions", "cpu_ratio", "rows", "targets", "targets_met"]
    assert document["targets"][0] == {"what": "cpu_ratio, at least", "target": 6, "got": 7.5, "met": True}
    assert document["targets_met"] is False
    assert document["rows"] == ROWS
    assert document["versions"]["python"]


def test_the_table_ends_with_one_line_per_target(
    common: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    common.publish(
        "simulation",
        ROWS,
        [common.Target("a ratio", 6, 5.0), common.Target("b ratio", 6, 7.0)],
        as_json=False,
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].split() == ["a", "ratio", "6", "5", "MISSED"]
    assert lines[-1].split() == ["b", "ratio", "6", "7", "met"]


def test_a_table_lines_numbers_up_to_the_right(common: ModuleType) -> None:
    assert common.table(ROWS).splitlines() == [
        "what    seconds  sites",
        "a         1.235     10",
        "longer        -   1000",
    ]
    assert common.table([]) == ""


def test_every_benchmark_takes_json_and_quick(common: ModuleType) -> None:
    parsed = common.options("words").parse_args(["--json", "--quick"])
    assert (parsed.json, parsed.quick) == (True, True)


def test_a_package_that_is_missing_is_named_so(common: ModuleType) -> None:
    assert common.versions(("no-such-package-anywhere",))["no-such-package-anywhere"] == "not installed"
