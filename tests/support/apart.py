"""A deployment by hand whose machines are networks of their own: a coordinator, and sites behind firewalls."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from support.by_hand import NAMES, ByHand
from support.capture import Capture
from support.namespaces import HUB, Internet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Apart(ByHand):
    """A coordinator in one network and each site in another; nothing can connect into a site's.

    Args:
        root: As of :class:`~support.by_hand.ByHand`.
        names: Of the sites.
        net: Their networks; the coordinator's is its hub.
    """

    host = HUB

    def __init__(self, root: Path, names: Sequence[str], net: Internet) -> None:
        super().__init__(root, names)
        self.net = net
        self.captures: dict[str, Capture] = {}
        for name in self.names:
            net.join(name).firewall()

    def within(self, name: str) -> list[str]:
        site = name.removeprefix("relay-")
        return self.net.networks.get(site, self.net.hub).within()

    def plug_in(self, name: str) -> None:
        """Leave a relay's file as it was exported: it calls the coordinator's address, over the site's wire."""


@contextmanager
def apart(names: Sequence[str] = NAMES) -> Iterator[Apart]:
    """Lend a deployment that is enrolled and runs; every wire is listened to from before its first packet."""
    root = Path(tempfile.mkdtemp(prefix="fd-", dir="/tmp"))
    try:
        with Internet() as net, ExitStack() as listening:
            made = Apart(root, names, net)
            for name, network in net.networks.items():
                made.captures[name] = listening.enter_context(Capture(network))
            try:
                made.enrol()
                made.up()
                yield made
            finally:
                made.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)
