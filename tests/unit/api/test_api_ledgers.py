"""An auditor's view of ledgers and runs, offline: what is honest passes, and every lie is named."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedgen.api import budgets
from fedgen.api.ledgers import audit_budget, ledgers_in, read_key, show_ledger, verify_ledger
from fedgen.config.plan import plan_of
from fedgen.config.resolve import ResolvedStudy, resolve
from fedgen.config.study import parse_study
from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code, ConfigError, IntegrityError, UsageError
from fedgen.ledger.entries import Admitted, Closed
from fedgen.ledger.store import Ledger
from fedgen.privacy.accountant import epsilon, epsilon_rdp
from fedgen.privacy.events import Gaussian, Laplace, PoissonGaussian
from fedgen.privacy.statement import state
from fedgen.privacy.units import Relation
from fedgen.runs.atomic import write_json, write_text
from fedgen.schema.table import parse_schema

KEY = SigningKey.generate()
RUN, OTHER, DIGEST = "2" * 64, "e" * 64, "c" * 64
SCHEMA = parse_schema({"columns": [{"name": "visits", "type": "integer", "min": 0, "max": 9}]})
STUDY = {
    "study": "small",
    "data": {"source": "csv://rows.csv", "schema": "schema.yaml", "sites": {"count": 2}},
    "model": {"name": "tabular-vae", "latent": 2, "hidden": [4]},
    "privacy": {"unit": "record", "trust": "local", "noise_multiplier": 1.25, "delta": 1e-5},
    "training": {"rounds": 3, "sample_rate": 0.05},
}


def study() -> ResolvedStudy:
    return resolve(parse_study(STUDY), schema=SCHEMA, sizes=[400, 400])


def spend(
    path: Path, study_hash: str, event: Any, rounds: int, *, dataset: str = "claims", count: int = 4
) -> None:
    """Charge some rounds of a study to a ledger; all but the last are settled."""
    with Ledger.open(path, origin="hospital", signing_key=KEY, durable=False) as ledger:
        for number in range(1, rounds + 1):
            receipt = ledger.reserve(dataset, study_hash, RUN, number, 1, event, count, check=lambda _: None)
            if number < rounds:
                ledger.settle(receipt, DIGEST)


@pytest.fixture
def two_studies(tmp_path: Path) -> Path:
    """A ledger with two studies on one data set and a query on another."""
    path = tmp_path / "ledger.db"
    spend(path, "a" * 64, PoissonGaussian(0.02, 1.1), 5, count=100)
    spend(path, "b" * 64, PoissonGaussian(0.05, 1.4), 4, count=25)
    spend(path, "d" * 64, Laplace(20.0), 1, dataset="other", count=1)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of an honest run of two sites and three rounds."""
    root, resolved = tmp_path / "run", study()
    plan, spent = plan_of(resolved), {}
    write_text_in(root / "study.yaml", resolved.to_yaml())
    event, count = plan.event_per_round()
    for name in [entry.name for entry in resolved.roster]:
        (root / "sites" / name).mkdir(parents=True)
        spend(
            root / "sites" / name / "ledger.db",
            resolved.study_hash,
            event,
            3,
            dataset=f"rows of {name}",
            count=count,
        )
        spent[name] = ((event, 3 * count),)
    spend(root / "ledger.db", resolved.study_hash, event, 3, dataset="study", count=count)
    statements = [statement.to_json() for statement in state(plan, spent)]
    write_json(
        root / "run.json",
        {
            "study": "small", "study_hash": resolved.study_hash, "run": RUN, "outcome": "completed",
            "rounds": 3, "rounds_done": 3, "started_at": "2026-06-01T12:00:00Z", "wall_s": 1.0,
            "backend": "inprocess", "seeds": "os", "versions": {}, "privacy": statements,
            "sites": [{"name": entry.name, "rounds": 3} for entry in resolved.roster],
        },
    )  # fmt: skip
    return root


