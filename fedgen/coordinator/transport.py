"""What a coordinator needs of whatever carries its messages: nodes, and opaque bytes to and from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fedgen.errors import FedgenError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fedgen.errors import Code


class LinkFailed(FedgenError):
    """What carries the messages of all nodes failed: nothing can be said of any of them, and the run can go on."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One node's answer: bytes nobody has checked yet, or the transport's own reason for having none.

    Attributes:
        node: The transport's name for the peer; proves nothing about who it is.
        reply: The untrusted bytes, or None.
        code: Why there is no reply; None when there is one.
    """

    node: int
    reply: bytes | None
    code: Code | None = None


class Transport(Protocol):
    """Carries a frame to each of some nodes and hands back what they say, as it arrives.

    Either method may raise :class:`LinkFailed`.
    """

    def nodes(self, expected: int, timeout: float) -> Sequence[int]:
        """Return the nodes present, waiting up to ``timeout`` seconds for ``expected`` of them."""
        ...

    def exchange(self, frames: Iterable[tuple[int, bytes]], timeout: float, group: str) -> Iterator[Answer]:
        """Send each node its frame; yield answers as they come, none after ``timeout`` seconds.

        ``frames`` is asked for the next one when it is sent, so that frames which differ from node to node need not be
        held together. A node may be named more than once (it answered twice), or not at all; one that is known not to
        have answered in time is named without a reply, with :attr:`Code.LATE`.
        """
        ...


def to_all(frame: bytes, nodes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Yield one and the same frame for every node."""
    return ((node, frame) for node in nodes)
