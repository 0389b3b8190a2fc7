"""Every model, both kinds of trust, both kinds of exchange, both engines: a finished run with finite weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.ledgers import reserved
from support.studies import digits_study, write_study

import fedgen
from fedgen.models.state import load_tensors

if TYPE_CHECKING:
    from pathlib import Path


def _weights(run: fedgen.Run) -> torch.Tensor:
    newest = max((run.path / "checkpoints").glob("*.safetensors"))
    return load_tensors(newest)[0]["weights"]


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param({}, id="vae-gradient-local"),
        pytest.param({"privacy": {"trust": "central"}}, id="vae-gradient-central"),
        pytest.param({"training": {"local_steps": 2, "rounds": 2}}, id="vae-update"),
        pytest.param({"training": {"engine": "opacus", "rounds": 2}}, id="vae-opacus"),
        pytest.param(
            {"training": {"ema": 0.5, "optimizer": {"name": "sgd", "lr": 0.1}}}, id="vae-sgd-average"
        ),
        pytest.param(
            {"model": {"name": "tabular-gan", "generator": [8], "fake_batch": 8}}, id="gan-gradient-local"
        ),
        pytest.param(
            {
                "model": {"name": "tabular-gan", "generator": [8], "fake_batch": 8},
                "privacy": {"trust": "central"},
            },
            id="gan-gradient-central",
        ),
        pytest.param(
            {
                "model": {"name": "tabular-gan", "generator": [8], "fake_batch": 8},
                "training": {"local_steps": 2, "rounds": 2},
            },
            id="gan-update",
        ),
        pytest.param(
            {"privacy": {"epsilon": None, "noise_multiplier": 1.5}, "training": {"rounds": 2}},
            id="noise-given",
        ),
    ],
)
def test_a_tabular_study_finishes(tmp_path: Path, sections: dict[str, Any]) -> None:
    run = fedgen.simulate(write_study(tmp_path, **sections), out=tmp_path / "run")
    assert run.record.outcome == "completed"
    assert torch.isfinite(_weights(run)).all()
    assert pq.read_table(run.path / "synthetic.parquet").num_rows == 40
    rounds = run.record.rounds
    assert reserved(run.path / "sites" / "site-01" / "ledger.db") == [(n, 1) for n in range(1, rounds + 1)]


@pytest.mark.parametrize("model", ["image-vae", "image-gan"])
def test_an_image_study_finishes(tmp_path: Path, model: str) -> None:
    run = fedgen.simulate(digits_study(tmp_path, model), out=tmp_path / "run")
    assert run.record.outcome == "completed"
    assert torch.isfinite(_weights(run)).all()
    with np.load(run.path / "synthetic.npz") as made:
        assert made["images"].shape == (30, 8, 8)
        assert made["images"].dtype == np.uint8
        assert made["images"].max() <= 16
        assert made["labels"].shape == (30,)
    assert (run.path / "synthetic.png").read_bytes().startswith(b"\x89PNG")
    assert run.sample(3).shape == (3, 8, 8)


def test_an_update_study_with_two_steps_is_charged_two_steps_a_round(tmp_path: Path) -> None:
    study = write_study(tmp_path, training={"local_steps": 2, "rounds": 2})
    one = fedgen.check(study, ["training.local_steps=1", "training.rounds=4"])
    two = fedgen.check(study)
    assert two.privacy.steps_per_round == 2
    assert two.privacy.sigma == pytest.approx(one.privacy.sigma)


def test_central_trust_says_what_the_coordinator_sees(tmp_path: Path) -> None:
    run = fedgen.simulate(write_study(tmp_path, privacy={"trust": "central"}), out=tmp_path / "run")
    by_scope = {statement["scope"]: statement for statement in run.privacy}
    assert set(by_scope) == {"union", "coordinator"}
    assert by_scope["coordinator"]["epsilon"] is None
    assert by_scope["union"]["epsilon"] <= 3.0
    assert "against everyone but the coordinator" in (run.path / "report.html").read_text()


def test_local_trust_states_every_site_and_the_union(tmp_path: Path) -> None:
    run = fedgen.simulate(write_study(tmp_path), out=tmp_path / "run")
    assert {statement["scope"] for statement in run.privacy} == {
        "site site-01",
        "site site-02",
        "site site-03",
        "union",
    }
    assert all(statement["proved"] and statement["epsilon"] <= 3.0 for statement in run.privacy)


def test_uneven_cuts_by_a_column_run_too(tmp_path: Path) -> None:
    sites = {"count": 3, "split": "by", "by": "ward"}
    run = fedgen.simulate(write_study(tmp_path, data={"sites": sites}), out=tmp_path / "run")
    assert [entry.name for entry in run.study.roster] == ["site-01", "site-02", "site-03"]
    assert run.record.outcome == "completed"