def write_text_in(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def change(run: Path, **values: Any) -> None:
    """Change keys of run.json."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    write_json(run / "run.json", {**record, **values})


def claim(run: Path, factor: float) -> None:
    """Multiply every stated ε."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    change(run, privacy=[{**it, "epsilon": factor * it["epsilon"]} for it in record["privacy"]])


# -- verify ---------------------------------------------------------------------------------------------


def test_an_honest_ledger_verifies_with_and_without_its_key(two_studies: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY.public.hex() + "\n")
    for key in (None, KEY.verify_key, tmp_path / "key"):
        (checked,) = verify_ledger(two_studies, key)
        assert checked.ok
        assert checked.pinned is (key is not None)
        assert checked.to_json()["public_key"] == KEY.public.hex()
    (checked,) = verify_ledger(two_studies, SigningKey.generate().verify_key)
    assert not checked.ok


def test_every_ledger_of_a_run_is_verified(run: Path) -> None:
    checked = verify_ledger(run)
    assert [it.name for it in checked] == list(ledgers_in(run))
    assert checked[0].name == "coordinator"
    assert len(checked) == 3
    assert all(it.ok for it in checked)
    with pytest.raises(UsageError, match="belongs to one ledger"):
        verify_ledger(run, KEY.verify_key)


def test_a_checkpoint_beside_the_ledger_or_named_shows_a_rollback(two_studies: Path, tmp_path: Path) -> None:
    old = two_studies.read_bytes()
    with Ledger.open(two_studies, origin="hospital", signing_key=KEY, durable=False) as ledger:
        ledger.append(Closed(study_hash="a" * 64, run=RUN, outcome="completed", rounds=5))
        kept = ledger.checkpoint().to_text()
    (tmp_path / "ledger.db.checkpoint").write_text(kept, encoding="utf-8")
    assert verify_ledger(two_studies)[0].ok
    two_studies.write_bytes(old)
    (checked,) = verify_ledger(two_studies)
    assert checked.report.problems[0].startswith("truncated: a checkpoint promises")
    (tmp_path / "ledger.db.checkpoint").rename(tmp_path / "elsewhere")
    assert verify_ledger(two_studies)[0].ok
    assert not verify_ledger(two_studies, checkpoint=tmp_path / "elsewhere")[0].ok


@pytest.mark.parametrize("content", ["", "xyz", "AB" * 32, "ab" * 31])
def test_what_is_no_public_key_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(ConfigError, match="64 lower-case hex digits"):
        read_key(tmp_path / "key")
    with pytest.raises(ConfigError, match="cannot read the key"):
        read_key(tmp_path / "nothing")


@pytest.mark.parametrize("call", [verify_ledger, show_ledger, audit_budget])
def test_no_ledger_is_a_fault_of_the_caller(tmp_path: Path, call: Any) -> None:
    with pytest.raises(ConfigError, match=r"no ledger|study\.yaml"):
        call(tmp_path)
    with pytest.raises(ConfigError, match="no ledger here"):
        call(tmp_path / "nothing.db")


# -- show -----------------------------------------------------------------------------------------------


def test_showing_says_who_spent_what_when_and_for_which_study(tmp_path: Path) -> None:
    spend(tmp_path / "ledger.db", "a" * 64, Gaussian(8.0), 2)
    with Ledger.open(tmp_path / "ledger.db", origin="hospital", signing_key=KEY, durable=False) as ledger:
        ledger.append(Admitted(study_hash=OTHER, run=RUN, dataset="claims"))
    lines = [line.to_json() for line in show_ledger(tmp_path / "ledger.db")]
    assert [line["entry"] for line in lines] == ["opened", "reserved", "settled", "reserved", "admitted"]
    first = lines[1]
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "ledger": "ledger.db", "index": 1, "entry": "reserved", "dataset": "claims", "study_hash": "a" * 64,
        "run": RUN, "round": 1, "attempt": 1, "event": {"kind": "gaussian", "sigma": 8.0}, "count": 4,
        "unit": "record", "settled": True,
    }  # fmt: skip
    assert lines[3]["settled"] is False
    assert lines[0]["note"] == "hospital"


