"""``check`` of a study under distributed trust: what it costs, whom it protects from what, and what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.studies import write_study

from fedgen.api.checks import check
from fedgen.api.selftest import selftest
from fedgen.cli.app import command, guarded
from fedgen.config.distributed import DistributedPlan
from fedgen.errors import ConfigError
from fedgen.secagg.traffic import traffic

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, *, sites: int = 6, secagg: dict[str, Any] | None = None, **sections: Any) -> Path:
    chosen = {"dropouts": 1, "colluders": 1} if secagg is None else secagg
    sections = {"privacy": {"trust": "distributed"}, "data": {"sites": {"count": sites}}, **sections}
    return write_study(folder, secagg=chosen, **sections)


def test_the_plan_says_what_sums_cost_and_withstand(tmp_path: Path) -> None:
    found = check(written(tmp_path))
    assert isinstance(found.privacy, DistributedPlan)
    said = json.loads(json.dumps(found.to_json()))
    shared = said["secagg"]
    turn = traffic(found.privacy.terms("11" * 32, "", {f"s{i}": b"" for i in range(6)}), masked=True)
    assert said["parameters"] == found.study.parameters == found.privacy.point.grid.dimension
    assert said["bytes_per_round"] == 6 * turn.sent
    assert said["quorum"] == shared["least"] == 5
    assert {key: shared[key] for key in ("protocol", "recovery", "threshold", "dropouts", "colluders")} == {
        "protocol": "full", "recovery": "unmask", "threshold": 4, "dropouts": 1, "colluders": 1,
    }  # fmt: skip
    assert shared["colluders_withstood"] == 1
    assert shared["overprovisioning"] == pytest.approx((6 / 4) ** 0.5)
    assert shared["headroom_bits"] > 0
    assert (shared["ring_bits"], shared["messages_per_round"], shared["messages_after_dropout"]) == (32, 2, 3)
    assert (shared["bytes_sent_per_site"], shared["bytes_received_per_site"]) == (turn.sent, turn.received)
    assert [it["colluders"] for it in shared["facing"]] == [0, 1]
    assert shared["facing"][0]["noise_multiplier"] > shared["facing"][1]["noise_multiplier"]
    assert [it["colluders"] for it in said["privacy"]] == [0, 1]
    assert said["privacy"][1]["epsilon"] <= 3.0


def test_other_trust_has_no_sums_to_speak_of(tmp_path: Path) -> None:
    found = check(write_study(tmp_path))
    assert found.to_json()["secagg"] is None
    assert found.bytes_per_round == 4 * found.parameters * 3


@pytest.mark.parametrize(
    ("secagg", "told"),
    [
        ({"protocol": "sum"}, "protocol: sum is a rehearsal"),
        ({}, "no site is assumed to help the coordinator"),
        ({}, "a round waits for every site"),
        ({"dropouts": 2, "colluders": 1}, "with nobody missing a sum carries 41 % more noise"),
    ],
)
def test_what_may_surprise_is_said(tmp_path: Path, secagg: dict[str, Any], told: str) -> None:
    warnings = check(written(tmp_path, secagg=secagg)).warnings
    assert any(told in it for it in warnings)


def test_a_study_that_leaves_nothing_open_has_nothing_to_say(tmp_path: Path) -> None:
    rows = [(f"p{n}", "1", "north", "1.0", "true") for n in range(600)]
    study = written(tmp_path, sites=12, rows=rows, training={"sample_rate": 0.5})
    assert check(study).warnings == ()


@pytest.mark.parametrize(
    ("change", "key", "told"),
    [
        (
            {"secagg": {"ring": 32}, "privacy": {"epsilon": None, "noise_multiplier": 5e3}},
            "secagg.ring",
            "does not fit a ring of 32 bits",
        ),
        ({"secagg": {"threshold": 3}}, "secagg.threshold", "above half"),
        ({"secagg": {"dropouts": 3}}, "secagg.dropouts", "may drop out"),
        ({"sites": 2}, "data.sites.count", "hides nobody"),
    ],
)
def test_what_no_round_could_do_is_refused_with_file_and_line(
    tmp_path: Path, change: dict[str, Any], key: str, told: str
) -> None:
    privacy = {"trust": "distributed", **change.pop("privacy", {})}
    path = written(tmp_path, privacy=privacy, **change)
    with pytest.raises(ConfigError, match=told) as refused:
        check(path)
    assert (refused.value.key, refused.value.where) == (key, str(path))
    assert refused.value.exit_code == 3


def test_the_wider_ring_is_taken_where_it_is_needed(tmp_path: Path) -> None:
    privacy = {"trust": "distributed", "epsilon": None, "noise_multiplier": 5e3}
    assert check(written(tmp_path, privacy=privacy)).to_json()["secagg"]["ring_bits"] == 64


def test_the_verb_puts_it_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", str(written(tmp_path))]
    assert guarded(lambda: command().main(arguments, standalone_mode=False), arguments) == 0
    said = capsys.readouterr().out
    for words in (
        "at least 5 of 6",
        "1 assumed; 1 withstood",
        "2 messages (3 after a dropout)",
        "22.5 % more than is charged",
        "an estimate, not a bound",
        "one curious site",
    ):
        assert words in said


@pytest.mark.parametrize("unit", ["record", "site"])
def test_the_selftest_draws_every_sites_share(tmp_path: Path, unit: str) -> None:
    found = selftest(written(tmp_path, privacy={"trust": "distributed", "unit": unit}))
    assert found.passed
    assert not found.found.control.passed
