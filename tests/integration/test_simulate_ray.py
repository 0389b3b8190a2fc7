"""The same study on Flower's Ray engine: other processes answer, and the books are the same."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from support.ledgers import reserved
from support.processes import PATIENCE_S, start
from support.studies import people, write_study

import fedgen
from fedgen.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.process
def test_a_run_on_ray_finishes_with_every_file_and_one_document_on_stdout(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    process = start("simulate", study, "--out", tmp_path / "run", "--backend", "ray", "--json")
    out, err = process.communicate(timeout=2 * PATIENCE_S)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert document["outcome"] == "completed"
    assert document["backend"] == "ray"
    assert all(site["rounds"] == 3 and not site["refusals"] for site in document["sites"])
    for name in ("site-01", "site-02", "site-03"):
        assert reserved(tmp_path / "run" / "sites" / name / "ledger.db") == [(1, 1), (2, 1), (3, 1)]
    for name in ("report.html", "synthetic.parquet", "metrics.jsonl", "ledger.db"):
        assert (tmp_path / "run" / name).is_file()


def test_tables_in_memory_cannot_be_handed_to_ray(tmp_path: Path) -> None:
    from fedgen.api.prepare import prepare
    from fedgen.api.simulation import run_prepared

    prepared = prepare(write_study(tmp_path))
    with pytest.raises(ConfigError, match="memory"):
        run_prepared(prepared, tmp_path / "run", backend="ray")
    assert not (tmp_path / "run").exists()


def test_without_ray_the_extra_is_named_and_the_folder_serves_a_second_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, rows=people(60))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        with pytest.raises(MissingExtra) as missing:
            fedgen.simulate(study, out=tmp_path / "run", backend="ray")
    assert missing.value.exit_code == 9
    assert "fedgen[sim]" in str(missing.value)
    assert fedgen.simulate(study, out=tmp_path / "run").record.outcome == "completed"
