"""What stands in the environment of `fedgen server up` stays there: /proc/PID/environ of every process it starts."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.deployed import Deployment, until
from support.pg_login import PASSWORD, login_needed
from support.studies import write_study

from fedgen.flower.up import ServerUp

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.deployment, pytest.mark.process, pytest.mark.slow, pytest.mark.needs("nginx")]
CANARY = "canary-0815-of-another-program"
LEAK = """
import os
import fedgen.flower.control as control
control.passed = lambda: dict(os.environ)  # as it was once
from fedgen.cli import main
main()
"""


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    study = write_study(
        tmp_path / "study",
        data={"sites": {"names": ["hospital-a"]}, "holdout": 0.0},
        training={"rounds": 2, "timeout_s": 60.0},
        privacy={"insecure_seed": 11},
    )
    with Deployment.make(tmp_path, study) as it:
        it.proxied = True
        it.env = {"FEDGEN_CANARY": CANARY, "TZ": "Etc/GMT+7"}
        yield it


def family(root: int) -> dict[int, tuple[str, bytes]]:
    """Return what runs below a process: its number, command line and environment."""
    parents, found = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    below = {root}
    while more := {it for it, parent in parents.items() if parent in below} - below:
        below |= more
    for number in below - {root}:
        with suppress(OSError):
            words = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found[number] = words, Path(f"/proc/{number}/environ").read_bytes()
    return found


KINDS = ("flower-superlink", "flower-superexec", "nginx: master", "flwr-serverapp")


def looked_at(deployment: Deployment, patience: float = 300.0) -> dict[str, bytes]:
    """Run the study, and return the environments of all that `server up` started meanwhile, by their kind."""
    server, seen = deployment.processes["server"], dict[str, bytes]()
    deployment.nodes_up()
    train = deployment.train("--wait", "60")

    def ended() -> bool:
        for words, environ in family(server.pid).values():
            kind = next((it for it in KINDS if it in words), "other")
            seen[kind] = seen.get(kind, b"") + environ + b"\0"
        return train.poll() is not None

    until(ended, "the study", patience)
    del deployment.processes["train"]
    assert train.returncode == 0, deployment.log("train").read_text()
    assert {*KINDS} <= {*seen}, "a process was missed: nothing is shown of it"
    return seen


def test_nothing_of_another_programs_is_in_any_child(deployment: Deployment) -> None:
    server = deployment.server_up()
    assert CANARY.encode() in Path(f"/proc/{server.pid}/environ").read_bytes()  # there it is
    seen = looked_at(deployment)
    assert [kind for kind, environ in seen.items() if CANARY.encode() in environ] == []
    # What may go on did: it is their environment that was read. nginx writes its title over its own.
    assert all(b"TZ=Etc/GMT+7\0" in seen[kind] for kind in KINDS if not kind.startswith("nginx"))


def test_nginx_is_given_none_either(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDGEN_CANARY", CANARY)
    monkeypatch.setenv("TZ", "Etc/GMT+7")
    children = [it.child for it in ServerUp(deployment.home, lambda *_: None)._kept]
    assert [it.name for it in children] == ["superlink", "superexec", "nginx"]
    assert not any(CANARY in value for it in children for value in it.env.values())
    assert all(it.env["TZ"] == "Etc/GMT+7" for it in children)


def test_the_same_look_finds_what_is_inherited(deployment: Deployment) -> None:
    """The negative control."""
    server = deployment.start(
        "server", [sys.executable, "-c", LEAK, "server", "up", str(deployment.home.root), "--no-proxy"]
    )
    until(deployment.is_up, "the SuperLink")
    leaked = [words for words, environ in family(server.pid).values() if CANARY.encode() in environ]
    assert any("flower-superlink" in words for words in leaked)
    assert any("flower-superexec" in words for words in leaked)


@pytest.mark.postgres
def test_the_password_of_the_state_reaches_who_opens_it_and_nobody_else(deployment: Deployment) -> None:
    with login_needed() as address:
        text = deployment.home.config.read_text(encoding="utf-8")
        text = re.sub(r"(?m)^state: .*$", f"state: {address}", text)
        text = re.sub(r"(?m)^#state_password: .*$", "state_password: env:STATE_PASSWORD", text)
        deployment.home.config.write_text(text, encoding="utf-8")
        deployment.env["STATE_PASSWORD"] = PASSWORD
        deployment.server_up()
        seen = looked_at(deployment)
        secret = f"STATE_PASSWORD={PASSWORD}\0".encode()
        assert {kind for kind, environ in seen.items() if secret in environ} <= {
            "flwr-serverapp", "flower-superexec", "other",
        }  # fmt: skip
        assert secret in seen["flwr-serverapp"]
        assert secret not in seen["flower-superlink"] + seen["nginx: master"]
        assert not any(CANARY.encode() in environ for environ in seen.values())
        # And it stands nowhere else: in no file of the home, in no log.
        deployment.kill("server", 15)  # type: ignore[arg-type]
        kept = [it for it in deployment.root.rglob("*") if it.is_file() and not it.is_symlink()]
        assert [str(it) for it in kept if PASSWORD.encode() in it.read_bytes()] == []
