"""Everything that passes a network interface, as a packet capture sees it; and what of it is TLS. Needs CAP_NET_RAW."""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from support.namespaces import Network

_EVERY_PROTOCOL: Final = 3  # ETH_P_ALL
_LARGEST: Final = 2**17  # a veth pair passes on what was never cut into frames
_ROOM: Final = 2**26
_SOL_PACKET: Final = 263
_STATISTICS: Final = 6
_FORCED_ROOM: Final = 33  # SO_RCVBUFFORCE
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_TCP, _UDP = 6, 17
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16

# Content types of RFC 8446, section 5.1: change_cipher_spec, alert, handshake, application_data.
_TYPES: Final = frozenset({20, 21, 22, 23})
_HANDSHAKE, _DATA = 22, 23
_LONGEST_RECORD: Final = 2**14 + 2048  # RFC 5246, section 6.2.3; TLS 1.3 allows less

Flow = tuple[str, int, str, int]


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment."""

    flow: Flow
    sequence: int
    flags: int
    payload: bytes

    @property
    def opens(self) -> bool:
        """Whether it asks for a connection."""
        return self.flags & (_SYN | _ACK) == _SYN

    @property
    def resets(self) -> bool:
        return bool(self.flags & _RST)


class Capture(threading.Thread):
    """Keeps every packet of one interface, both ways, while the block lasts.

    Args:
        network: Where the interface is.
        interface: Its name.
    """

    def __init__(self, network: Network, interface: str = "wire") -> None:
        super().__init__(daemon=True)
        self._socket = network.do(
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _FORCED_ROOM, _ROOM)
            self._socket.bind((interface, _EVERY_PROTOCOL))
            self._socket.settimeout(0.2)
        except OSError:
            self._socket.close()
            raise
        self._ends, self._lost = threading.Event(), 0
        self.packets: list[bytes] = []

    def run(self) -> None:
        while True:
            try:
                self.packets.append(self._socket.recv(_LARGEST))
            except TimeoutError:
                if self._ends.is_set():
                    return
            except OSError:  # the interface went down: it comes up again
                continue

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self.join(60)
        self._socket.close()

    # -- what was heard -----------------------------------------------------------------------------

    def lost(self) -> int:
        """Return how many packets passed that could not be kept; asking sets the kernel's own count back."""
        self._lost += struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1]
        return self._lost

    def kinds(self) -> set[str]:
        """Return what is in the packets: ``tcp``, ``udp``, ``arp``, ``icmpv6`` or a number."""
        return {_kind(packet) for packet in self.packets}

    def segments(self, first: int = 0) -> list[Segment]:
        """Return the TCP segments among the packets, from one packet on."""
        return [it for it in map(_segment, self.packets[first:]) if it is not None]

    def opened(self) -> set[tuple[str, str, int]]:
        """Return who asked whom for a connection, and at which port."""
        return {(it.flow[0], it.flow[2], it.flow[3]) for it in self.segments() if it.opens}

    def streams(self) -> list[tuple[Flow, bytes]]:
        """Return what was said in each direction of each connection that began while this listened."""
        first: dict[Flow, int] = {}
        parts: dict[Flow, list[Segment]] = {}
        found = []
        for it in self.segments():
            if it.flags & _SYN and first.get(it.flow) != it.sequence:
                found += _told(parts, first, it.flow)  # its port was used before
                first[it.flow] = it.sequence
            if it.payload:
                parts.setdefault(it.flow, []).append(it)
        for flow in [*parts]:
            found += _told(parts, first, flow)
        return found


def _told(parts: dict[Flow, list[Segment]], first: dict[Flow, int], flow: Flow) -> list[tuple[Flow, bytes]]:
    """Take one direction of one connection out of what was heard, if its beginning was."""
    those = parts.pop(flow, [])
    return [(flow, _joined(those, first[flow]))] if those and flow in first else []


def _joined(segments: list[Segment], first: int) -> bytes:
    """Return a stream without what was sent twice, up to the first hole."""
    whole = bytearray()
    for it in sorted(segments, key=lambda one: (one.sequence - first) % 2**32):
        at = (it.sequence - first - 1) % 2**32
        if at > len(whole):
            break
        whole += it.payload[len(whole) - at :]
    return bytes(whole)


def _kind(packet: bytes) -> str:
    (ether,) = struct.unpack_from("!H", packet, 12)
    if ether == _ARP:
        return "arp"
    number = packet[23] if ether == _IPV4 else packet[20] if ether == _IPV6 else ether
    if ether == _IPV6 and number == 0:  # hop-by-hop options, before ICMPv6's reports of listeners
        number = packet[54]
    return {_TCP: "tcp", _UDP: "udp", 1: "icmp", 58: "icmpv6"}.get(number, str(number))


def _segment(packet: bytes) -> Segment | None:
    if _kind(packet) != "tcp" or struct.unpack_from("!H", packet, 12)[0] != _IPV4:
        return None
    ip = packet[14:]
    (length,) = struct.unpack_from("!H", ip, 2)
    ip = ip[: length or len(ip)]  # a frame may be padded
    tcp = ip[(ip[0] & 15) * 4 :]
    near, far = (socket.inet_ntoa(ip[at : at + 4]) for at in (12, 16))
    source, target, sequence = struct.unpack_from("!HHI", tcp)
    return Segment((near, source, far, target), sequence, tcp[13], tcp[(tcp[12] >> 4) * 4 :])


def records(stream: bytes) -> dict[int, int]:
    """Return how many bytes of each content type are in a stream of TLS records; the last may be incomplete.

    Raises:
        ValueError: It is not TLS from its first byte to its last.
    """
    if not stream or stream[0] != _HANDSHAKE:
        raise ValueError("no TLS handshake")
    found: dict[int, int] = {}
    at = 0
    while len(stream) - at >= 5:
        kind, major, _minor, size = struct.unpack_from("!BBBH", stream, at)
        if kind not in _TYPES or major != 3 or size > _LONGEST_RECORD:
            raise ValueError(f"no TLS record at byte {at}")
        found[kind] = found.get(kind, 0) + min(size, len(stream) - at - 5)
        at += 5 + size
    return found


def data_in(stream: bytes) -> int:
    """Return how many bytes of application data, encrypted, a stream of TLS carries.

    Raises:
        ValueError: As :func:`records`.
    """
    return records(stream).get(_DATA, 0)
