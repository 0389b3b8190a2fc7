"""A coordinator whose state lies in PostgreSQL: killed, and with its database gone in the middle of a round."""

from __future__ import annotations

import json
import os
import secrets
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import torch
from support.deployed import Deployment, until
from support.studies import write_study

from fedgen.api.simulation import simulate
from fedgen.coordinator.state.store import StateStore
from fedgen.models.state import load_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.postgres import Cluster

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.postgres]
SITES = ["hospital-a", "hospital-b"]
ROUNDS = 5


class World:
    """A deployment, its database, and the weights that its study must end with.

    Args:
        root: Of everything.
        cluster: The PostgreSQL server.
    """

    def __init__(self, root: Path, cluster: Cluster) -> None:
        self.cluster, self.database = cluster, f"state_{secrets.token_hex(6)}"
        with psycopg.connect(cluster.address(), autocommit=True) as raw:
            raw.execute(f'CREATE DATABASE "{self.database}"')
        self.url = cluster.address(self.database)
        self.study = write_study(
            root / "study",
            data={"sites": {"names": SITES}, "holdout": 0.0},
            training={"rounds": ROUNDS, "timeout_s": 120.0},
            privacy={
                "insecure_seed": 11
            },  # so that a round that is counted twice, or lost, shows in every weight
        )
        self.expected = newest_weights(simulate(self.study, out=root / "simulated").path)
        self.deployment = Deployment.make(root, self.study, state=self.url)

    def train(self, *words: str) -> None:
        self.deployment.log("train").unlink(missing_ok=True)
        self.deployment.train("--wait", "60", *words)

    def said(self) -> str:
        return self.deployment.log("train").read_text(encoding="utf-8")

    def ended(self, patience: float = 300.0) -> int:
        """Wait until `train` has ended; return its exit code."""
        process = self.deployment.processes["train"]
        until(lambda: process.poll() is not None, "the run to end", patience)
        del self.deployment.processes["train"]
        return int(process.returncode)

    def ends_with_a_word(self) -> None:
        """Check that `train` ends by itself, with one line that says what is away and how to go on."""
        assert self.ended() == 3, self.said()
        (last,) = (line for line in self.said().splitlines() if line.startswith("fedgen: "))
        assert "the state's server does not answer" in last
        assert "--resume" in last
        assert "Traceback" not in self.said()

    @property
    def folder(self) -> Path:
        (only,) = (self.deployment.home.root / "runs").iterdir()
        return only

    def lines(self) -> list[dict[str, Any]]:
        path = self.folder / "metrics.jsonl"
        return (
            [json.loads(it) for it in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        )

    def asked(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as raw:
            return raw.execute(sql).fetchall()

    def holder(self) -> int:
        """Return the process that coordinates now, as it says itself in the state."""
        ((note,),) = self.asked("SELECT holder_note FROM coordinator_runs")
        return int(str(note).rpartition(" ")[2])

    def in_mid_round(self, number: int) -> None:
        """Wait until a round was asked of the sites and is not closed."""
        with StateStore.open(self.url) as state:

            def is_open(run: str) -> bool:
                asked = state.asked(run)
                return bool(asked) and asked[-1].round == number and len(state.lines(run)) < number

            until(lambda: any(is_open(it.run) for it in state.runs()), f"round {number} to be on its way")

    def is_whole(self) -> None:
        """Check that every round is there once, in the folder as in the database, and is the simulated one."""
        done = self.lines()
        assert [line["round"] for line in done] == [*range(1, ROUNDS + 1)]
        assert all(sorted(line["sites"]) == SITES for line in done)
        record = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        assert (record["outcome"], record["rounds_done"]) == ("completed", ROUNDS)
        assert torch.equal(newest_weights(self.folder), self.expected)
        held = self.asked("SELECT round FROM coordinator_rounds ORDER BY place")
        assert [number for (number,) in held] == [*range(1, ROUNDS + 1)]
        assert not (self.deployment.home.root / "state.db").exists()


def newest_weights(folder: Path) -> torch.Tensor:
    newest = max((folder / "checkpoints").glob("round-*.safetensors"))
    return load_tensors(newest)[0]["weights"]


@contextmanager
def running(root: Path, cluster: Cluster) -> Iterator[World]:
    world = World(root, cluster)
    with world.deployment:
        world.deployment.server_up()
        world.deployment.nodes_up()
        yield world


def test_kill_9_in_mid_round_and_each_round_is_there_once(tmp_path: Path, own_cluster: Cluster) -> None:
    with running(tmp_path, own_cluster) as world:
        world.train()
        world.in_mid_round(2)
        os.kill(world.holder(), signal.SIGKILL)  # `train` has another one started
        world.in_mid_round(4)
        killed = world.holder()
        world.deployment.kill("train")
        os.kill(killed, signal.SIGKILL)
        assert len(world.lines()) < ROUNDS
        world.train("--resume")
        assert world.ended() == 0, world.said()
        world.is_whole()
        # What was asked of a process that died was asked again, under another number.
        attempts = world.asked("SELECT round, attempt FROM coordinator_attempts")
        assert len({*attempts}) == len(attempts) > ROUNDS


def test_a_database_that_goes_away_ends_the_run_with_a_word_and_it_goes_on(
    tmp_path: Path, own_cluster: Cluster
) -> None:
    with running(tmp_path, own_cluster) as world:
        world.train()
        world.in_mid_round(2)
        own_cluster.stop()  # in order
        world.ends_with_a_word()
        world.train("--resume")  # while it is away, nothing is begun anew elsewhere
        world.ends_with_a_word()
        own_cluster.start()
        world.train("--resume")
        world.in_mid_round(4)
        own_cluster.stop(signal.SIGQUIT)  # as if the power failed
        world.ends_with_a_word()
        own_cluster.start()
        world.train("--resume")
        assert world.ended() == 0, world.said()
        world.is_whole()
