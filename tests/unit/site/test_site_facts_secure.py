"""What a run gate is told about sums: read off the plan, never stated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.studies import write_study

from fedgen.api.prepare import prepare
from fedgen.config.plan import plan_of
from fedgen.config.policy import Stated
from fedgen.site.admit import Admission
from fedgen.site.facts import run_facts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("trust", "secagg", "unseen"),
    [
        ("local", None, False),
        ("central", None, False),
        ("distributed", {}, True),
        ("distributed", {"protocol": "sum"}, False),
    ],
)
def test_only_masked_sums_are_called_unseen(
    tmp_path: Path, trust: str, secagg: dict[str, Any] | None, *, unseen: bool
) -> None:
    sections = {} if secagg is None else {"secagg": secagg}
    study = prepare(write_study(tmp_path, privacy={"trust": trust}, **sections)).resolved
    admission = Admission(study, plan_of(study), "", b"", study.roster[0].sampled)
    facts = run_facts(Stated(), admission)
    assert (facts.secure_sum, facts.differential_privacy) == (unseen, True)
