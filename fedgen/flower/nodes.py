"""Which Flower node is which site: node keys are registered as sites are enrolled, and shut out as they are revoked.

Flower's list of nodes names no keys, so the numbers it gave are kept in ``nodes.json`` of its folder. A key is noted
there before it is registered: whoever is killed in between finds a node that nobody knows, and which key it must be.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import Field, TypeAdapter, ValidationError

from fedgen.config.base import Frozen
from fedgen.errors import Code, IntegrityError
from fedgen.messages import SiteName
from fedgen.runs.atomic import write_private

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.flower.control import Control

NAME: Final = "nodes.json"
_LARGEST: Final = 8 * 2**20


class Node(Frozen):
    """A site's node.

    Attributes:
        key: Public key of the node, a line of OpenSSH.
        node: Flower's number for it, or None while it is being registered.
    """

    key: str = Field(max_length=512)
    node: int | None = None


_NODES: Final[TypeAdapter[dict[SiteName, Node]]] = TypeAdapter(dict[SiteName, Node])


def read_nodes(folder: Path) -> dict[str, Node]:
    """Return the known nodes by site.

    Raises:
        IntegrityError: The file is damaged.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST)
    except FileNotFoundError:
        return {}
    try:
        return _NODES.validate_json(data)
    except ValidationError:
        raise IntegrityError(
            "is no list of nodes",
            code=Code.STORAGE,
            where=path,
            hint="restore it, or remove it with superlink.db",
        ) from None


class Nodes:
    """Keeps the registered nodes of a SuperLink equal to the enrolled sites.

    Args:
        folder: Flower's folder in the coordinator's home.
        control: The SuperLink.
    """

    def __init__(self, folder: Path, control: Control) -> None:
        self._folder, self._control = folder, control
        self._nodes = read_nodes(folder)

    def differ(self, wanted: Mapping[str, str]) -> bool:
        """Return whether there is anything to do: a site to register, or a node to shut out.

        Args:
            wanted: Node key of each site that may take part, by name.
        """
        known = {name: it.key for name, it in self._nodes.items() if it.node is not None}
        return known != dict(wanted)

    def follow(self, wanted: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """Register and shut out what differs; return the names of both.

        Raises:
            ConfigError: The SuperLink does not answer, or refused.
        """
        there = self._control.nodes()
        self._recover(there)
        out = [name for name, it in self._nodes.items() if wanted.get(name) != it.key]
        for name in out:
            node = self._nodes[name].node
            if node is not None and node in there:
                self._control.unregister(node)
            del self._nodes[name]
            self._write()
        new = [name for name in wanted if name not in self._nodes or self._nodes[name].node not in there]
        for name in new:
            self._register(name, wanted[name])
        return new, out

    def _recover(self, there: Mapping[int, str]) -> None:
        """Find the number of a node whose registration was cut off; shut out nodes that nobody knows."""
        known = {it.node for it in self._nodes.values()}
        strays = [node for node in there if node not in known]
        begun = [name for name, it in self._nodes.items() if it.node is None]
        if len(strays) == 1 and len(begun) == 1:
            self._nodes[begun[0]] = self._nodes[begun[0]].model_copy(update={"node": strays[0]})
            strays = []
        for node in strays:
            self._control.unregister(node)
        self._write()

    def _register(self, name: str, key: str) -> None:
        self._nodes[name] = Node(key=key)
        self._write()
        with tempfile.TemporaryDirectory(prefix="fedgen-node-") as place:
            path = Path(place) / "node.pub"
            path.write_text(key + "\n", encoding="ascii")
            number = self._control.register(path, name)
        self._nodes[name] = Node(key=key, node=number)
        self._write()

    def _write(self) -> None:
        text = json.dumps({name: it.model_dump(mode="json") for name, it in self._nodes.items()}, indent=2)
        write_private(self._folder / NAME, text.encode() + b"\n")
