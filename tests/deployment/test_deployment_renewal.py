"""The server's certificate is made again while the server runs, and put into use, and no study loses a round by it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.deployed import Deployment, until
from support.studies import write_study

from fedgen.api.keys import keys_rotate
from fedgen.api.simulation import simulate
from fedgen.crypto.certificates import issue, read_certificate
from fedgen.enrolment.authority import hosts_of
from fedgen.flower.renewal import shown_at
from fedgen.models.state import load_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.needs("nginx"),
]
ROUNDS = 5


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(
        tmp_path / "study",
        data={"sites": {"names": ["hospital-a", "hospital-b"]}, "holdout": 0.0},
        training={"rounds": ROUNDS, "timeout_s": 60.0},
        privacy={"insecure_seed": 11},
    )


@pytest.fixture
def deployment(tmp_path: Path, study: Path) -> Iterator[Deployment]:
    with Deployment.make(tmp_path, study) as it:
        it.proxied = True
        yield it


PROGRAM = """
import datetime, pathlib
import fedgen.flower.renewal as renewal, fedgen.flower.up as up

class Clock(datetime.datetime):
    @classmethod
    def now(cls, zone):
        later = datetime.timedelta(minutes=LATER if pathlib.Path(FLAG).exists() else 0)
        return datetime.datetime.now(zone) + later

up._CERTIFICATE_S, renewal.datetime = 1.0, Clock
from fedgen.cli import main
main()
"""
LATER = 31


def up(deployment: Deployment) -> None:
    """Run `fedgen server up`, which looks after its certificate each second, and later half an hour ahead."""
    program = PROGRAM.replace("FLAG", repr(str(deployment.root / "later")))
    program = program.replace("LATER", str(LATER))
    deployment.start("server", [sys.executable, "-c", program, "server", "up", str(deployment.home.root)])
    until(deployment.is_up, "the SuperLink")
    until(lambda: deployment._admitted() == len(deployment.doors), "the nodes to be admitted")


def shown(deployment: Deployment) -> str:
    """Return the fingerprint of what sites see; empty where nobody answers."""
    found = shown_at(deployment.home.spec().listens_on)
    return "" if found is None else found.fingerprint


def on_disk(deployment: Deployment) -> str:
    return read_certificate(deployment.home.tls.certificate.read_bytes()).fingerprint


def lines(deployment: Deployment) -> list[dict[str, Any]]:
    runs = deployment.home.root / "runs"
    folder = next(iter(runs.iterdir()), None) if runs.is_dir() else None
    path = None if folder is None else folder / "metrics.jsonl"
    return [json.loads(it) for it in path.read_text().splitlines()] if path and path.exists() else []


def weights(folder: Path) -> torch.Tensor:
    return load_tensors(max((folder / "checkpoints").glob("round-*.safetensors")))[0]["weights"]


def test_it_is_renewed_in_the_middle_of_a_study_which_does_not_notice(
    deployment: Deployment, study: Path, tmp_path: Path
) -> None:
    simulated = simulate(study, out=tmp_path / "simulated")
    home, moment = deployment.home, datetime.now(UTC)
    authority = home.ca.key.read_bytes(), home.ca.certificate.read_bytes()
    # Of its day and the hour before it, a quarter is left in half an hour; the next one begins an hour ago as well.
    issued = moment - timedelta(hours=24 - 25 / 4) + timedelta(minutes=LATER - 1)
    key, certificate = issue(authority, hosts_of(home.spec().address), days=1, now=issued)
    home.tls.key.write_bytes(key)
    home.tls.certificate.write_bytes(certificate)
    first = on_disk(deployment)

    up(deployment)
    deployment.nodes_up()
    deployment.train("--wait", "60")
    until(lambda: lines(deployment), "the first round")
    assert on_disk(deployment) == shown(deployment) == first  # it was not yet time
    (deployment.root / "later").touch()
    until(lambda: shown(deployment) not in {first, ""}, "the proxy to show another", 60.0)
    second = on_disk(deployment)
    assert shown(deployment) == second
    # Once more, by hand.
    until(lambda: len(lines(deployment)) >= 2, "the second round")
    keys_rotate(home.root, "tls")
    third = on_disk(deployment)
    assert third not in {first, second}
    until(lambda: shown(deployment) == third, "the proxy to show that one", 60.0)
    assert deployment.processes["train"].poll() is None, "the study ended too soon to show anything"
    train = deployment.processes["train"]
    until(lambda: train.poll() is not None, "the study to end")
    del deployment.processes["train"]
    assert train.returncode == 0, deployment.log("train").read_text()

    assert [it["round"] for it in lines(deployment)] == [*range(1, ROUNDS + 1)]
    assert all(sorted(it["sites"]) == ["hospital-a", "hospital-b"] for it in lines(deployment))
    (folder,) = (home.root / "runs").iterdir()
    assert torch.equal(weights(folder), weights(simulated.path))
    said = deployment.log("server").read_text()
    assert said.count("certificate  renewed") == 1
    assert said.count("nginx  reloaded") == 2
    assert [said.count(f"{name}  ended") for name in ("superlink", "superexec", "nginx")] == [0, 0, 0]
