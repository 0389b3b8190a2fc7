"""A study on a real SuperLink and real SuperNodes: what a simulation gives, whatever is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.deployed import Deployment, until
from support.studies import write_study

from fedgen.api.simulation import simulate
from fedgen.coordinator.state.store import StateStore
from fedgen.models.state import load_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of two named sites, seeded, so that two runs of it can be compared bit for bit."""
    return write_study(
        tmp_path / "study",
        data={"sites": {"names": ["hospital-a", "hospital-b"]}, "holdout": 0.0},
        training={"rounds": 4, "timeout_s": 60.0},
        privacy={"insecure_seed": 11},
    )


@pytest.fixture
def deployment(tmp_path: Path, study: Path) -> Iterator[Deployment]:
    with Deployment.make(tmp_path, study) as it:
        yield it


def lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return (
        [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )


def run_folder(deployment: Deployment) -> Path | None:
    runs = deployment.home.root / "runs"
    return next(iter(runs.iterdir()), None) if runs.is_dir() else None


def rounds_done(deployment: Deployment) -> int:
    folder = run_folder(deployment)
    return 0 if folder is None else len(lines(folder))


def weights(folder: Path) -> torch.Tensor:
    newest = max((folder / "checkpoints").glob("round-*.safetensors"))
    return load_tensors(newest)[0]["weights"]


def server_app(deployment: Deployment) -> int:
    """Return the process that coordinates now, as it says itself in the state."""
    with sqlite3.connect(f"file:{deployment.home.root / 'state.db'}?mode=ro", uri=True) as raw:
        (note,) = raw.execute("SELECT holder_note FROM coordinator_runs").fetchone()
    return int(str(note).rpartition(" ")[2])


def processes(word: str, group: int) -> list[int]:
    """Return the processes whose command line has a word, and whose parent is ``group``."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode(errors="replace")
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if word in words and parent == group:
            found.append(int(path.name))
    return found


def finished(deployment: Deployment, patience: float = 300.0) -> int:
    process = deployment.processes["train"]
    until(lambda: process.poll() is not None, "the run to end", patience)
    deployment.processes.pop("train")
    return int(process.returncode)


def test_deployed_is_simulated_bit_for_bit_whatever_is_killed_on_the_way(
    deployment: Deployment, study: Path, tmp_path: Path
) -> None:
    simulated = simulate(study, out=tmp_path / "simulated")
    server = deployment.server_up()
    deployment.nodes_up()
    deployment.train("--wait", "60")

    # In the second round the ServerApp is killed: the verb has another one started.
    until(lambda: rounds_done(deployment) >= 1, "the first round")
    os.kill(server_app(deployment), signal.SIGKILL)
    until(lambda: rounds_done(deployment) >= 2, "the second round")

    # Then the verb, and its folder is lost: it is made again from the state.
    deployment.kill("train")
    folder = run_folder(deployment)
    assert folder is not None
    folder.rename(tmp_path / "lost")
    # Then the SuperLink: its supervisor starts it again, and the ServerApp goes on with it.
    (superlink,) = processes("flower-superlink", server.pid)
    os.kill(superlink, signal.SIGKILL)
    deployment.train("--wait", "60", "--resume")
    assert finished(deployment) == 0, deployment.log("train").read_text()

    done = lines(folder)
    assert [it["round"] for it in done] == [1, 2, 3, 4]
    assert all(sorted(it["sites"]) == ["hospital-a", "hospital-b"] for it in done)
    record = json.loads((folder / "run.json").read_text())
    reference = simulated.record
    assert record["study_hash"] == reference.study_hash
    assert (record["outcome"], record["rounds_done"], record["backend"]) == ("completed", 4, "deployed")
    assert torch.equal(weights(folder), weights(simulated.path))
    assert (folder / "synthetic.parquet").is_file()
    assert (folder / "report.html").is_file()
    assert record["run"] == json.loads((tmp_path / "lost" / "run.json").read_text())["run"]
    # What left the coordinator is sealed or public; nothing in the SuperLink's database is a weight or a name in clear.
    held = b"".join(path.read_bytes() for path in deployment.home.root.glob("superlink.db*"))
    assert weights(folder).numpy().tobytes()[:64] not in held
    assert stat.S_IMODE((deployment.home.root / "superlink.db").stat().st_mode) == 0o600


def test_ctrl_c_leaves_a_run_that_goes_on_and_a_site_may_be_revoked_in_between(
    deployment: Deployment,
) -> None:
    deployment.server_up()
    deployment.nodes_up()
    deployment.train("--wait", "60")
    until(lambda: rounds_done(deployment) >= 1, "the first round")
    train = deployment.processes["train"]
    train.send_signal(signal.SIGINT)
    assert finished(deployment, 120.0) == 130
    folder = run_folder(deployment)
    assert folder is not None
    record = json.loads((folder / "run.json").read_text())
    assert record["outcome"] == "interrupted"
    assert record["rounds_done"] >= 1
    with StateStore.open(deployment.home.root / "state.db") as state:
        assert not state.is_held(record["run"])

    from fedgen.api.enrolment import server_revoke

    server_revoke(deployment.home.root, "hospital-b")
    deployment.train("--wait", "5", "--resume")  # it is not enrolled any more: nothing is asked of anybody
    assert finished(deployment, 60.0) == 3
    assert "hospital-b was revoked" in deployment.log("train").read_text()


def test_sites_that_come_late_are_waited_for_and_join_a_later_round(tmp_path: Path) -> None:
    study = write_study(
        tmp_path / "study",
        data={"sites": {"names": ["hospital-a", "hospital-b"]}, "holdout": 0.0},
        training={"rounds": 10, "timeout_s": 60.0},
    )
    with Deployment.make(tmp_path, study) as deployment:
        deployment.proxied = True  # as the world sees it: through the reverse proxy
        deployment.server_up()
        deployment.train("--wait", "200")  # nobody is there yet
        deployment.node_up("hospital-a")
        until(lambda: rounds_done(deployment) >= 1, "the first round")
        deployment.node_up("hospital-b")
        assert finished(deployment, 500.0) == 0, deployment.log("train").read_text()
        folder = run_folder(deployment)
        assert folder is not None
        done = lines(folder)
        assert [it["round"] for it in done] == list(range(1, 11))
        assert done[0]["sites"] == ["hospital-a"]
        assert done[0]["missing"] == {"hospital-b": "dropped"}
        assert sorted(done[-1]["sites"]) == ["hospital-a", "hospital-b"]
        assert json.loads((folder / "run.json").read_text())["privacy"]


def test_under_distributed_trust_a_deployed_sum_is_the_simulated_one(tmp_path: Path) -> None:
    study = write_study(
        tmp_path / "study",
        data={"sites": {"names": ["hospital-a", "hospital-b", "hospital-c"]}, "holdout": 0.0},
        secagg={"dropouts": 0, "protocol": "full"},
        privacy={"trust": "distributed", "insecure_seed": 7},
        training={"rounds": 2, "sample_rate": 0.3, "timeout_s": 120.0},
    )
    simulated = simulate(study, out=tmp_path / "simulated")
    with Deployment.make(tmp_path, study) as deployment:
        deployment.server_up()
        deployment.nodes_up()
        deployment.train("--wait", "60")
        assert finished(deployment, 500.0) == 0, deployment.log("train").read_text()
        folder = run_folder(deployment)
        assert folder is not None
        done = lines(folder)
        assert [(it["round"], it["attempt"], len(it["sites"])) for it in done] == [(1, 1, 3), (2, 1, 3)]
        assert torch.equal(weights(folder), weights(simulated.path))
