"""Flower's own commands, as the coordinator's machine calls them against the SuperLink on loopback.

Whoever reaches the Control API can ship code to every site; so it listens on loopback only, and these commands are the
only ones that use it. Each is a process of its own: Flower's command line is its public surface, its Python is not.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedgen._resources import kit
from fedgen.errors import ConfigError
from fedgen.flower.environment import QUIET
from fedgen.flower.passed import passed
from fedgen.runs.atomic import storage, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONNECTION: Final = "coordinator"
HOME_VARIABLE: Final = "FEDGEN_SERVER"
_PATIENCE_S: Final = 120.0
_HEALTH_S: Final = 3.0
_PROJECT: Final = """\
[project]
name = "fedgen-bundle"
version = "{version}"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedgen"
fab-include = ["server/*.py", "clients/*.py"]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "clients.app:app"

[tool.flwr.app.config]
run = ""
wait = 0.0
"""


def environment(flower: Path) -> dict[str, str]:
    """Return the environment of every Flower process of a coordinator: what it needs, and nothing that others left.

    Args:
        flower: ``FLWR_HOME``: where Flower keeps what it knows.
    """
    found = {**passed(), **QUIET, "FLWR_HOME": str(flower)}
    found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), found.get("PATH", os.defpath)])
    return found


def program(name: str) -> str:
    """Return the path of one of Flower's programs, the one beside this Python first.

    Raises:
        ConfigError: It is not installed.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise ConfigError(f"{name} is not installed", hint="reinstall fedgen: it comes with flwr")
    return found


@contextmanager
def bundle(version: str) -> Iterator[Path]:
    """Yield a folder with what is shipped to the nodes: the two composition roots and a manifest, never the library."""
    with tempfile.TemporaryDirectory(prefix="fedgen-bundle-") as place:
        root = Path(place)
        for part in ("server", "clients"):
            (root / part).mkdir()
            for name in ("__init__.py", "app.py"):
                shutil.copyfile(kit(part, name), root / part / name)
        (root / "pyproject.toml").write_text(_PROJECT.format(version=version), encoding="utf-8")
        yield root


class Control:
    """The SuperLink of one coordinator, seen through Flower's command line.

    Args:
        flower: ``FLWR_HOME`` of the coordinator.
        address: ``host:port`` of the SuperLink, on loopback.
        ca: Certificate that the SuperLink's is checked against.
    """

    def __init__(self, flower: Path, address: str, ca: Path) -> None:
        self._flower, self._address, self._ca = flower, address, ca

    def is_up(self) -> bool:
        """Return whether the SuperLink answers, under the certificate it should have."""
        host, _, port = self._address.rpartition(":")
        context = ssl.create_default_context(cafile=str(self._ca))
        connection = http.client.HTTPSConnection(host, int(port), timeout=_HEALTH_S, context=context)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def start(self, run: str, *, version: str, wait: float) -> int:
        """Have Flower start the ServerApp for a run; return Flower's number for it.

        Args:
            run: Identity of the run, hex.
            version: Of fedgen.
            wait: Seconds to wait for sites that have not approved yet.
        """
        with bundle(version) as root:
            said = self._call(
                "run", str(root), CONNECTION, "--run-config", f'run="{run}" wait={float(wait)}', "--format", "json"
            )  # fmt: skip
        return int(said["run-id"])

    def status(self, number: int) -> str:
        """Return what Flower says of a run: ``pending``, ``starting``, ``running``, ``finished:completed``, …."""
        said = self._call("list", CONNECTION, "--run-id", str(number), "--format", "json")
        rows = said.get("runs") or [{}]
        return str(rows[0].get("status", ""))

    def stop(self, number: int) -> None:
        """Have Flower stop a run; one that has ended already is left as it is."""
        self._call("stop", str(number), CONNECTION, "--format", "json", failing=True)

    def nodes(self) -> dict[int, str]:
        """Return the registered nodes with their status."""
        said = self._call("supernode", "list", CONNECTION, "--format", "json")
        return {int(it["node-id"]): str(it["status"]) for it in said.get("nodes", ())}

    def register(self, public_key: Path, name: str) -> int:
        """Admit a node's key; return the node's number."""
        said = self._call(
            "supernode", "register", str(public_key), CONNECTION, "--name", name, "--format", "json"
        )
        return int(said["node-id"])

    def unregister(self, node: int) -> None:
        """Shut a node out; one that is out already is left as it is."""
        self._call("supernode", "unregister", str(node), CONNECTION, "--format", "json", failing=True)

    # -- inside -------------------------------------------------------------------------------------

    def _call(self, *words: str, failing: bool = False) -> Mapping[str, Any]:
        """Run one command and return its JSON.

        Raises:
            ConfigError: It failed; what Flower said is named.
        """
        self._write_connection()
        try:
            done = subprocess.run(  # noqa: S603 -- Flower's own program; no word comes from a peer
                [program("flwr"), *words],
                env={**environment(self._flower), "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PATIENCE_S,
                check=False,
                cwd=self._flower,
            )
        except subprocess.TimeoutExpired:
            raise ConfigError("Flower's SuperLink does not answer", where=f"flwr {words[0]}") from None
        said = _document(done.stdout)
        if said.get("success") is True or failing:
            return said
        why = str(said.get("error-message") or done.stderr.strip().rpartition("\n")[2] or "no reason given")
        raise ConfigError(
            f"Flower refused: {why[:300]}",
            where=f"flwr {words[0]}",
            hint="is `fedgen server up` running, with room on its disk?",
        )

    def _write_connection(self) -> None:
        """Say in Flower's file where the SuperLink is; nothing else is in it, so that no default leads elsewhere."""
        path = self._flower / "config.toml"
        text = (
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
            f'address = "{self._address}"\nroot-certificates = {json.dumps(str(self._ca.resolve()))}\n'
        )
        with storage(path):
            self._flower.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                return
        write_text(path, text)


def _document(text: str) -> Mapping[str, Any]:
    """Return the JSON document in what a command printed, or an empty one."""
    start = text.find("{")
    try:
        value = json.loads(text[start:]) if start >= 0 else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