# -- audit budget ---------------------------------------------------------------------------------------


def test_a_history_of_two_studies_gives_both_accountants_figures(two_studies: Path) -> None:
    figures = {(it.dataset, it.study_hash): it for it in audit_budget(two_studies).figures}
    one, other = (PoissonGaussian(0.02, 1.1), 500), (PoissonGaussian(0.05, 1.4), 100)
    for study_hash, counts in (("a" * 64, (one,)), ("b" * 64, (other,)), (None, (one, other))):
        figure = figures["claims", study_hash]
        assert figure.pld == pytest.approx(epsilon(counts, 1e-5).epsilon, rel=1e-3)
        assert figure.rdp == pytest.approx(epsilon_rdp(counts, 1e-5).epsilon, rel=1e-3)
    assert figures["claims", None].reservations == 9
    assert figures["other", None].pld == pytest.approx(0.05, rel=1e-2)  # one Laplace query: 1 / scale
    assert len(figures) == 5


def test_the_figures_are_what_dp_accounting_says_by_itself(two_studies: Path) -> None:
    import dp_accounting as dpa
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    def step(q: float, sigma: float, count: int) -> dpa.DpEvent:
        return dpa.SelfComposedDpEvent(dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(sigma)), count)

    together = dpa.ComposedDpEvent([step(0.02, 1.1, 500), step(0.05, 1.4, 100)])
    found = next(
        it for it in audit_budget(two_studies).figures if (it.dataset, it.study_hash) == ("claims", None)
    )
    both = ((PoissonGaussian(0.02, 1.1), 500), (PoissonGaussian(0.05, 1.4), 100))
    grid = epsilon(both, 1e-5).interval
    assert grid is not None
    pld = PLDAccountant(value_discretization_interval=grid).compose(together).get_epsilon(1e-5)
    assert found.pld == pytest.approx(pld, rel=1e-3)
    assert found.rdp == pytest.approx(RdpAccountant().compose(together).get_epsilon(1e-5), rel=1e-3)


def test_delta_and_relation_can_be_chosen(two_studies: Path) -> None:
    loose = audit_budget(two_studies, delta=1e-3, relation=Relation.REPLACE_ONE)
    tight = audit_budget(two_studies, delta=1e-7)
    assert {it.delta for it in loose.figures} == {1e-3}
    assert all(
        a.pld != b.pld for a, b in zip(loose.figures, tight.figures, strict=True) if a.dataset == "claims"
    )
    figure = loose.to_json()["figures"][0]
    assert (
        figure["pld"] < figure["rdp"] < math.inf
    )  # replacing is one out and one in for Rényi: loose, and a bound


def test_an_honest_run_is_confirmed(run: Path) -> None:
    found = audit_budget(run)
    assert found.ok
    assert [claim.scope.split(" ")[0] for claim in found.claims] == ["site", "site", "union"]
    assert all(claim.claimed == pytest.approx(claim.recomputed, rel=1e-3) for claim in found.claims)
    assert {figure.delta for figure in found.figures} == {1e-5}


@pytest.mark.parametrize(("factor", "holds"), [(0.9985, False), (0.9995, True), (1.5, True)])
def test_a_claim_below_the_recomputed_figure_is_contradicted(
    run: Path, factor: float, *, holds: bool
) -> None:
    claim(run, factor)
    found = budgets.recompute(run)
    assert found.ok is holds
    if not holds:
        assert all(not it.holds for it in found.claims)
        with pytest.raises(IntegrityError, match=r"claims ε = .*, the ledger says") as caught:
            audit_budget(run)
        assert caught.value.exit_code == 6
        assert caught.value.code is Code.LEDGER


def test_spending_that_no_statement_knows_contradicts_it(run: Path) -> None:
    resolved = study()
    path = next((run / "sites").iterdir()) / "ledger.db"
    event, count = plan_of(resolved).event_per_round()
    with Ledger.open(path, origin="hospital", signing_key=KEY, durable=False) as ledger:
        dataset = f"rows of {path.parent.name}"
        ledger.reserve(dataset, resolved.study_hash, RUN, 3, 2, event, count, check=lambda _: None)
    found = budgets.recompute(run)
    assert {it.scope for it in found.claims if not it.holds} == {f"site {path.parent.name}", "union"}


