"""Networks of this machine that know nothing of each other, and the wires between them: network namespaces.

They need iproute2, nftables and the right to make them, which a container often lacks. Whether they can be had is found
out by making two. Every name is drawn anew, so that tests side by side do not meet.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import secrets
import shutil
import socket
import subprocess
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# RFC 2544 keeps 198.18.0.0/15 for tests between networks: no real machine has such an address.
HUB: Final = "198.18.0.1"
_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET
_WHERE: Final = Path("/run/netns")
_OUTBOUND_ONLY: Final = """
table inet site { }
flush table inet site
table inet site {
  chain incoming {
    type filter hook input priority 0; policy drop;
    iif "lo" accept
    ct state established,related accept
  }
  chain through { type filter hook forward priority 0; policy drop; }
}
"""


class Failed(RuntimeError):
    """A command that sets a network up did not do so."""


def command(*words: str, said: str | None = None) -> str:
    """Run a command that sets a network up; return what it printed.

    Raises:
        Failed: It is not here, or it said no; with its words.
    """
    path = shutil.which(words[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise Failed(f"{words[0]} is not here")
    done = subprocess.run(
        [path, *words[1:]], input=said or "", capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise Failed(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Network:
    """One namespace, with nothing in it but its own loopback.

    Args:
        label: For whoever lists namespaces while a test runs.
    """

    def __init__(self, label: str) -> None:
        self.name = f"fedgen-test-{os.getpid()}-{secrets.token_hex(4)}-{label}"
        command("ip", "netns", "add", self.name)
        try:
            self.ip("link", "set", "lo", "up")
        except Failed:
            self.close()
            raise

    def ip(self, *words: str) -> str:
        return command("ip", "-n", self.name, *words)

    def within(self) -> list[str]:
        """Return the words that start a command in this network."""
        return ["nsenter", f"--net={_WHERE / self.name}", "--"]

    def firewall(self) -> None:
        """Let nothing connect into this network; what it asked for itself comes back. Once more changes nothing."""
        command(*self.within(), "nft", "-f", "-", said=_OUTBOUND_ONLY)

    def do(self, what: Callable[[], T]) -> T:
        """Call a function as if it were in this network; a socket that it makes stays there."""
        done: list[T] = []
        failed: list[BaseException] = []

        def work() -> None:
            try:
                self._enter()
                done.append(what())
            except BaseException as error:  # noqa: BLE001  # handed to who waits
                failed.append(error)

        thread = threading.Thread(target=work)  # only this thread moves, and it ends there
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return done[0]

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(_WHERE / self.name, os.O_RDONLY)
        try:
            if libc.setns(descriptor, _NEW_NETWORK) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(descriptor)

    def listening(self) -> set[tuple[str, int]]:
        """Return address and port of everything that waits for a TCP connection or a UDP packet here."""
        return {
            it for kind in ("tcp", "tcp6", "udp", "udp6") for it in self.do(lambda kind=kind: _waiting(kind))
        }

    def answers(self, address: str, port: int, patience: float = 1.5) -> bool:
        """Return whether something here can connect to an address."""

        def connect() -> bool:
            with suppress(OSError), socket.create_connection((address, port), timeout=patience):
                return True
            return False

        return self.do(connect)

    def close(self) -> None:
        with suppress(Failed):
            command("ip", "netns", "del", self.name)


def _waiting(kind: str) -> set[tuple[str, int]]:
    found = set()
    for line in Path(f"/proc/thread-self/net/{kind}").read_text(encoding="ascii").splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if state == "0A" or (kind.startswith("udp") and remote.endswith(":0000")):
            address, _, port = local.partition(":")
            found.add((_address(address), int(port, 16)))
    return found


def _address(text: str) -> str:
    """Return an address as people write it; the kernel writes each four bytes of it backwards."""
    raw = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


class Internet:
    """A hub with one address, and networks that have a wire to it and to nothing else.

    Each of them has a route to the whole world, over its wire, so that whatever it wants to say can be heard there.
    Nothing goes on from the hub.
    """

    def __init__(self) -> None:
        self._open = ExitStack()
        self.networks: dict[str, Network] = {}
        self.hub = self._make("hub")
        try:
            self.hub.ip("addr", "add", f"{HUB}/32", "dev", "lo")
        except Failed:
            self.close()
            raise

    def _make(self, label: str) -> Network:
        made = Network(label)
        self._open.callback(made.close)
        return made

    def join(self, name: str) -> Network:
        """Make a network with a wire to the hub; its end is called ``wire``."""
        number = len(self.networks) + 1
        site = self.networks[name] = self._make(name)
        far, near = f"to-{number}", f"198.18.{number}."
        ends = ("wire", "netns", site.name, "type", "veth", "peer", "name", far, "netns", self.hub.name)
        command("ip", "link", "add", *ends)
        for network, end, address in ((self.hub, far, f"{near}1/24"), (site, "wire", f"{near}2/24")):
            network.ip("addr", "add", address, "dev", end)
            network.ip("link", "set", end, "up")
        site.ip("route", "add", "default", "via", f"{near}1")
        return site

    def address(self, name: str) -> str:
        return f"198.18.{[*self.networks].index(name) + 1}.2"

    def _far(self, name: str) -> str:
        return f"to-{[*self.networks].index(name) + 1}"

    def cut(self, name: str) -> None:
        """Take the far end of a wire down: nobody is told, and nothing arrives."""
        self.hub.ip("link", "set", self._far(name), "down")

    def mend(self, name: str) -> None:
        self.hub.ip("link", "set", self._far(name), "up")

    def slow(self, name: str, rate: str = "512kbit") -> None:
        """Let so much through a wire and no more, each way; the rest waits in line, or is lost."""
        bucket = ("root", "tbf", "rate", rate, "burst", "4kb", "latency", "400ms")
        command("tc", "-n", self.networks[name].name, "qdisc", "add", "dev", "wire", *bucket)
        command("tc", "-n", self.hub.name, "qdisc", "add", "dev", self._far(name), *bucket)

    def quick(self, name: str) -> None:
        """Take that back."""
        command("tc", "-n", self.networks[name].name, "qdisc", "del", "dev", "wire", "root")
        command("tc", "-n", self.hub.name, "qdisc", "del", "dev", self._far(name), "root")

    def held_up(self, name: str) -> int:
        """Return how many packets of a slow wire had to wait."""
        counts = json.loads(
            command("tc", "-n", self.networks[name].name, "-s", "-j", "qdisc", "show", "dev", "wire")
        )
        return sum(int(it.get("overlimits", 0)) for it in counts)

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@functools.cache
def why_not() -> str | None:
    """Return why no networks can be made here, or None if they can: two are made, and removed again."""
    from support.capture import Capture

    try:
        with Internet() as net:
            probe = net.join("probe")
            probe.firewall()
            with Capture(probe), net.hub.do(lambda: socket.create_server((HUB, 0))) as server:
                port = server.getsockname()[1]
                if (HUB, port) not in net.hub.listening() or not probe.answers(HUB, port):
                    return "two networks that were made do not reach each other"
    except (Failed, OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None


@functools.cache
def why_not_slow() -> str | None:
    """Return why no wire can be made slow here, or None."""
    if why_not() is not None:
        return why_not()
    try:
        with Internet() as net:
            net.join("probe")
            net.slow("probe")
            net.held_up("probe")
            net.quick("probe")
    except (Failed, OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None
