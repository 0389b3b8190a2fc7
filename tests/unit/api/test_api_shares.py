"""The audit of a run whose noise came in shares: every observer's figure again, from ledgers alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fedgen.api import budgets
from fedgen.api.ledgers import audit_budget
from fedgen.api.shares import Shares
from fedgen.config.distributed import DistributedPlan
from fedgen.config.plan import plan_of, statements_of
from fedgen.config.resolve import ResolvedStudy, resolve
from fedgen.config.study import parse_study
from fedgen.crypto.keys import SigningKey
from fedgen.errors import IntegrityError
from fedgen.ledger.store import Ledger
from fedgen.privacy.accountant import epsilon
from fedgen.privacy.estimate import gaussian_estimate
from fedgen.privacy.events import PoissonGaussian
from fedgen.runs.atomic import write_json
from fedgen.schema.table import parse_schema

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.privacy.events import Event

KEY, RUN, ROUNDS = SigningKey.generate(), "2" * 64, 3
STUDY: dict[str, Any] = {
    "study": "small",
    "data": {"source": "csv://rows.csv", "schema": "schema.yaml", "sites": {"count": 5}},
    "model": {"name": "tabular-vae", "latent": 2, "hidden": [4]},
    "privacy": {"unit": "record", "trust": "distributed", "epsilon": 3.0, "delta": 1e-5},
    "secagg": {"dropouts": 1, "colluders": 1},
    "training": {"rounds": ROUNDS, "sample_rate": 0.05},
}
SCHEMA = parse_schema({"columns": [{"name": "visits", "type": "integer", "min": 0, "max": 9}]})


def study() -> ResolvedStudy:
    return resolve(parse_study(STUDY), schema=SCHEMA, sizes=[400] * 5, parameters=77)


def planned() -> DistributedPlan:
    plan = plan_of(study())
    assert isinstance(plan, DistributedPlan)
    return plan


def spend(path: Path, event: Event, rounds: int = ROUNDS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Ledger.open(path, origin="hospital", signing_key=KEY, durable=False) as ledger:
        for number in range(1, rounds + 1):
            ledger.reserve(
                path.parent.name, study().study_hash, RUN, number, 1, event, 1, check=lambda _: None
            )


def made(root: Path, events: dict[str, Event] | None = None) -> Path:
    """The folder of a run in which each site was charged the plan's event, or the one given."""
    resolved, plan = study(), planned()
    root.mkdir()
    (root / "study.yaml").write_text(resolved.to_yaml(), encoding="utf-8")
    names = [entry.name for entry in resolved.roster]
    for name in names:
        spend(root / "sites" / name / "ledger.db", (events or {}).get(name, plan.event))
    spend(root / "ledger.db", plan.event)
    claims = statements_of(plan, dict.fromkeys(names, ((plan.event, ROUNDS),)))
    charged = next(it.epsilon for it in claims if it.colluders == 1)
    write_json(
        root / "run.json",
        {
            "study": "small", "study_hash": resolved.study_hash, "run": RUN, "outcome": "completed",
            "rounds": ROUNDS, "rounds_done": ROUNDS, "started_at": "2026-06-01T12:00:00Z", "wall_s": 1.0,
            "backend": "inprocess", "seeds": "os", "versions": {},
            "privacy": [it.to_json() for it in claims],
            "sites": [{"name": name, "rounds": ROUNDS, "epsilon": charged} for name in names],
        },
    )  # fmt: skip
    return root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made(tmp_path / "run")