def test_another_studys_spending_is_shown_and_contradicts_nothing(run: Path) -> None:
    path = next((run / "sites").iterdir()) / "ledger.db"
    with Ledger.open(path, origin="hospital", signing_key=KEY, durable=False) as ledger:
        dataset = f"rows of {path.parent.name}"
        ledger.reserve(dataset, OTHER, RUN, 1, 1, Gaussian(3.0), 1, check=lambda _: None)
    found = audit_budget(run)
    mine = [it for it in found.figures if it.dataset == dataset]
    assert {it.study_hash for it in mine} == {study().study_hash, OTHER, None}
    assert max(mine, key=lambda it: it.epsilon).study_hash is None


def test_a_promise_made_with_seeded_noise_is_contradicted(run: Path) -> None:
    change(run, seeds="insecure")
    with pytest.raises(IntegrityError, match="its noise came from a seed"):
        audit_budget(run)


def test_a_run_that_promises_nothing_claims_nothing(run: Path) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    change(run, seeds="insecure", privacy=[{**it, "epsilon": None} for it in record["privacy"]])
    assert [it.claimed for it in audit_budget(run).claims] == [None, None, None]


@pytest.mark.parametrize("statement", [{"epsilon": "1"}, {"delta": None}, {"delta": 2.0}])
def test_a_statement_without_figures_is_named(run: Path, statement: dict[str, Any]) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    change(run, privacy=[{**record["privacy"][0], **statement}])
    with pytest.raises(IntegrityError, match="has no figures"):
        audit_budget(run)


def test_a_missing_or_short_ledger_is_named(run: Path) -> None:
    path = next((run / "sites").iterdir()) / "ledger.db"
    change(run, rounds_done=4)
    with pytest.raises(IntegrityError, match="ledger of coordinator was charged for 3 rounds, not for 4"):
        audit_budget(run)
    change(run, rounds_done=3)
    path.unlink()
    with pytest.raises(IntegrityError, match=f"ledger of site {path.parent.name} is missing"):
        audit_budget(run)


def test_an_altered_ledger_is_named_and_not_counted(run: Path) -> None:
    path = next((run / "sites").iterdir()) / "ledger.db"
    content = path.read_bytes()
    place = content.index(b'"count":')
    path.write_bytes(content[: place + 8] + b"9" + content[place + 9 :])
    found = budgets.recompute(run)
    assert any("does not verify: altered" in problem for problem in found.problems)
    assert not any(figure.ledger == f"site {path.parent.name}" for figure in found.figures)


def test_a_site_said_to_have_spent_less_is_named(run: Path) -> None:
    names = [entry.name for entry in study().roster]
    honest = max(claim.recomputed for claim in audit_budget(run).claims)
    sites = [{"name": name, "rounds": 3, "epsilon": honest} for name in names]
    change(run, sites=sites)
    assert audit_budget(run).ok
    change(run, sites=[sites[0], {**sites[1], "epsilon": honest / 2}])
    with pytest.raises(IntegrityError, match=f"run.json says that site {names[1]} spent"):
        audit_budget(run)


def test_a_run_that_goes_on_has_figures_and_no_claims(run: Path) -> None:
    claim(run, 0.0)
    change(run, outcome="running", rounds_done=0)
    assert audit_budget(run).claims == ()
    (run / "run.json").unlink()
    found = audit_budget(run)
    assert found.claims == ()
    assert found.figures


def test_an_audit_never_loads_torch(two_studies: Path) -> None:
    program = (
        "import sys; from fedgen.api.ledgers import *; "
        "verify_ledger(sys.argv[1]); show_ledger(sys.argv[1]); audit_budget(sys.argv[1]); "
        "sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program, str(two_studies)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
