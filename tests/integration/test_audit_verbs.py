"""The auditor's verbs on a real run: what holds, what is found out, and with which exit code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from fedgen.cli.app import command, guarded

if TYPE_CHECKING:
    from pathlib import Path

STUDY = {
    "study": "audited",
    "data": {"source": "builtin:digits", "sites": {"count": 2, "split": "iid"}, "limit": 200},
    "model": {"name": "image-vae", "hidden": [8], "latent": 2},
    "privacy": {"unit": "record", "trust": "local", "epsilon": 2.0, "delta": 1e-4},
    "training": {"rounds": 3, "sample_rate": 0.5, "optimizer": {"name": "adam", "lr": 0.01}},
    "release": {"rows": 10},
    "simulation": {"judge": False},
}


def _run(*arguments: str) -> int:
    return guarded(lambda: command().main(list(arguments), standalone_mode=False), list(arguments))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited")
    study = folder / "study.yaml"
    study.write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    assert _run("simulate", str(study), "--out", str(folder / "run")) == 0
    return folder / "run"


def test_a_run_holds_what_it_claims(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert _run("audit", "budget", str(run), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document
    assert _run("ledger", "verify", str(run)) == 0
    assert _run("ledger", "show", str(run / "sites" / "site-01" / "ledger.db")) == 0


def test_a_claim_below_the_ledger_is_found_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run / "run.json"
    before = record.read_text(encoding="utf-8")
    document = json.loads(before)
    for statement in document["privacy"]:
        statement["epsilon"] = 0.5
    record.write_text(json.dumps(document), encoding="utf-8")
    try:
        assert _run("audit", "budget", str(run)) == 6
    finally:
        record.write_text(before, encoding="utf-8")
    assert "fedgen:" in capsys.readouterr().err


def test_one_flipped_bit_is_found_out(run: Path, tmp_path: Path) -> None:
    data = bytearray((run / "sites" / "site-01" / "ledger.db").read_bytes())
    data[data.find(b'"reserved"') + 2] ^= 1
    bad = tmp_path / "ledger.db"
    bad.write_bytes(data)
    assert _run("ledger", "verify", str(bad)) == 6


def test_the_studys_own_engine_passes_its_selftest(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert _run("audit", "selftest", str(run / "study.yaml"), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is True
    assert document["control"]["failed"] is True
    assert document["sensitivity"]["without_clipping"] > 10 * document["sensitivity"]["clip"]


def test_a_missing_ledger_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("ledger", "verify", str(tmp_path / "none.db")) == 3
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