def change(run: Path, number: int, **values: Any) -> None:
    """Change keys of one statement of run.json."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["privacy"][number] |= values
    write_json(run / "run.json", record)


def test_every_observers_claim_is_confirmed_by_the_ledgers(run: Path) -> None:
    found = audit_budget(run)
    assert found.ok
    assert [it.colluders for it in found.claims] == [0, 1, 2]
    assert all(it.claimed == pytest.approx(it.recomputed, rel=1e-9) for it in found.claims)
    figures = [it.recomputed for it in found.claims]
    assert figures[0] < figures[1] < figures[2]
    assert [it.words() for it in found.claims] == [
        "union, if no site helps",
        "union, if one site is curious",
        "union, if 2 sites help",
    ]
    assert [it["colluders"] for it in found.to_json()["claims"]] == [0, 1, 2]


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(("factor", "holds"), [(0.9985, False), (0.9995, True), (1.5, True)])
def test_a_claim_against_any_observer_that_is_too_low_is_found_out(
    run: Path, number: int, factor: float, *, holds: bool
) -> None:
    stated = json.loads((run / "run.json").read_text(encoding="utf-8"))["privacy"][number]["epsilon"]
    change(run, number, epsilon=factor * stated)
    found = budgets.recompute(run)
    assert [it.holds for it in found.claims] == [holds or place != number for place in range(3)]
    if not holds:
        with pytest.raises(IntegrityError, match="the ledger says") as caught:
            audit_budget(run)
        assert caught.value.exit_code == 6


@pytest.mark.parametrize("helpers", [-1, 3, 4, True, "0", 0.5])
def test_helpers_that_cannot_be_are_named(run: Path, helpers: object) -> None:
    change(run, 0, colluders=helpers)
    with pytest.raises(IntegrityError, match="names helpers that the study does not have"):
        audit_budget(run)


def test_without_its_helpers_a_statement_is_held_against_what_was_charged(run: Path) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    del record["privacy"][0]["colluders"]
    write_json(run / "run.json", record)
    found = budgets.recompute(run)
    assert not found.claims[0].holds


def test_a_ledger_charged_for_less_noise_is_named(tmp_path: Path) -> None:
    event = planned().event
    weaker = replace(event, variance=event.variance * 0.9)
    problems = budgets.recompute(made(tmp_path / "run", {"site-03": weaker})).problems
    assert any("site site-03 charged this study as something else" in it for it in problems)
    assert any("the statement about union claims" in it for it in problems)


def test_a_ledger_charged_for_other_noise_is_named(tmp_path: Path) -> None:
    found = budgets.recompute(made(tmp_path / "run", {"site-02": PoissonGaussian(0.05, 50.0)}))
    assert found.problems == (
        "the ledger of site site-02 charged this study as something else than its plan does",
    )


def test_a_site_said_to_have_spent_only_what_faces_the_coordinator_alone_is_found_out(run: Path) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["sites"][1]["epsilon"] = record["privacy"][0]["epsilon"]
    write_json(run / "run.json", record)
    with pytest.raises(IntegrityError, match=r"run\.json says that site site-02 spent"):
        audit_budget(run)


def test_the_gaussian_figure_stands_beside_the_bound_and_is_called_an_estimate(run: Path) -> None:
    figure = next(it for it in audit_budget(run).figures if it.ledger == "site site-01")
    counts = ((planned().event, ROUNDS),)
    assert figure.epsilon == figure.rdp == epsilon(counts, 1e-5).epsilon
    assert figure.estimate == gaussian_estimate(counts, 1e-5).about
    assert 0.5 * figure.rdp < figure.estimate < figure.rdp
    said = figure.to_json()
    assert said["pld"] is None
    assert said["estimate"] == figure.estimate


def test_other_ledgers_have_no_estimate(tmp_path: Path) -> None:
    spend(tmp_path / "ledger.db", PoissonGaussian(0.05, 1.4))
    (figure, *_) = audit_budget(tmp_path / "ledger.db").figures
    assert figure.estimate is None


def test_shares_count_anew() -> None:
    shares = Shares.of(study())
    assert shares is not None
    assert (shares.least, shares.assumed, shares.most) == (4, 1, 2)
    with pytest.raises(ValueError, match="nothing can be said of the help of 3 sites"):
        shares.against(3, {})
    plan = planned()
    for helpers in range(4):
        assert plan.against(helpers).event.variance == pytest.approx(plan.event.variance * (4 - helpers) / 3)
    local = {**STUDY, "privacy": {**STUDY["privacy"], "trust": "local"}}
    del local["secagg"]
    assert Shares.of(resolve(parse_study(local), schema=SCHEMA, sizes=[400] * 5)) is None
